"""A suite of tracing_guest: a meter with room for few things, and a program with many."""

from pathlib import Path

import suites

ROOM = suites.ROOM


def everything(programs):
    workload = Path(__file__).parent / "scale_workload.py"
    programs.command("little room", "/usr/bin/python3", "-I", workload, *suites.CROWD)
