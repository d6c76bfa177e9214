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
from typing import Any

from zctrace.collect.mounts import Mount, mounts
from zctrace.evidence.account import (
    DEVICE,
    FILE,
    NO_CALL,
    OTHER,
    PIPE,
    SOCKET,
    Account,
    Booking,
    Flow,
    FlowWay,
    Look,
    Thing,
    ThingKind,
    Worker,
)
from zctrace.plan.attachments import AttachPlan
from zctrace.probes.model import DIRECTION_NUMBERS, Kind, Purpose
from zctrace.probes.syscalls import MAX_NUMBER, MOVING, TRANSFERS, Told
from zctrace.workloads.marker import Role

TABLES = (
    *("transfers", "objects", "flows", "bookings", "workers", "running"),
    *("more_flows", "more_bookings", "more_workers", "overflow"),
)
"""Those that are cleared between one program and the next."""
_PAYLOAD = 1
_FIGURES, _CELL_BYTES = ("IN", "OUT", "COPIED"), 8
"""What the meter's running totals are of, and the size of a cell of an array of u64."""
_NAME_BYTES = 40
_NO_DESCRIPTOR = 0xFFFFFFFF
_WAYS = {1: FlowWay.IN, 2: FlowWay.OUT}
_DIRECTIONS = {number: way for way, number in DIRECTION_NUMBERS.items()}
_SOCKET_TYPES = {1: "stream", 2: "datagram", 3: "raw", 5: "packets"}
_MAPPED = bytes(10) + b"\xff\xff"
"""What comes before an IPv4 address where it stands for one of IPv6."""
_NAMELESS = {OTHER: "anon_inode"}
_PLURALS = {kind: f"{kind}s" for kind in (FILE, SOCKET, PIPE, DEVICE)} | {OTHER: "others"}


@dataclass(frozen=True)
class Room:
    """For how many things and threads a meter has rows of their own; no total depends on it.

    ``flows`` are rows of a thing, a descriptor of a process, and a system call.
    """

    flows: int = 65536
    things: int = 16384
    threads: int = 16384


def parameters(room: Room) -> dict[str, str]:
    """For the meter's ``-D``."""
    return {
        "FLOWS": "1",
        "MAX_FLOWS": str(room.flows),
        "MAX_OBJECTS": str(room.things),
        "MAX_WORKERS": str(room.threads),
        "NAME_BYTES": str(_NAME_BYTES),
        "MAX_SYSCALL": str(MAX_NUMBER),
        "ROLE_PROGRAM": str(int(Role.PROGRAM)),
        "PURPOSE_PAYLOAD": str(_PAYLOAD),
        "NO_DESCRIPTOR": f"{_NO_DESCRIPTOR:#x}U",
        **{f"TOLD_{told.name}": str(told.value) for told in Told},
        **{f"WAY_{way.upper()}": str(number) for number, way in _WAYS.items()},
        "RUNNING_FIGURES": str(len(_FIGURES)),
        **{f"RUNNING_{figure}": str(number) for number, figure in enumerate(_FIGURES)},
    }


class Running:
    """The meter's running totals, in our own memory; a context manager.

    Reading them takes no system call, so that no program of the meter is skipped for it.
    """

    def __init__(
        self, totals: int, overflow: int, syscall_name: Callable[[int], str | None]
    ) -> None:
        """``totals`` and ``overflow`` are the descriptors of the meter's tables."""
        self._name = syscall_name
        self._totals = _mapped(totals, MAX_NUMBER * len(_FIGURES))
        self._overflow = _mapped(overflow, 1)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self._totals.close()
        self._overflow.close()

    def look(self) -> Look:
        """What is there by now."""
        by_call: list[dict[str, int]] = [{} for _ in _FIGURES]
        for slot, size in enumerate(_cells(self._totals)):
            if size:
                number, figure = divmod(slot, len(_FIGURES))
                name = self._name(number) if number < MAX_NUMBER - 1 else None
                by_call[figure][name or NO_CALL] = size
        received, delivered, copied = by_call
        # As in the answer: what other calls copy (getrandom) is for other ends.
        copied = {n: size for n, size in copied.items() if n == NO_CALL or n in MOVING}
        return Look(received, delivered, copied, sum(_cells(self._overflow)))


