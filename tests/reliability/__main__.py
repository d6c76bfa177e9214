"""``python -m tests.reliability [NAME…] [--tries N] …``: ``make test-reliability``, as root.

zctrace is killed, starved and confined, again and again, in guests that play the host, and from
outside of guests that it boots itself. What came of it is written to docs/reliability.md.
Figures that are wrong without a doubt, and whatever stays behind, are an error. NAMEs are
measured alone: the others' rows stay as they are.
"""

import argparse
import compileall
import datetime
import importlib.metadata
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import suppress
from pathlib import Path

from tests.bench.document import renewed
from tests.kernel_lines import document
from tests.kernel_lines.judge import Word
from tests.live import traces
from tests.live.conftest import ROOT, run_in_guest
from tests.live.suites import PROCESSORS
from tests.reliability import judge
from tests.reliability.judge import Beside
from tests.reliability.record import read, tried
from zctrace import _version
from zctrace.machine import kernels, staging

HERE, PAGE = Path(__file__).parent, ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- make test-reliability: begin -->", "<!-- make test-reliability: end -->"
COUNTED = (*map(str, (Word.EXACT, Word.OPEN, Word.REFUSED)), str(Beside.NONE))
BAD = (str(Word.WRONG), str(Beside.LEFT))
COLUMNS = ("what", "tried", *COUNTED, *BAD, "measured", "kernel", "what was seen")
SEEN, FAILED = COLUMNS[-1], "the trial itself failed"
_LONGEST = 900
"""Of what was seen, in characters."""
ITEMS = {
    "kills": ("`kill -9` of the tool or its collector, on the running kernel", 200),
    "vm-kills": ("`kill -9` of the tool or QEMU, measuring in a virtual machine", 40),
    "disk": ("a full disk: output, temporary files, cache", 1),
    "memory": ("little memory: `RLIMIT_AS`, `memory.max`", 1),
    "storm": ("64 threads that fork and execute 256 programs", 3),
    "ending": ("a process that ends while zctrace attaches to it", 100),
    "sockets": ("10 000 sockets open at once", 1),
    "hour": ("a long trace in constant memory", 1),
    "container": ("namespaces, hidden parts of the kernel, fewer capabilities", 1),
}
"""By name: the row's title, and how many tries; the guest knows those of a case with 1."""
DISTRIBUTIONS = ("typer", "rich", "msgspec", "jinja2")
"""What zctrace's command needs, with all that these need."""
_COPYING = ("dd", "if=/dev/zero", "of=/dev/shm/copy", "bs=65536", "count=15", "status=none")
_COPIED = {"things": {"/dev/shm/copy": {"u2k": 15 * 65536}}}
_ENDING, _ENDING_BYTES = "/run/programs/ending", 300_007
"""What processes read that end while zctrace attaches to them."""
_VM_LEFT_SECONDS = 20.0


def needed(names):
    """Files and folders of Python packages that distributions of these names have."""
    places, wanted = set(), list(names)
    for name in wanted:
        distribution = importlib.metadata.distribution(name)
        tops = {Path(file).parts[0] for file in distribution.files}
        places |= {distribution.locate_file(top) for top in tops if top[0] not in "._"}
        # Not those of extras, nor of other systems.
        for need in (line for line in distribution.requires or () if ";" not in line):
            more = re.match(r"[\w.-]+", need)[0]
            wanted += [more] * (more not in wanted)
    return sorted(place for place in places if place.suffix in ("", ".py"))


def in_guest(names, asked, found):
    """Cases of ``reliability_guest``, in one guest; ``found`` gets what each has found."""
    options = {key: getattr(asked, key) for key in ("seconds", "seed", "check", "lasts")}
    options["tries"] = {name: asked.tries or ITEMS[name][1] for name in names}

    shown = set()

    def show(line):
        if line["failed"]:
            line["beside"][FAILED] = line["failed"].splitlines()[-1]
        if line["case"] not in shown:
            found(line["case"], line["tries"], line["beside"])
        shown.add(line["case"])

    modules = [path for path in HERE.glob("*.py") if not path.name.startswith("__")]
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        site = Path(folder) / "site"
        for name, package in staging.PACKAGES.items():
            shutil.copytree(package.__path__[0], site / name, dirs_exist_ok=True)
        for place in needed(DISTRIBUTIONS):
            copy = shutil.copytree if place.is_dir() else shutil.copy
            copy(place, site / place.name)
        version = f"{_version.version()}\n"
        (site / "zctrace" / _version.FILE).write_text(version, encoding="ascii")
        compileall.compile_dir(site, quiet=2)
        answers = run_in_guest(
            asked.kernel,
            "reliability_guest.py",
            json.dumps(options),
            modules=modules,
            folders=(site,),
            processors=asked.cpus,
            show=show,
        )
    for name, answer in answers.items():
        show({"case": name, **answer})


