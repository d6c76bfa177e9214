"""``python -m tests.bench [--kernel LINE]… [--only KEY,…]``, as root: ``make bench``."""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from tests.bench import tracers
from tests.live.conftest import ROOT, run_in_guest

HERE = Path(__file__).parent
RAW = ROOT / "build" / "bench.json"
COUNTING = ("-icount", "shift=0,sleep=off")
"""The guest's time advances by one nanosecond for each instruction, and at once where it
sleeps."""


def built(folder):
    """The workload, compiled into ``folder``."""
    program = Path(folder, "workload", "workload")
    program.parent.mkdir()
    subprocess.run(
        ["gcc", "-O2", "-static", "-o", program, HERE / "workload.c"],
        check=True,
    )
    return program.parent


def per_operation(lines):
    """Instructions of one repetition, by operation: the median of the batches."""
    return {
        name: statistics.median(map(int, batches)) / int(repetitions)
        for name, repetitions, *batches in lines
    }


def shown(found):
    """Of one kernel: what each operation takes untraced, and how much more under a tracer."""
    base = {who: per_operation(found["untraced"][who]) for who in ("traced", "bystander")}
    names = list(base["traced"])
    lines = [["", "", *names]]
    for key, one in found.items():
        if why := one.get("error") or one.get("missing"):
            lines.append([key, why.strip().splitlines()[-1]])
            continue
        for who in base:
            values = per_operation(one[who])
            extra = [
                values[name] - (base[who][name] if one is not found["untraced"] else 0)
                for name in names
            ]
            lines.append([key, who, *(f"{value:.0f}" for value in extra)])
    return "\n".join(
        f"{line[0]:16} {line[1]:10} " + " ".join(f"{cell:>9}" for cell in line[2:])
        for line in lines
    )


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--kernel", action="append")
    parser.add_argument("--only", default=",".join(tracers.BY_KEY))
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        program = built(folder)
        for line in options.kernel or ("6.1", "7.3"):
            found[line] = run_in_guest(
                line,
                "bench_guest.py",
                *options.only.split(","),
                file_systems=("ext4",),
                room_bytes=8 << 20,
                emulator_options=COUNTING,
                folders=(program,),
                modules=(HERE / "bench_guest.py", HERE / "tracers.py"),
            )
            RAW.parent.mkdir(exist_ok=True)
            RAW.write_text(json.dumps(found))
            print(f"instructions on {line}: untraced; then extra")
            print(shown(found[line]))


if __name__ == "__main__":
    if os.geteuid():
        raise SystemExit("make bench boots virtual machines: sudo make bench")
    main()
