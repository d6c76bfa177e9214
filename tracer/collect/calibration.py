"""What the meter costs on this machine: the same calls, timed without it and with it."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zctrace.evidence.schema import Price
from zctrace.workloads.marker import Role, Scope

_BATCHES, _CALLS = 5, 200
_PIECE, _PIECES = 1 << 17, 128
_TIMES = struct.Struct("=dd")


class Calibration:
    """Made before the meter is attached: it notes what calls take without it."""

    def __init__(self) -> None:
        self._without, self._byte = _timed(), _nanoseconds_of_a_byte()

    def price(self, meter: Any, cgroup: Path) -> Price:
        """Time the same calls in a window of the attached ``meter``, and outside of any.

        Leaves counts behind, which are to be forgotten.
        """
        call, copy = (
            after - before
            for before, after in zip(self._without, _in_window(meter, cgroup), strict=True)
        )
        outside, _ = _timed()
        return Price(
            call=max(call, 0.0),
            copy=max(copy - call, 0.0),
            bystander=max(outside - self._without[0], 0.0),
            byte=self._byte,
        )


def _timed() -> tuple[float, float]:
    """Nanoseconds of a system call that does next to nothing, and of one that copies a byte."""
    number = os.memfd_create("zctrace")
    try:
        os.write(number, b"\0")
        return _fastest(os.getppid), _fastest(lambda: os.pread(number, 1, 0))
    finally:
        os.close(number)


def of_own_copy() -> float:
    """Nanoseconds of a call of the C library's function that copies, in this process."""
    one, other = (ctypes.create_string_buffer(1) for _ in range(2))
    return _fastest(lambda: ctypes.memmove(one, other, 1))


def _nanoseconds_of_a_byte() -> float:
    """What the kernel takes to copy a byte of a file that is larger than most caches."""
    number = os.memfd_create("zctrace")
    buffers = [bytearray(_PIECE)]
    try:
        for _ in range(_PIECES):
            os.write(number, buffers[0])
        times = []
        for _ in range(_BATCHES):
            began = time.perf_counter_ns()
            for piece in range(_PIECES):
                os.preadv(number, buffers, piece * _PIECE)
            times.append(time.perf_counter_ns() - began)
        return min(times) / (_PIECES * _PIECE)
    finally:
        os.close(number)


def _fastest(call: Callable[[], object]) -> float:
    """Of several batches, so that what else runs on the machine has no part in it."""
    times = []
    for _ in range(_BATCHES):
        began = time.perf_counter_ns()
        for _ in range(_CALLS):
            call()
        times.append(time.perf_counter_ns() - began)
    return min(times) / _CALLS


def _in_window(meter: Any, cgroup: Path) -> tuple[float, float]:
    """Of a process in ``cgroup`` that has a window."""
    (our_input, its_output), (its_input, our_output) = os.pipe(), os.pipe()
    process = os.fork()
    if not process:
        try:
            # So that the child ends if it never gets the word to go.
            os.close(our_output)
            if not os.read(its_input, 1):
                os._exit(1)
            os.write(its_output, _TIMES.pack(*_timed()))
        finally:
            os._exit(0)
    try:
        (cgroup / "cgroup.procs").write_text(str(process))
        meter.open_window(process, Role.PROGRAM, Scope.PROCESS)
        meter.activate()
        os.write(our_output, b"\n")
        call, copy = _TIMES.unpack(os.read(our_input, _TIMES.size))
    finally:
        os.close(our_output)
        os.waitpid(process, 0)
        meter.deactivate()
        meter.close_windows()
        for number in (our_input, its_output, its_input):
            os.close(number)
    return call, copy
