"""Record kernels and evidence anew, for the tests that need neither: ``make record``.

``python -m tests.record [NAME…]``, as root: each NAME is one of RECORDS, or a kernel's line.
Everything is measured in virtual machines; what was recorded before is replaced only when all
that was asked for has succeeded. Documents show some of it, and are renewed.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests import documents
from tests.conftest import HERE, KERNELS, LIVE_KERNELS
from tests.live.conftest import PROGRAMS, run_in_guest, unpack
from zctrace import output_files
from zctrace.machine import qemu

FILE_SYSTEMS = ("ext4", "xfs")
TEXTBOOK = ("read-write", "mmap-write", "sendfile", "splice")
CARDS = ("e1000", "e1000-nosg")
BARE = (*TEXTBOOK, "msg-zerocopy", "copy-file-range", "io-uring-zc", "tcp-zerocopy-receive")
ON_CARDS = tuple((name, nic) for nic in CARDS for name in ("read-write", "sendfile", "splice"))


def _on(nic, *names):
    return tuple((name, nic) for name in names)


EVIDENCE = {
    "linux-5.10": ("5.10", _on("lo", "sendfile", "io-uring-zc")),
    "linux-6.1": ("6.1", _on("lo", *BARE)),
    "linux-7.3": ("7.3", _on("lo", *BARE)),
    "linux-6.1-e1000": ("6.1", ON_CARDS),
    "linux-7.3-e1000": ("7.3", ON_CARDS),
    "linux-6.1-java": ("6.1", ("java-",)),
    "linux-6.1-netty": ("6.1", ("netty-",)),
}
"""By file: the kernel, and which of its runs are kept: strategy and device, or how its name
begins. All would be ten times as large."""
TRACED = ("cp", "cp --reflink", "cat", "shell", "nginx, sendfile on", "nginx, sendfile off")
"""Programs whose evidence is kept."""


def facts(line):
    """What a kernel offers."""
    return run_in_guest(
        line, "facts_guest.py", *FILE_SYSTEMS, file_systems=FILE_SYSTEMS, room_bytes=16 << 20
    )


def measured(lines, folder):
    """``zctrace run --all`` on the kernels; returns their evidence, by line."""
    result = Path(folder, "result.json")
    command = [sys.executable, "-m", "zctrace", "run", "--all", "--json", str(result)]
    for line in lines:
        command += ["--kernel", line]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return dict(zip(lines, json.loads(result.read_text())["evidence"], strict=True))


def _kept(run, wanted):
    return any(
        run["strategy"].startswith(want)
        if isinstance(want, str)
        else (run["strategy"], run["nic"]) == want
        for want in wanted
    )


def evidence(folder):
    """Files of evidence of runs, by name."""
    of = measured(list(dict.fromkeys(line for line, _ in EVIDENCE.values())), folder)
    return {
        name: {**of[line], "runs": [run for run in of[line]["runs"] if _kept(run, wanted)]}
        for name, (line, wanted) in EVIDENCE.items()
    }


def programs(line, packages):
    """Evidence of traced programs."""
    answer = run_in_guest(
        line,
        "tracing_guest.py",
        "programs",
        file_systems=FILE_SYSTEMS,
        folders=(packages,),
        room_bytes=64 << 20,
    )
    if answer["failures"]:
        raise SystemExit("\n".join(answer["failures"].values()))
    return {name: answer["evidence"][name] for name in TRACED}


def main(names):
    if os.geteuid():
        return "make record boots virtual machines: sudo make record"
    for what, remedy in qemu.missing():
        return f"make record needs {what}: {remedy}"
    recorded = {}
    with tempfile.TemporaryDirectory() as folder:
        if not names or "kernels" in names:
            recorded |= {f"kernels/linux-{line}": facts(line) for line in KERNELS}
        if not names or "evidence" in names:
            found = evidence(folder)
            recorded |= {f"evidence/{name}": values for name, values in found.items()}
        if not names or "programs" in names:
            packages = unpack(Path(folder), *PROGRAMS)
            for line in LIVE_KERNELS:
                recorded[f"evidence/programs-{line}"] = programs(line, packages)
    for name, values in recorded.items():
        output_files.write(HERE / f"{name}.json", json.dumps(values))
        print(f"recorded {name}")
    documents.main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
