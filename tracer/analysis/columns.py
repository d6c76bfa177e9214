"""The columns of the summary."""

from __future__ import annotations

from zctrace.analysis import controls
from zctrace.evidence.origin import FACTS

COLUMNS = [
    "kernel",
    "machine",
    "strategy",
    "nic",
    "chunk_bytes",
    "cache",
    "payload_bytes",
    "run_index",
    "cpu_copies",
    "cpu_copied_bytes",
    "copy_calls",
    "u2k_bytes",
    "k2u_bytes",
    "k2k_bytes",
    "u2u_bytes",
    "syscalls",
    "mode_switches",
    "page_faults",
    "context_switches",
    "dma_copies",
    "dma_in_bytes",
    "dma_out_bytes",
    "claimed_cpu_copies",
    "claimed_switches",
    "claimed_dma_copies",
    "verdict_copies",
    "verdict_switches",
    "verdict_dma",
    "coverage",
    "metadata_bytes",
    "page_faults_kernel",
    "other_user_bytes",
    "outside_bytes",
    "context_switches_voluntary",
    "context_switches_involuntary",
    "controls",
    "file_system",
    "reason",
    "interrupts",
    "dma_in_source",
    "dma_out_source",
    "header_bytes",
    "disk_metadata_bytes",
    *FACTS,
]
"""The summary's columns, in order; others rely on the first thirty-one."""

EVENT_COLUMNS = {
    controls.SWITCHES: ("syscalls", "mode_switches"),
    controls.FAULTS: ("page_faults", "page_faults_kernel"),
    controls.CONTEXT: (
        "context_switches",
        "context_switches_voluntary",
        "context_switches_involuntary",
    ),
}
"""Columns that are withheld with their controls."""

TEXTS = {
    "kernel",
    "machine",
    "strategy",
    "nic",
    "cache",
    "verdict_copies",
    "verdict_switches",
    "verdict_dma",
    "coverage",
    "controls",
    "file_system",
    "reason",
    "dma_in_source",
    "dma_out_source",
    *FACTS,
}
RATIOS = {"cpu_copies", "dma_copies"}
