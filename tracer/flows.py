"""What the meter's flows say: files, sockets, pipes, threads, and what was copied for them.

Reads the tables of probes/bpf/flows.c and names what is in them. Part of collecting.
"""

from __future__ import annotations

import ctypes
import mmap
import socket
import stat
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.site import Kind, Purpose
from probes.transfers import MAX_NUMBER, NAMES, RINGS, TRANSFERS, Told
from tracer.plan import DIRECTION_NUMBERS, AttachPlan
from tracer.stacks import Stack
from workloads.marker import Role

TABLES = ("transfers", "objects", "flows", "bookings", "workers", "overflow", "running")
"""Those that are cleared between one program and the next."""
_PAYLOAD = 1
_FIGURES, _CELL_BYTES = 3, 8
"""The meter's RUNNING_FIGURES, and the size of a cell of an array of u64."""
NO_CALL = "no call"
"""In the place of a system call's name: softirqs, and kernel threads."""
_MAX_FLOWS, _MAX_OBJECTS, _MAX_WORKERS = 65536, 16384, 16384
_MOVING = NAMES | RINGS | {NO_CALL}
_NAME_BYTES = 40
PARAMETERS = {
    "FLOWS": "1",
    "MAX_FLOWS": str(_MAX_FLOWS),
    "MAX_OBJECTS": str(_MAX_OBJECTS),
    "MAX_WORKERS": str(_MAX_WORKERS),
    "NAME_BYTES": str(_NAME_BYTES),
    "MAX_SYSCALL": str(MAX_NUMBER),
    "ROLE_PROGRAM": str(int(Role.PROGRAM)),
    "PURPOSE_PAYLOAD": str(_PAYLOAD),
    **{f"TOLD_{told.name}": str(told.value) for told in Told},
}
"""For the meter's ``-D``."""
_NO_DESCRIPTOR = 0xFFFFFFFF
_WAYS = {1: "in", 2: "out"}
_DIRECTIONS = {number: way.value for way, number in DIRECTION_NUMBERS.items()}
_SOCKET_TYPES = {1: "stream", 2: "datagram", 3: "raw", 5: "packets"}
_MOUNTS = Path("/proc/self/mountinfo")

FILE, SOCKET, PIPE, DEVICE, OTHER = "file", "socket", "pipe", "device", "other"
"""Kinds of things."""


@dataclass(frozen=True)
class Thing:
    """A file, socket, pipe or device; ``name`` is its path, or addresses, for people."""

    kind: str
    name: str


@dataclass(frozen=True)
class Flow:
    """What one system call moved through one descriptor of one process.

    ``thing`` is an index, ``None`` where the descriptor was not seen, because the call had
    begun before the tracing did (``descriptor`` is ``None``, too) or because a table was
    full. ``way`` is ``in`` or ``out``, seen from the program.
    """

    thing: int | None
    process: int
    descriptor: int | None
    syscall: str | None
    way: str
    calls: int
    bytes: int


@dataclass(frozen=True)
class Booking:
    """Payload that the CPU copied in ``syscall`` for one thing; ``None`` where unknown.

    ``syscall`` is ``None`` for what was copied outside of any, in a softirq.
    """

    thing: int | None
    syscall: str | None
    direction: str | None
    calls: int
    bytes: int


@dataclass(frozen=True)
class Worker:
    """Payload that the CPU copied on one thread; thread 0: in softirqs, on any thread."""

    thread: int
    process: int
    name: str
    calls: int
    bytes: int


@dataclass(frozen=True)
class Account:
    """Everything of one program. ``overflow``: bytes that full tables did not take.

    ``stacks`` are empty unless they were asked for.
    """

    things: tuple[Thing, ...] = ()
    flows: tuple[Flow, ...] = ()
    bookings: tuple[Booking, ...] = ()
    workers: tuple[Worker, ...] = ()
    overflow: int = 0
    stacks: tuple[Stack, ...] = ()

    @staticmethod
    def from_json(values: dict[str, Any]) -> Account:
        return Account(
            tuple(Thing(**thing) for thing in values["things"]),
            tuple(Flow(**flow) for flow in values["flows"]),
            tuple(Booking(**booking) for booking in values["bookings"]),
            tuple(Worker(**worker) for worker in values["workers"]),
            values["overflow"],
            tuple(Stack.from_json(stack) for stack in values.get("stacks", ())),
        )


@dataclass(frozen=True)
class Look:
    """What had moved, been copied and found no room until now; bytes, by system call.

    Unlike an account it knows of no pipes inside the program: what goes through one is
    received and delivered, too.
    """

    received: dict[str, int]
    delivered: dict[str, int]
    copied: dict[str, int]
    overflow: int


class Running:
    """The meter's running totals, in our own memory; a context manager.

    Reading them takes no system call, so that no program of the meter is skipped for it.
    """

    def __init__(
        self, totals: int, overflow: int, syscall_name: Callable[[int], str | None]
    ) -> None:
        """``totals`` and ``overflow`` are the descriptors of the meter's tables."""
        self._name = syscall_name
        self._totals = _mapped(totals, MAX_NUMBER * _FIGURES)
        self._overflow = _mapped(overflow, 1)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self._totals.close()
        self._overflow.close()

    def look(self) -> Look:
        """What is there by now."""
        by_call: list[dict[str, int]] = [{} for _ in range(_FIGURES)]
        for slot, size in enumerate(_cells(self._totals)):
            if size:
                number, figure = divmod(slot, _FIGURES)
                name = self._name(number) if number < MAX_NUMBER - 1 else None
                by_call[figure][name or NO_CALL] = size
        received, delivered, copied = by_call
        # As in the answer: what other calls copy (getrandom) is for other ends.
        copied = {name: size for name, size in copied.items() if name in _MOVING}
        return Look(received, delivered, copied, sum(_cells(self._overflow)))


