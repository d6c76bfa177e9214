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


VIRTUAL = frozenset({"lo", "veth"})
"""Drivers of network devices with nothing behind them that could transfer by itself."""
HARDWARE_ADDRESSES = ("52:54:00:7a:63:01", "52:54:00:7a:63:02")
"""Of the two devices of a guest, the subject's first."""


@dataclass(frozen=True)
class Nic:
    """A kind of cable, as ``--nic`` names it.

    ``driver`` is the kernel module of devices that only a virtual machine of ours has,
    ``emulated`` what QEMU calls them; both empty for others. ``scatter_gather`` is whether
    the device may fetch a packet from several places.
    """

    name: str
    driver: str = ""
    emulated: str = ""
    scatter_gather: bool = True


LOOPBACK = "lo"
NICS = {
    nic.name: nic
    for nic in (
        Nic(LOOPBACK),
        Nic("veth"),
        Nic("veth-nosg", scatter_gather=False),
        Nic("e1000", "e1000", "e1000"),
        Nic("e1000-nosg", "e1000", "e1000", scatter_gather=False),
        Nic("virtio", "virtio_net", "virtio-net-pci"),
    )
}
