"""What is known of the devices at both ends of a transfer: values of evidence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NicFacts:
    """The network device on the subject's side.

    ``number`` is its index there, as counts have it. ``bus_device`` is the device that its
    driver maps memory for, empty where there is none. ``scatter_gather`` is what the kernel
    says of the device.
    """

    device: str
    number: int
    driver: str
    bus_device: str
    scatter_gather: bool


@dataclass(frozen=True)
class DiskFacts:
    """The disk under a payload.

    ``bus_device`` is the device that its driver maps memory for. ``extents`` is of how many
    pieces the payload is there, ``None`` where the file system does not tell. ``trouble``
    says why nothing on this disk can be measured; empty if it can.
    """

    device: str
    driver: str
    bus_device: str
    extents: int | None
    trouble: str