def _mapped(descriptor: int, cells: int) -> mmap.mmap:
    """Whole pages, whose rest is 0."""
    pages = -(-cells * _CELL_BYTES // mmap.PAGESIZE)
    return mmap.mmap(descriptor, pages * mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)


def _cells(memory: mmap.mmap) -> tuple[int, ...]:
    return struct.unpack_from(f"={len(memory) // _CELL_BYTES}Q", memory)


def prepare(tables: Any, attach_plan: AttachPlan) -> None:
    """Tell the meter which system calls move bytes, and what :func:`note_payload` does."""
    calls = tables["transfer_calls"]
    for transfer in TRANSFERS:
        calls[ctypes.c_int(transfer.number)] = calls.Leaf(
            source=transfer.source,
            destination=transfer.destination,
            told=transfer.told.value,
            by_mode=transfer.by_mode,
        )
    note_payload(tables, attach_plan)


def note_payload(tables: Any, attach_plan: AttachPlan) -> None:
    """Tell the meter which sites copy payload."""
    purposes = tables["purposes"]
    counting = [
        *(c.number for c in attach_plan.calls if c.target.purpose is Purpose.PAYLOAD),
        *(c.number for c in attach_plan.copies if c.kind is Kind.COPY),
    ]
    for number in counting:
        purposes[ctypes.c_int(number)] = ctypes.c_uint32(_PAYLOAD)


def read(tables: Any, syscall_name: Callable[[int], str | None]) -> Account:
    """Everything since the tables were cleared."""
    things = _Things(tables["objects"], _mount_points(mounts()))
    flows = tuple(
        Flow(
            thing=things.number(key.object),
            process=key.process,
            descriptor=None if key.descriptor == _NO_DESCRIPTOR else key.descriptor,
            syscall=syscall_name(key.syscall),
            way=_WAYS[key.way],
            calls=cell.calls,
            bytes=cell.bytes,
        )
        for name in ("flows", "more_flows")
        for key, cell in tables[name].items()
    )
    bookings = tuple(
        Booking(
            thing=things.number(key.object),
            syscall=syscall_name(key.syscall),
            direction=_DIRECTIONS.get(key.direction),
            calls=cell.calls,
            bytes=cell.bytes,
        )
        for name in ("bookings", "more_bookings")
        for key, cell in tables[name].items()
    )
    workers = [
        Worker(
            key.value,
            worker.process,
            bytes(worker.name).split(b"\0")[0].decode(errors="replace"),
            worker.calls,
            worker.bytes,
        )
        for key, worker in tables["workers"].items()
    ]
    more = tables["more_workers"][ctypes.c_int(0)]
    if more.calls:
        workers.append(Worker(0, 0, "more threads", more.calls, more.bytes))
    overflow: int = tables["overflow"][ctypes.c_int(0)].value
    return Account(tuple(things.all), flows, bookings, tuple(workers), overflow)


class _Things:
    """All of them, by number; those that there was no room for are one for each kind."""

    def __init__(self, objects: Any, mounts: dict[int, str]) -> None:
        self.all: list[Thing] = []
        self._numbers: dict[tuple[int, int, int], int] = {}
        self._many: dict[ThingKind, int] = {}
        for key, entry in objects.items():
            self._numbers[key.inode, key.device, key.kind] = len(self.all)
            self.all.append(_thing(key, entry, mounts))

    def number(self, key: Any) -> int | None:
        """``None`` for what nobody has looked at: then not even the kind is known."""
        number = self._numbers.get((key.inode, key.device, key.kind))
        if number is not None or not key.kind:
            return number
        kind = _kind(key.kind)
        if kind not in self._many:
            self._many[kind] = len(self.all)
            self.all.append(Thing(kind, f"more {_PLURALS[kind]}", many=True))
        return self._many[kind]


def _mount_points(mounted: Iterable[Mount]) -> dict[int, str]:
    """Where file systems are mounted, by device number; the whole of one before a part."""
    found: dict[int, Mount] = {}
    for mount in mounted:
        known = found.setdefault(mount.device, mount)
        if len(mount.root) < len(known.root):
            found[mount.device] = mount
    return {device: str(mount.point) for device, mount in found.items()}


def _kind(mode: int) -> ThingKind:
    if stat.S_ISSOCK(mode):
        return SOCKET
    if stat.S_ISFIFO(mode):
        return PIPE
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return DEVICE
    return FILE if stat.S_ISREG(mode) else OTHER


def _thing(key: Any, entry: Any, mounts: dict[int, str]) -> Thing:
    kind = _kind(key.kind)
    if kind == SOCKET:
        return Thing(SOCKET, _socket_name(key.inode, entry))
    if kind == PIPE:
        return Thing(PIPE, f"pipe:[{key.inode}]")
    path = _path(bytes(entry.names), mounts.get(key.device, ""))
    # What is in no folder, like event counters, which share one inode, and memfd_create(2).
    return Thing(kind, path or f"{_NAMELESS.get(kind, kind)}:[{key.inode}]")


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
        # Java's sockets are of IPv6, and what they carry may be IPv4.
        raw = bytes(address)[:size].removeprefix(_MAPPED)
        six = len(raw) > len(_MAPPED)
        text = socket.inet_ntop(socket.AF_INET6 if six else socket.AF_INET, raw)
        ends.append(f"[{text}]:{port}" if six else f"{text}:{port}")
    name = {"stream": "tcp", "datagram": "udp"}.get(kind, kind)
    return f"{name} {ends[0]} → {ends[1]}"
