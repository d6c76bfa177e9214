"""The command line, with guests whose processor has FSRM: ``python -m tests.live.fsrm …``."""

import dataclasses
import runpy

from zctrace.machine import qemu

OPTION = "setcpuid=fsrm"
_run = qemu.run


def run(guest, *arguments):
    return _run(dataclasses.replace(guest, boot_options=(OPTION,)), *arguments)


if __name__ == "__main__":
    qemu.run = run
    runpy.run_module("zctrace", run_name="__main__")
