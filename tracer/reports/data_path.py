"""The way of the payload as values: places, and arrows between them, from measured figures.

Pure. What was measured decides on every arrow with a number. A strategy's route only says
which way it goes: where to put bytes that were counted, and where references are handed over
instead, which is shown only where fewer bytes were copied than there are.
What was not measured is an arrow without a number, never one of zero.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from zctrace.analysis import counted
from zctrace.analysis.runs import Judged
from zctrace.analysis.verdicts import Source
from zctrace.evidence.devices import VIRTUAL, NicFacts
from zctrace.probes.model import Direction, Kind, Purpose, Quantity
from zctrace.reports.wording import copies
from zctrace.workloads.catalogue import strategy_named
from zctrace.workloads.route import By, Leg, Place
from zctrace.workloads.strategy import Ends

_LABEL_CHARACTERS = 7


@dataclass(frozen=True)
class Arrow:
    """Bytes that went from one place to another, or inside one.

    ``bytes`` is ``None`` where that was not measured. Of a reference it is always 0: nothing
    was copied. ``note`` qualifies it.
    """

    start: Place
    end: Place
    by: By
    bytes: int | None
    payload: int
    note: str = ""

    @property
    def copies(self) -> float | None:
        """In payloads."""
        return None if self.bytes is None else self.bytes / self.payload

    @property
    def label(self) -> tuple[str, str]:
        """Two short lines: how many copies, how many bytes."""
        if self.by is By.REFERENCE:
            return self.note or "by reference", "0 B copied"
        if self.bytes is None:
            return "?", "not measured"
        if self.by is By.DMA:
            mark = " ~" if self.note else ""
            return f"{_short(self.copies)} × DMA{mark}", f"{self.bytes} B"
        unit = "copy" if self.copies == 1 else "copies"
        return f"{_short(self.copies)} {unit}", f"{self.bytes} B"

    @property
    def sentence(self) -> str:
        """For those who do not see the drawing."""
        where = f"{self.start.value} to {self.end.value}"
        if self.start is self.end:
            where = f"inside the {self.start.value}"
        if self.by is By.REFERENCE:
            return f"{where}: {self.note or self.by.value}, 0 B copied"
        if self.bytes is None:
            return f"{where}: not measured"
        note = f" ({self.note})" if self.note else ""
        return f"{where}: {self.bytes} B {self.by.value}{note}, {copies(self.copies)} payloads"


def _short(ratio: float | None) -> str:
    """Room for seven characters; what is close to a whole number says on which side."""
    text = copies(ratio)
    if ratio is None or len(text) <= _LABEL_CHARACTERS:
        return text
    return f"{'>' if ratio > round(ratio) else '<'} {round(ratio)}"


@dataclass(frozen=True)
class Way:
    """One transfer. ``absent`` are places that there is no device for, ``names`` what the
    devices are called; ``untouched`` places no payload went through."""

    ends: Ends
    places: tuple[Place, ...]
    arrows: tuple[Arrow, ...]
    names: tuple[tuple[Place, str], ...]
    absent: frozenset[Place]

    @property
    def untouched(self) -> frozenset[Place]:
        """Places that no arrow reaches, though there is something."""
        reached = {place for arrow in self.arrows for place in (arrow.start, arrow.end)}
        return frozenset(self.places) - reached - self.absent

    @property
    def sentence(self) -> str:
        """Everything in the drawing, in words."""
        parts = [arrow.sentence for arrow in self.arrows]
        parts += [f"{place.value}: no device, no DMA" for place in self._ordered(self.absent)]
        parts += [
            f"{place.value}: no payload passes" for place in self._ordered(self.untouched)
        ]
        return "; ".join(parts) + "."

    def _ordered(self, places: frozenset[Place]) -> list[Place]:
        return [place for place in self.places if place in places]


_PLACES = {
    Ends.FILE_TO_SOCKET: (Place.DISK, Place.CACHE, Place.USER, Place.SOCKET, Place.NIC),
    Ends.FILE_TO_FILE: (Place.DISK, Place.CACHE, Place.USER, Place.TARGET),
    Ends.SOCKET_TO_FILE: (Place.NIC, Place.SOCKET, Place.USER, Place.TARGET),
    Ends.SOCKET_TO_MEMORY: (Place.NIC, Place.SOCKET, Place.USER),
}

_OF_PACKETS = frozenset(
    {Quantity.SKB_COPY_UBUFS, Quantity.SKB_COPY_BITS, Quantity.SKB_COPY_AND_CSUM_BITS}
)


def way(judged: Judged) -> Way | None:
    """The way of one run's payload; ``None`` of one that was not available."""
    if judged.run.unavailable:
        return None
    ends = strategy_named(judged.run.strategy).ends
    into, to_nic, absent = _into_memory(judged), _to_nic(judged), set()
    if ends is not Ends.FILE_TO_FILE and _nic(judged).driver in VIRTUAL:
        absent.add(Place.NIC)
    arrows = (*into, *_by_cpu(judged), *to_nic)
    return Way(ends, _PLACES[ends], arrows, _names(judged, ends), frozenset(absent))


def _nic(judged: Judged) -> NicFacts:
    return judged.evidence.nic_of(judged.run)


def _names(judged: Judged, ends: Ends) -> tuple[tuple[Place, str], ...]:
    names = {}
    if Place.DISK in _PLACES[ends]:
        disk = judged.evidence.disks.get(judged.run.file_system)
        names[Place.DISK] = disk.driver if disk else ""
    if Place.NIC in _PLACES[ends]:
        nic = _nic(judged)
        names[Place.NIC] = f"{nic.driver}: no device" if nic.driver in VIRTUAL else ""
        names[Place.NIC] = names[Place.NIC] or nic.driver
    return tuple((place, name) for place, name in names.items() if name)