def _mapped(descriptor: int, cells: int) -> mmap.mmap:
    """Whole pages, whose rest is 0."""
    pages = -(-cells * _CELL_BYTES // mmap.PAGESIZE)
    return mmap.mmap(descriptor, pages * mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)


def _cells(memory: mmap.mmap) -> tuple[int, ...]:
    return struct.unpack_from(f"={len(memory) // _CELL_BYTES}Q", memory)


def prepare(tables: Any, attach_plan: AttachPlan) -> None:
    """Tell the meter which system calls move bytes, and which sites copy payload."""
    calls = tables["transfer_calls"]
    for transfer in TRANSFERS:
        calls[ctypes.c_int(transfer.number)] = calls.Leaf(
            source=transfer.source,
            destination=transfer.destination,
            told=transfer.told.value,
            by_mode=transfer.by_mode,
        )
    purposes = tables["purposes"]
    counting = [
        *(c.number for c in attach_plan.calls if c.target.purpose is Purpose.PAYLOAD),
        *(c.number for c in attach_plan.copies if c.kind is Kind.COPY),
    ]
    for number in counting:
        purposes[ctypes.c_int(number)] = ctypes.c_uint32(_PAYLOAD)


def read(tables: Any, syscall_name: Callable[[int], str | None]) -> Account:
    """Everything since the tables were cleared."""
    mounts = _mounts(_MOUNTS.read_text().splitlines())
    numbers: dict[tuple[int, int], int] = {}
    things: list[Thing] = []
    for key, entry in tables["objects"].items():
        numbers[key.inode, key.device] = len(things)
        things.append(_thing(key.inode, key.device, entry, mounts))
    return Account(
        tuple(things),
        tuple(
            Flow(
                thing=numbers.get((key.object.inode, key.object.device)),
                process=key.process,
                descriptor=None if key.descriptor == _NO_DESCRIPTOR else key.descriptor,
                syscall=syscall_name(key.syscall),
                way=_WAYS[key.way],
                calls=cell.calls,
                bytes=cell.bytes,
            )
            for key, cell in tables["flows"].items()
        ),
        tuple(
            Booking(
                thing=numbers.get((key.object.inode, key.object.device)),
                syscall=syscall_name(key.syscall),
                direction=_DIRECTIONS.get(key.direction),
                calls=cell.calls,
                bytes=cell.bytes,
            )
            for key, cell in tables["bookings"].items()
        ),
        tuple(
            Worker(
                key.value,
                worker.process,
                bytes(worker.name).split(b"\0")[0].decode(errors="replace"),
                worker.calls,
                worker.bytes,
            )
            for key, worker in tables["workers"].items()
        ),
        sum(cell.value for cell in tables["overflow"].values()),
    )


def _mounts(lines: Iterable[str]) -> dict[int, str]:
    """Where file systems are mounted, by device number; the whole of one before a part."""
    found: dict[int, tuple[int, str]] = {}
    for line in lines:
        fields = line.split()
        major, _, minor = fields[2].partition(":")
        device, root, mount = int(major) << 20 | int(minor), fields[3], fields[4]
        rank = len(root)
        if device not in found or rank < found[device][0]:
            found[device] = rank, mount
    return {device: mount for device, (_, mount) in found.items()}


def _thing(inode: int, device: int, entry: Any, mounts: dict[int, str]) -> Thing:
    mode = entry.mode
    if stat.S_ISSOCK(mode):
        return Thing(SOCKET, _socket_name(inode, entry))
    if stat.S_ISFIFO(mode):
        return Thing(PIPE, f"pipe:[{inode}]")
    path = _path(bytes(entry.names), mounts.get(device, ""))
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return Thing(DEVICE, path)
    if stat.S_ISREG(mode):
        return Thing(FILE, path)
    return Thing(OTHER, path)


def _path(names: bytes, mount: str) -> str:
    """From the last name to the first, as many as the meter has room for."""
    parts = [
        names[at : at + _NAME_BYTES].split(b"\0")[0].decode(errors="replace")
        for at in range(0, len(names), _NAME_BYTES)
    ]
    known = [part for part in parts if part]
    beyond = ["…"] if len(known) == len(parts) else []
    return "/".join([mount.rstrip("/"), *beyond, *reversed(known)])


def _socket_name(inode: int, entry: Any) -> str:
    kind = _SOCKET_TYPES.get(entry.type, f"type {entry.type}")
    family: int = entry.family
    if family == socket.AF_UNIX:
        return f"unix {kind} socket:[{inode}]"
    if family not in (socket.AF_INET, socket.AF_INET6):
        return f"family {family} {kind} socket:[{inode}]"
    size = 4 if family == socket.AF_INET else 16
    ends = []
    for address, port in (
        (entry.address, entry.port),
        (entry.peer, socket.ntohs(entry.peer_port)),
    ):
        text = socket.inet_ntop(family, bytes(address)[:size])
        ends.append(f"[{text}]:{port}" if family == socket.AF_INET6 else f"{text}:{port}")
    name = {"stream": "tcp", "datagram": "udp"}.get(kind, kind)
    return f"{name} {ends[0]} → {ends[1]}"
