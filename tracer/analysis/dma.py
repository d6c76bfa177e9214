"""What was moved by DMA, from the disk and to the network device, and how that is known."""

from __future__ import annotations

from zctrace.analysis import controls, counted
from zctrace.analysis.doubts import failed_controls
from zctrace.analysis.verdicts import Dma, Source
from zctrace.evidence.devices import VIRTUAL
from zctrace.evidence.schema import WARM, Evidence, Run
from zctrace.probes.model import Direction, Quantity
from zctrace.workloads.catalogue import strategy_named
from zctrace.workloads.strategy import Ends

PAGE_BYTES = 4096
"""On x86-64: the least that is read from a disk into the page cache."""


def _dma_doubt(failed: list[controls.Control]) -> str:
    return "; ".join(failed_controls(failed, controls.DMA))


def _mapped(evidence: Evidence, run: Run, device: str, way: Direction, handed: int) -> Source:
    """How it is known that a driver that was handed so many bytes moved them by DMA."""
    mapped = sum(
        c.bytes
        for c in run.counts
        if (c.quantity, c.caller, c.direction) == (Quantity.DMA_MAPPED, device, way)
    )
    return Source.MEASURED if mapped >= handed else Source.DERIVED


def dma_into_cache(evidence: Evidence, run: Run, failed: list[controls.Control]) -> Dma:
    """From the disk into memory."""
    if strategy_named(run.strategy).ends in (Ends.SOCKET_TO_FILE, Ends.SOCKET_TO_MEMORY):
        return Dma(None, None, "", "no file is read")
    disk = evidence.disk_of(run)
    doubt = disk.trouble or _dma_doubt(failed)
    if Quantity.DISK_REQUEST not in evidence.events:
        doubt = "requests to disks are not watched"
    # Of the tool's own payload in the page cache nothing is concluded, control or not.
    concluded = run.cache != WARM or evidence.request.file
    if concluded and not doubt and controls.DISK_READ_CONTROL not in run.expected.moved:
        doubt = (
            f"no self-test: no known bytes were read from {disk.device}, because the "
            "strategies' user cannot make files there"
        )
    if doubt:
        return Dma(None, None, "", doubt)
    read = sum(run.moved(Quantity.DISK_READ, role) for role in (run.role, run.role.outside))
    if run.cache != WARM and read < run.payload_bytes:
        seen = f"of {run.payload_bytes} B only {read} were seen coming from the disk"
        return Dma(None, None, "", f"{seen}: a part was elsewhere, or a hole")
    handed = sum(
        c.bytes
        for c in run.counts
        if c.quantity in (Quantity.DISK_READ, Quantity.DISK_READ_OTHER)
    )
    return Dma(
        read,
        _mapped(evidence, run, disk.bus_device, Direction.DEVICE_TO_KERNEL, handed),
        f"{disk.device} ({disk.driver})",
        ""
        if read or run.cache != WARM
        else "the payload was in the page cache, and nothing was read from the disk",
    )


def dma_to_nic(evidence: Evidence, run: Run, failed: list[controls.Control]) -> Dma:
    """From memory to the network device."""
    if strategy_named(run.strategy).ends is not Ends.FILE_TO_SOCKET:
        return Dma(None, None, "", "no payload is sent")
    nic = evidence.nic_of(run)
    doubt = _dma_doubt(failed)
    if Quantity.TRANSMIT_PAYLOAD not in evidence.events:
        doubt = "what network devices transmit is not watched"
    if doubt:
        return Dma(None, None, "", doubt)
    if nic.driver in VIRTUAL:
        return Dma(None, Source.NONE, run.nic, f"{run.nic} transfers nothing by DMA")
    if not nic.bus_device:
        return Dma(None, None, "", f"{run.nic} is no device that transfers by itself")
    sent = counted.transmitted(evidence, run, Quantity.TRANSMIT_PAYLOAD)
    return Dma(
        sent,
        _mapped(evidence, run, nic.bus_device, Direction.KERNEL_TO_DEVICE, sent),
        run.nic,
    )


def dma_figures(
    evidence: Evidence, run: Run, into_cache: Dma, to_nic: Dma
) -> dict[str, int | float | str | None]:
    figures: dict[str, int | float | str | None] = {
        "dma_in_bytes": into_cache.bytes,
        "dma_out_bytes": to_nic.bytes,
        "dma_in_source": into_cache.source.value if into_cache.source else None,
        "dma_out_source": to_nic.source.value if to_nic.source else None,
    }
    if into_cache.bytes is not None and to_nic.bytes is not None:
        figures["dma_copies"] = (into_cache.bytes + to_nic.bytes) / run.payload_bytes
    if to_nic.source is not None:
        figures["header_bytes"] = counted.transmitted(evidence, run, Quantity.TRANSMIT_HEADERS)
    if into_cache.bytes is not None:
        figures["disk_metadata_bytes"] = run.moved(Quantity.DISK_READ_OTHER, run.role)
    return figures
