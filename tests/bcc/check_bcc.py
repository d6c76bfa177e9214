"""Whether the meter compiles, loads and counts with the BCC of every Debian release.

``python -m tests.bcc.check_bcc [KERNEL…]``, as root; the kernels are those of the live
tests unless named. Each is booted once in a virtual machine. In there the BCC of each
release, in that release's own root file system and with its own Python, compiles what is
planned for this kernel, loads and attaches all of it, and counts a known number of bytes
through a pipe.

Prints a line per kernel and release, and compilers' warnings on standard error. The exit
code is 1 if anything failed.
"""

import json
import os
import secrets
import sys
from pathlib import Path

from tests.conftest import LIVE_KERNELS
from tests.roots import RELEASES, root_of
from zctrace.errors import ZctraceError
from zctrace.machine import kernels, kvm, qemu, staging
from zctrace.machine import progress as machine_progress
from zctrace.machine.guardian import guarded

HERE = Path(__file__).parent
_MEMORY_BYTES = 2 << 30


def say(text):
    print(f"  {text}", file=sys.stderr, flush=True)


def on_kernel(line, roots):
    """What became of the meter in each of ``roots``, by release, on one kernel."""
    found = kernels.resolve(line, say)
    with guarded(f"bcc-{secrets.token_hex(4)}") as run_folder:
        code = staging.stage(run_folder.path)
        for name in ("releases_guest.py", "meter_release.py"):
            (code / name).write_text((HERE / name).read_text())
        guest = qemu.Guest(
            found, kvm.kvm_works(found, run_folder, say), _MEMORY_BYTES, run_folder.path
        )
        answer, steps = run_folder.path / "answer", run_folder.path / "steps"
        command = [qemu.PYTHON, "-IB", code / "releases_guest.py", code, answer, steps]
        folders = [f"{release}={root}" for release, root in roots.items()]
        say(f"booting Linux {found.release}")
        progress = machine_progress.Progress(steps, answer, say, 0)
        qemu.run(guest, [*map(str, command), *folders], run_folder, progress)
        return json.loads(answer.read_text())


def report(line, release, outcome):
    """Print one outcome; returns whether it is a good one."""
    if outcome["complaints"]:
        print(outcome["complaints"], file=sys.stderr)
    if "error" in outcome:
        print(f"Linux {line}, {release}: failed: {outcome['error']}", flush=True)
        return False
    programs = outcome["programs"]
    print(
        f"Linux {outcome['kernel']}, {release}: BCC {outcome['bcc']} loaded "
        f"{len(programs)} programs, counted {outcome['counted']} bytes",
        flush=True,
    )
    say(", ".join(programs))
    return True


def check(lines):
    """All releases on all kernels; returns whether everything went well."""
    good, roots = True, {}
    for release in RELEASES:
        try:
            roots[release] = root_of(release, "bcc", ("python3", "python3-bpfcc"), say)
        except ZctraceError as error:
            good = False
            print(f"{release}: no root file system: {error.what}: {error.why}", flush=True)
    for line in lines if roots else ():
        try:
            outcomes = on_kernel(line, roots)
        except ZctraceError as error:
            good = False
            print(f"Linux {line}: failed: {error.what}: {error.why}", flush=True)
            continue
        results = [report(line, release, outcomes[release]) for release in roots]
        good = good and all(results)
        loaded = {tuple(o["programs"]) for o in outcomes.values() if "programs" in o}
        if len(loaded) > 1:
            good = False
            print(f"Linux {line}: failed: not the same programs with every BCC", flush=True)
    return good


def main():
    if os.geteuid():
        return "check_bcc boots virtual machines on all files: sudo make test-bcc"
    for what, remedy in qemu.missing():
        return f"check_bcc needs {what}: {remedy}"
    return 0 if check(sys.argv[1:] or LIVE_KERNELS) else 1


if __name__ == "__main__":
    sys.exit(main())