def ends_meanwhile(asked):
    """The same of ``ending``, a suite of tracing_guest."""
    tries = asked.tries or ITEMS["ending"][1]
    wanted = {"tries": tries, "seed": asked.seed, "file": _ENDING, "size": _ENDING_BYTES}
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        numbers = Path(folder) / "ending.json"
        numbers.write_text(json.dumps(wanted))
        answer = run_in_guest(
            asked.kernel,
            "tracing_guest.py",
            "ending",
            file_systems=("ext4", "xfs"),
            room_bytes=64 << 20,
            modules=(HERE / "ending.py", numbers),
            processors=asked.cpus,
        )
    expected = {"at most": {_ENDING: _ENDING_BYTES}}
    tries = [
        tried(status=0, result={"evidence": evidence}, expected=expected)
        for evidence in answer["evidence"].values()
    ]
    tries += [
        tried(status=1, stderr=judge.message(text)) for text in answer["failures"].values()
    ]
    return tries, {"bytes read while traced": judge.amounts(tries, _ENDING)}


def from_outside(asked):
    """Of ``zctrace``, which boots guests: the tool or its QEMU is killed."""
    seeded, tries, victims, began = random.Random(asked.seed), [], {}, time.monotonic()
    kernels.resolve(asked.kernel, print)
    lasts = 0.0
    for number in range(-1, asked.tries or ITEMS["vm-kills"][1]):
        if asked.seconds and time.monotonic() - began > asked.seconds:
            break
        victim = seeded.choice(("zctrace", "zctrace", "qemu-system"))
        at = time.monotonic()
        # The first lives: its time is that in which the others die.
        tries.append(_killed(asked, victim, seeded.uniform(0, lasts) if lasts else None))
        lasts = lasts or time.monotonic() - at
        victims[victim] = victims.get(victim, 0) + (number >= 0)
        print(number, victim, tries[-1]["status"], tries[-1]["left"], flush=True)
    return tries, {"killed": victims, "seconds of a whole trace": round(lasts, 1)}


def _killed(asked, victim, after):
    """A trace in a guest; ``victim`` is killed ``after`` so many seconds, if any."""
    temporary = Path(tempfile.mkdtemp(prefix="killed-"))
    temporary.chmod(0o755)
    result = temporary.with_suffix(".json")
    command = [sys.executable, "-m", "zctrace", "trace", "--kernel", asked.kernel]
    command += ["--cpus", asked.cpus, "--json", result]
    process = subprocess.Popen(
        [*map(str, command), "--", *_COPYING],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    ids = []
    if after is not None:
        time.sleep(after)
        ids = [path.name.removeprefix("zctrace-") for path in temporary.glob("zctrace-*")]
        marked = traces.processes(marks=[str(temporary)])
        emulators = [n for n, words in marked.items() if words.startswith(victim)]
        with suppress(ProcessLookupError):
            os.kill((*emulators, process.pid)[0], 9)
    _, stderr = process.communicate(timeout=900)
    deadline = time.monotonic() + _VM_LEFT_SECONDS
    while (left := traces.of_run(temporary, ids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    found = read(result)
    result.unlink(missing_ok=True)
    shutil.rmtree(temporary)
    return tried(process.returncode, stderr, found, _COPIED, left)


def row(tries, beside, kernel):
    """Of the table."""
    counts, reasons = judge.tally(tries)
    said = [f"{many} × {text}" for text, many in reasons]
    said += [f"{key}: {value}" for key, value in beside.items()]
    return {
        "tried": str(len(tries)),
        **{word: str(counts[word]) for word in (*COUNTED, *BAD)},
        "measured": datetime.date.today().isoformat(),
        "kernel": kernel,
        SEEN: textwrap.shorten("; ".join(said), _LONGEST, placeholder=" …"),
    }


def write(title, new):
    """Put a row in the page; those of others stay."""
    text = PAGE.read_text()
    _, _, rest = text.partition(BEGIN)
    rows = document.rows_of(rest.partition(END)[0], COLUMNS) | {title: new}
    ordered = {title: rows[title] for title, _ in ITEMS.values() if title in rows}
    PAGE.write_text(renewed(text, document.table(ordered, COLUMNS), BEGIN, END))


def main():
    """Returns what is wrong, empty if nothing is."""
    parser = argparse.ArgumentParser(prog="make test-reliability ARGS=…")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ITEMS))
    parser.add_argument("--tries", type=int, help="of each; the page has what was tried")
    parser.add_argument("--seconds", type=float, default=0, help="no try is begun after these")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", type=int, default=1, help="a trace after so many kills")
    parser.add_argument("--lasts", type=float, default=3600, help="of the long trace, seconds")
    parser.add_argument("--kernel", default="6.1")
    parser.add_argument("--cpus", type=int, default=PROCESSORS, help="of the guests")
    asked = parser.parse_args()
    names = asked.names or [*ITEMS]
    if unknown := set(names) - ITEMS.keys():
        return f"{unknown.pop()!r} is none of: {', '.join(ITEMS)}"
    kernel = f"{kernels.resolve(asked.kernel, print).release}, {asked.cpus} CPU"
    alone = {"vm-kills": from_outside, "ending": ends_meanwhile}
    together = [name for name in names if name not in alone]
    wrong = []

    def found(name, tries, beside):
        new = row(tries, beside, kernel)
        print(name, new, flush=True)
        write(ITEMS[name][0], new)
        if FAILED in beside or any(int(new[word]) for word in BAD):
            wrong.append(f"{name}: {new[SEEN]}")

    if together:
        in_guest(together, asked, found)
    for name in names:
        if name in alone:
            found(name, *alone[name](asked))
    return "\n".join(wrong)


if __name__ == "__main__":
    sys.exit(main() or 0)
