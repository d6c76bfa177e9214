"""``python -m tests.bench [--kernel LINE]… [--only KEY,…] [--write]``: ``make bench``, as root.

What is measured is the package that Python imports: PYTHONPATH chooses another source tree.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import zctrace
from tests.bench import document, figures, guests, picture, tables, tracers
from tests.live.conftest import ROOT
from zctrace import errors, output_files
from zctrace.machine import qemu

KERNELS = ("6.1", "7.3")
RAW, DOCUMENT, PICTURE = (
    ROOT / name for name in ("build/bench.json", "docs/cost.md", "docs/cost.svg")
)
POINTS = ((1, 1), (16, 1), (200, 1), (1, 5), (1, 500), (1, 5000))
"""Threads, and pairs of sockets for each."""
COMPARED = (tracers.UNTRACED, tracers.ZCTRACE)
_VERSIONS = {"bpftrace": "--version", "strace": "--version", "perf": "--version"}


def summary(line, found):
    """Of one kernel, for a terminal."""
    rows = [[f"Linux {line}, extra instructions", *tables.OPERATIONS]]
    base = figures.per_operation(found[tracers.UNTRACED][figures.TRACED])
    rows.append(["untraced, all", *(f"{base[name]:.0f}" for name in tables.OPERATIONS)])
    for key, one in found.items():
        if why := figures.failed(one):
            rows.append([f"{key}: {why}"])
        elif key != tracers.UNTRACED:
            for who in figures.WHO:
                values = figures.extra(found, who)[key]
                rows.append(
                    [f"{key}, {who}", *(f"{values[name]:.0f}" for name in tables.OPERATIONS)]
                )
    return "\n".join(
        f"{row[0]:32}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in rows
    )


def about(measured):
    """What was measured, where, and with which tools."""
    tree = Path(zctrace.__path__[0]).resolve()
    commit = _said("git", "-C", str(tree), "describe", "--always", "--dirty")
    tools = [
        _said(program, option).split("\n")[0].replace("bpftrace v", "bpftrace ")
        for program, option in _VERSIONS.items()
        if shutil.which(program)
    ]
    return {
        "kernels": ", ".join(one["release"] for one in measured.values()),
        "machine": f"one emulated processor, {_said('qemu-system-x86_64', '--version')}, on "
        f"{platform.machine()}",
        "zctrace": commit or zctrace.__version__,
        "tools": ", ".join(tools) or "none",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _said(*words):
    """The first line that a program prints."""
    ended = subprocess.run(words, capture_output=True, text=True)
    return ended.stdout.strip().split("\n")[0]


def main(words=None):
    """Returns what went wrong, empty if nothing did."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--kernel", action="append", help="a kernel line; repeatable")
    parser.add_argument(
        "--only",
        default=",".join(tracers.BY_KEY),
        help="tracers, by commas, of: %(default)s; then nothing else is measured",
    )
    parser.add_argument(
        "--write", action="store_true", help="renew docs/cost.md and its picture"
    )
    parser.add_argument(
        "--again", action="store_true", help="only that, from the last run's build/bench.json"
    )
    options = parser.parse_args(words)
    lines, keys = options.kernel or KERNELS, options.only.split(",")
    whole = set(keys) == tracers.BY_KEY.keys()
    if unknown := set(keys) - tracers.BY_KEY.keys():
        parser.error(f"--only {','.join(sorted(unknown))}: there is no such tracer")
    if tracers.UNTRACED not in keys:
        keys.insert(0, tracers.UNTRACED)
    if options.write and not whole:
        parser.error("--write needs every tracer: leave --only out")
    if options.again:
        write()
        return ""
    if why := unable():
        return why
    measured, growth = {}, None
    with tempfile.TemporaryDirectory() as folder:
        workload, plugin = guests.build(Path(folder))
        for line in lines:
            measured[line] = guests.operations(line, workload, keys)
            print(summary(line, measured[line]["found"]), flush=True)
            if whole:
                measured[line] |= attributed(line, workload, plugin)
        if whole:
            growth = lines[0], guests.growth(lines[0], workload, POINTS)
    facts = about(measured)
    output_files.write(
        RAW, json.dumps({"about": facts, "measured": measured, "growth": growth})
    )
    if options.write:
        write()
    return ""


def attributed(line, workload, plugin):
    """Where the instructions go; or why nothing tells: not every emulator takes the plugin."""
    try:
        return {"symbols": guests.symbols(line, workload, plugin, COMPARED)}
    except errors.ZctraceError as error:
        why = ": ".join(filter(None, (error.what, error.why)))
        print(f"Linux {line}, where the instructions go: not measured: {why}", flush=True)
        return {"unattributed": why}


def write():
    """Renew the document and its picture from the raw results."""
    raw = json.loads(RAW.read_text())
    text = document.section(raw["about"], raw["measured"], raw["growth"])
    output_files.write(DOCUMENT, document.renewed(DOCUMENT.read_text(), text))
    drawn = picture.draw({line: one["found"] for line, one in raw["measured"].items()})
    output_files.write(PICTURE, drawn)


def unable():
    """What is missing, and what to do; empty if nothing is."""
    if os.geteuid():
        return "make bench boots virtual machines: sudo make bench"
    if not shutil.which("gcc"):
        return "make bench compiles its workload with gcc: apt-get install gcc libc6-dev"
    for what, remedy in qemu.missing():
        return f"make bench needs {what}: {remedy}"
    return ""


if __name__ == "__main__":
    raise SystemExit(main())
