"""What the meter's flows say: files, sockets, pipes, threads, and what was copied for them.

Reads the tables of probes/bpf/flows.c and names what is in them. Part of collecting.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import mmap
import stat
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from zctrace.collect import sockets, threads
from zctrace.collect.beneath import of_block_device, of_character_device, of_file_system
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
from zctrace.probes import operations
from zctrace.probes.model import DIRECTIONS_BY_NUMBER, Kind, Purpose
from zctrace.probes.syscalls import MAX_NUMBER, OTHER_ENDS, TRANSFERS, Nameless, Told
from zctrace.workloads.marker import Role

TABLES = (
    *("objects", "flows", "bookings", "workers", "running"),
    *("more_flows", "more_bookings", "more_workers", "overflow"),
    *("loaded_modules", "operations", "units"),
)
"""Those that are cleared between one program and the next."""
_PAYLOAD = 1
_FIGURES, _CELL_BYTES = ("IN", "OUT", "COPIED"), 8
"""What the meter's running totals are of, and the size of a cell of an array of u64."""
_NAME_BYTES = 40
_NO_DESCRIPTOR = 0xFFFFFFFF
_WAYS = {1: FlowWay.IN, 2: FlowWay.OUT}
_DIRECT = 4
"""Set in the number of a way: through a descriptor that is open with O_DIRECT."""
_NAMELESS = {OTHER: "anon_inode"}
_WITHOUT_NAME = {
    Nameless.MEMORY.value: Thing(
        ThingKind.MEMORY, "another process's memory", type="process_vm"
    ),
    Nameless.QUEUE.value: Thing(ThingKind.QUEUE, "System V message queues", type="msg"),
    Nameless.KERNEL.value: Thing(ThingKind.KERNEL, "random numbers", type="random"),
}
_NO_TYPE = "of many kinds"
_PLURALS = {kind: f"{kind}s" for kind in (FILE, SOCKET, PIPE, DEVICE)} | {OTHER: "others"}


@dataclass(frozen=True)
class Room:
    """For how many things and threads a meter has rows of their own; no total depends on it.

    ``flows`` are rows of a thing, a descriptor of a process, and a system call. ``operations``
    are those of rings at one time.
    """

    flows: int = 65536
    things: int = 16384
    threads: int = 16384
    operations: int = 32768


def parameters(room: Room) -> dict[str, str]:
    """For the meter's ``-D``."""
    return {
        "FLOWS": "1",
        "MAX_FLOWS": str(room.flows),
        "MAX_OBJECTS": str(room.things),
        "MAX_WORKERS": str(room.threads),
        "NAME_BYTES": str(_NAME_BYTES),
        **threads.PARAMETERS,
        "MAX_SYSCALL": str(MAX_NUMBER),
        "MAX_OPERATIONS": str(room.operations),
        "RING_CALLS": str(operations.IO_URING_FIRST),
        "END_OF_RING_CALLS": str(operations.IO_URING_END),
        "AIO_CALLS": str(operations.AIO_FIRST),
        **{
            f"RING_{name}": str(operations.number(f"IORING_OP_{name}"))
            for name in ("SPLICE", "TEE", "RECVMSG")
        },
        "ROLE_PROGRAM": str(int(Role.PROGRAM)),
        "PURPOSE_PAYLOAD": str(_PAYLOAD),
        "NO_DESCRIPTOR": f"{_NO_DESCRIPTOR:#x}U",
        **{f"TOLD_{told.name}": str(told.value) for told in Told},
        **{f"WAY_{way.upper()}": str(number) for number, way in _WAYS.items()},
        "WAY_DIRECT": str(_DIRECT),
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
        # As in the answer.
        copied = {n: size for n, size in copied.items() if n not in OTHER_ENDS}
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
            source_kind=_number(transfer.source_kind),
            destination_kind=_number(transfer.destination_kind),
        )
    note_payload(tables, attach_plan)