def _figure(judged: Judged, column: str) -> int | None:
    value = judged.figures[column]
    assert value is None or isinstance(value, int)
    return value


def _dma(judged: Judged, start: Place, end: Place, column: str) -> Arrow:
    source = judged.figures[f"dma_{column}_source"]
    return Arrow(
        start,
        end,
        By.DMA,
        _figure(judged, f"dma_{column}_bytes"),
        judged.run.payload_bytes,
        "derived" if source == Source.DERIVED.value else "",
    )


def _into_memory(judged: Judged) -> tuple[Arrow, ...]:
    """From the disk; or from the network card, which is not measured on the way in."""
    places = _PLACES[strategy_named(judged.run.strategy).ends]
    if Place.DISK in places:
        route = strategy_named(judged.run.strategy).route
        return (_dma(judged, Place.DISK, route[0].start if route else Place.CACHE, "in"),)
    if _nic(judged).driver in VIRTUAL:
        return ()
    return (Arrow(Place.NIC, Place.SOCKET, By.DMA, None, judged.run.payload_bytes),)


def _to_nic(judged: Judged) -> tuple[Arrow, ...]:
    """To the network card; no arrow where there is no device to move anything."""
    if strategy_named(judged.run.strategy).ends is not Ends.FILE_TO_SOCKET:
        return ()
    arrow = _dma(judged, Place.SOCKET, Place.NIC, "out")
    if judged.figures["dma_out_source"] == Source.NONE.value:
        return ()
    # Withheld on a device that moves nothing by itself: there is no arrow either.
    if arrow.bytes is None and _nic(judged).driver in VIRTUAL:
        return ()
    return (arrow,)


def _by_cpu(judged: Judged) -> tuple[Arrow, ...]:
    """Copies where they were counted, and references where there were fewer of those."""
    route, payload = strategy_named(judged.run.strategy).route, judged.run.payload_bytes
    if judged.figures["cpu_copied_bytes"] is None:
        return tuple(Arrow(leg.start, leg.end, By.CPU, None, payload) for leg in route)
    counted = _counted(judged)
    arrows = []
    for leg in route:
        moved = counted.pop((leg.start, leg.end), 0)
        if moved or leg.by is not By.REFERENCE:
            arrows.append(Arrow(leg.start, leg.end, By.CPU, moved, payload))
        if leg.by is By.REFERENCE and moved < payload:
            note = f"rest {leg.words}" if moved else leg.words
            arrows.append(Arrow(leg.start, leg.end, By.REFERENCE, 0, payload, note))
    arrows += [
        Arrow(start, end, By.CPU, moved, payload)
        for (start, end), moved in counted.items()
        if moved
    ]
    return tuple(arrows)


def _counted(judged: Judged) -> Counter[tuple[Place, Place]]:
    """The bytes of the figures, by where they went. Their sum is what the CPU copied."""
    source, into = _across(judged)
    moved: Counter[tuple[Place, Place]] = Counter()
    moved[source, Place.USER] += _figure(judged, "k2u_bytes") or 0
    moved[Place.USER, into] += _figure(judged, "u2k_bytes") or 0
    moved[Place.USER, Place.USER] += _figure(judged, "u2u_bytes") or 0
    left = _figure(judged, "k2k_bytes") or 0
    for quantity, size in _inside(judged).items():
        placed = min(size, left)
        moved[_where(judged, quantity)] += placed
        left -= placed
    moved[source, source] += left
    return moved


def _across(judged: Judged) -> tuple[Place, Place]:
    """The kernel's places that the payload comes from and goes to."""
    ends = strategy_named(judged.run.strategy).ends
    return {
        Ends.FILE_TO_SOCKET: (Place.CACHE, Place.SOCKET),
        Ends.FILE_TO_FILE: (Place.CACHE, Place.TARGET),
        Ends.SOCKET_TO_FILE: (Place.SOCKET, Place.TARGET),
        Ends.SOCKET_TO_MEMORY: (Place.SOCKET, Place.SOCKET),
    }[ends]


def _inside(judged: Judged) -> Counter[Quantity]:
    """Bytes copied between kernel buffers, by what was counted."""
    found: Counter[Quantity] = Counter()
    for count in judged.run.counts:
        site = judged.evidence.site_of(count)
        if site and (site.kind is not Kind.COPY or site.purpose is Purpose.METADATA):
            continue
        promised = site.direction if site else None
        way = counted.direction_of(count.direction, promised, count.syscall)
        copied = site or count.quantity == Quantity.BOUNCE
        if count.role == judged.run.role and copied and way is Direction.KERNEL_TO_KERNEL:
            found[count.quantity] += count.bytes
    return found


def _where(judged: Judged, quantity: Quantity) -> tuple[Place, Place]:
    """Between which places the kernel copied by itself."""
    source, into = _across(judged)
    route = strategy_named(judged.run.strategy).route
    if quantity in _OF_PACKETS:
        # Packets that refer to pages elsewhere are copied from there; others from packets.
        for leg in route:
            if leg.by is By.REFERENCE and leg.end is Place.SOCKET:
                return leg.start, leg.end
        return Place.SOCKET, Place.SOCKET
    if quantity == Quantity.COPY_PAGE:
        return Place.USER, Place.USER
    if quantity == Quantity.COPY_TO_ITER and Leg(source, Place.USER) in route:
        # A registered buffer: the program's, reached by an address of the kernel's.
        return source, Place.USER
    if quantity == Quantity.BOUNCE:
        return into, into
    return source, into
