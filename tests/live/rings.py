"""A suite of tracing_guest: programs that use io_uring, or io_submit(2)."""

from pathlib import Path

from suites import SIZE

PYTHON = "/usr/bin/python3"
WORKLOAD = Path(__file__).parent / "ring_workload.py"


def everything(programs):
    ext4 = programs.folders["ext4"]
    other = ext4 / "other"
    other.write_bytes(bytes(SIZE))
    for what in ("all", "silent", "aio"):
        name = {"all": "rings", "silent": "silent ring"}.get(what, what)
        programs.command(name, PYTHON, "-I", WORKLOAD, what, ext4)
    for engine, more in (
        ("io_uring", ["--registerfiles", "--fixedbufs", "--iodepth=8"]),
        ("libaio", ["--direct=1", "--iodepth=8"]),
    ):
        programs.command(
            f"fio, {engine}",
            *("fio", "--name=it", f"--filename={ext4}/payload", f"--ioengine={engine}"),
            *("--rw=read", "--bs=64k", f"--size={SIZE}", "--readonly", "--thread", *more),
        )