def payload(attach_plan: AttachPlan) -> frozenset[int]:
    """The meter's numbers of the sites that copy payload."""
    return frozenset(
        {
            *(c.number for c in attach_plan.calls if c.target.purpose is Purpose.PAYLOAD),
            *(c.number for c in attach_plan.copies if c.kind is Kind.COPY),
        }
    )


def note_payload(tables: Any, attach_plan: AttachPlan) -> None:
    """Tell the meter which sites copy payload."""
    purposes = tables["purposes"]
    for number in payload(attach_plan):
        purposes[ctypes.c_int(number)] = ctypes.c_uint32(_PAYLOAD)


def _number(kind: Nameless | None) -> int:
    return kind.value if kind else 0


def read(
    tables: Any,
    kept: threads.Kept,
    payload: Container[int],
    syscall_name: Callable[[int], str | None],
) -> Account:
    """Everything since the tables were cleared; ``payload`` are the sites that copy some."""
    things = Things(tables["objects"], mounts())
    moved: dict[Flow, Counter[str]] = defaultdict(Counter)
    booked: dict[Booking, Counter[str]] = defaultdict(Counter)

    def move(process: int, found: Any, cell: Any) -> None:
        flow = Flow(
            thing=things.number(found.object),
            process=process,
            descriptor=None if found.descriptor == _NO_DESCRIPTOR else found.descriptor,
            syscall=syscall_name(found.syscall),
            way=_WAYS[found.way & ~_DIRECT],
            calls=0,
            bytes=0,
            direct=bool(found.way & _DIRECT),
        )
        moved[flow].update(calls=cell.calls, bytes=cell.bytes)

    def book(process: int, found: Any, cell: Any) -> None:
        booking = Booking(
            thing=things.number(found.object),
            syscall=syscall_name(found.syscall),
            direction=DIRECTIONS_BY_NUMBER.get(found.direction),
            calls=0,
            bytes=0,
            process=process or None,
        )
        booked[booking].update(calls=cell.calls, bytes=cell.bytes)

    for name in ("flows", "more_flows"):
        for key, cell in tables[name].items():
            move(key.process, key, cell)
    for process, found in kept.moves():
        move(process, found, found)
    for name in ("bookings", "more_bookings"):
        for key, cell in tables[name].items():
            book(key.process, key, cell)
    for process, counted, found in kept.copies():
        if counted.role == Role.PROGRAM and counted.site in payload:
            book(process, found, found)
    flows = tuple(
        dataclasses.replace(flow, calls=sums["calls"], bytes=sums["bytes"])
        for flow, sums in moved.items()
    )
    bookings = tuple(
        dataclasses.replace(booking, calls=sums["calls"], bytes=sums["bytes"])
        for booking, sums in booked.items()
    )
    workers = _workers(tables, kept)
    more = tables["more_workers"][ctypes.c_int(0)]
    if more.calls:
        workers.append(Worker(0, 0, "more threads", more.calls, more.bytes))
    overflow: int = tables["overflow"][ctypes.c_int(0)].value
    return Account(tuple(things.all), flows, bookings, tuple(workers), overflow)


def _workers(tables: Any, kept: threads.Kept) -> list[Worker]:
    """By thread; what is kept of one that has not ended is newer than what the table has."""
    found: dict[int, Worker] = {}
    rows = (
        *((key.value, row, row.calls, row.bytes) for key, row in tables["workers"].items()),
        *((row.id, row, row.payload_calls, row.payload_bytes) for row in kept.workers()),
    )
    for number, row, calls, size in rows:
        before = found.get(number, Worker(number, 0, "", 0, 0))
        name = bytes(row.name).split(b"\0")[0].decode(errors="replace")
        found[number] = Worker(
            number, row.process, name, before.calls + calls, before.bytes + size
        )
    return list(found.values())


