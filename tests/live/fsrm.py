"""The command line, with guests whose processor has FSRM: ``python -m tests.live.fsrm …``."""

import dataclasses
import runpy

from zctrace.machine import qemu

OPTION = "setcpuid=fsrm"
_command = qemu.command


def command(guest, script):
    return _command(dataclasses.replace(guest, boot_options=(OPTION,)), script)


if __name__ == "__main__":
    qemu.command = command
    runpy.run_module("zctrace", run_name="__main__")