class Things:
    """All of them, by number; those that there was no room for are one for each kind."""

    def __init__(self, objects: Any, mounted: Sequence[Mount]) -> None:
        self.all: list[Thing] = []
        self._numbers: dict[tuple[int, int, int], int] = {}
        self._more: dict[tuple[int, int], int] = {}
        points = _mounts(mounted)
        beneath = functools.cache(lambda device: of_file_system(device, mounted))
        connected: list[tuple[int, Any]] = []
        for key, entry in objects.items():
            self._numbers[key.inode, key.device, key.kind] = number = len(self.all)
            self.all.append(_thing(key, entry, points, beneath))
            if self.all[number].kind == SOCKET:
                connected.append((number, entry))
        for number, peer in sockets.peers(connected).items():
            self.all[number] = dataclasses.replace(self.all[number], peer=peer)

    def number(self, key: Any) -> int | None:
        """``None`` for a thing that was not looked at: not even its kind is known."""
        number = self._numbers.get((key.inode, key.device, key.kind))
        if number is not None or not key.kind:
            return number
        sort = key.kind, key.device
        if sort not in self._more:
            self._more[sort] = len(self.all)
            self.all.append(_WITHOUT_NAME.get(key.kind) or _more(key))
        return self._more[sort]


def _mounts(mounted: Iterable[Mount]) -> dict[int, list[Mount]]:
    """Where file systems are mounted, by device number; the whole of one before its parts."""
    found: dict[int, list[Mount]] = defaultdict(list)
    for mount in sorted(mounted, key=lambda mount: len(mount.root)):
        found[mount.device].append(mount)
    return found


def _kind(mode: int) -> ThingKind:
    if stat.S_ISSOCK(mode):
        return SOCKET
    if stat.S_ISFIFO(mode):
        return PIPE
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return DEVICE
    return FILE if stat.S_ISREG(mode) else OTHER


def _thing(
    key: Any,
    entry: Any,
    points: dict[int, list[Mount]],
    beneath: Callable[[int], tuple[str, ...]],
) -> Thing:
    kind = _kind(key.kind)
    if kind == SOCKET:
        protocol = sockets.protocol(entry)
        return Thing(SOCKET, sockets.name(key.inode, entry), type=protocol)
    if kind == PIPE:
        return Thing(PIPE, f"pipe:[{key.inode}]", type="")
    path = _path(bytes(entry.names), points.get(key.device, []))
    # What is in no folder, like event counters, which share one inode, and memfd_create(2).
    name = path or f"{_NAMELESS.get(kind, kind)}:[{key.inode}]"
    if kind == DEVICE:
        of_device = of_block_device if stat.S_ISBLK(key.kind) else of_character_device
        return Thing(DEVICE, name, type=of_device(entry.device))
    if kind == OTHER:
        return Thing(OTHER, name, type=name.rpartition("/")[2])
    file_system = bytes(entry.type_name).split(b"\0")[0].decode(errors="replace")
    return Thing(FILE, name, type=file_system, beneath=beneath(key.device))


def _more(key: Any) -> Thing:
    """All those of a kind that there was no room for; of sockets, those of a protocol."""
    kind = _kind(key.kind)
    if kind != SOCKET or not key.device:
        return Thing(kind, f"more {_PLURALS[kind]}", many=True, type=_NO_TYPE)
    protocol = sockets.protocol_of_many(key.device)
    return Thing(SOCKET, f"more {protocol} sockets", many=True, type=protocol)


def _path(names: bytes, mounted: Sequence[Mount]) -> str:
    """From the last name to the first, as many as the meter has room for."""
    parts = [
        names[at : at + _NAME_BYTES].split(b"\0")[0].decode(errors="replace")
        for at in range(0, len(names), _NAME_BYTES)
    ]
    known = [part for part in parts if part]
    if len(known) == len(parts):
        known.append("…")
    path = "/".join(["", *reversed(known)]) if known else ""
    # Names begin at the file system's root; of btrfs a part may be mounted, and no more.
    whole = [mount for mount in mounted if mount.root == "/"]
    inside = [mount for mount in mounted if path.startswith(f"{mount.root}/")]
    for mount in (*whole, *reversed(inside)):
        return f"{str(mount.point).rstrip('/')}{path.removeprefix(mount.root.rstrip('/'))}"
    return path
