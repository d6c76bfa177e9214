"""Results as Parquet files, for engines that read those of many machines at once.

Partitioned as Hive does it, by the machine's name, the kernel measured and the date: each
folder is named ``column=value``.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from zctrace.analysis import frames
from zctrace.analysis.program import Answer
from zctrace.analysis.runs import Judged
from zctrace.analysis.saved import Saved
from zctrace.evidence.schema import Evidence

_UNKNOWN = "unknown"
_DATE_LETTERS = len("2026-01-31")


def of_programs(answers: Iterable[Answer]) -> dict[str, bytes]:
    """Files by their paths: tables ``traces``, ``flows`` and ``copies``."""
    files: dict[str, bytes] = {}
    for found in answers:
        saved = Saved(Path(), (), (found,))
        found_frames = frames.of([saved])
        tables = {
            "traces": frames.traces([found]),
            "flows": found_frames.flows,
            "copies": found_frames.copies,
        }
        files |= _files(tables, found.evidence)
    return files


def of_runs(judged: Iterable[Judged]) -> dict[str, bytes]:
    """Files by their paths: tables ``runs``, ``copies`` and ``evidence``."""
    by_evidence: dict[int, list[Judged]] = {}
    for one in judged:
        by_evidence.setdefault(id(one.evidence), []).append(one)
    files: dict[str, bytes] = {}
    for several in by_evidence.values():
        found = frames.of([Saved(Path(), tuple(several), ())])
        tables = {"runs": found.runs, "copies": found.copies, "evidence": found.evidence}
        files |= _files(tables, several[0].evidence)
    return files


def _files(tables: Mapping[str, Any], evidence: Evidence) -> dict[str, bytes]:
    """Of frames, each that has rows, with a column ``trace`` by which its rows are joined."""
    origin = evidence.origin
    host, ended = (origin.host, origin.ended) if origin else (_UNKNOWN, _UNKNOWN)
    parts = {
        "host": host,
        "kernel": str(evidence.kernel["release"]),
        "date": ended[:_DATE_LETTERS],
    }
    folder = "/".join(f"{name}={quote(value, safe='')}" for name, value in parts.items())
    # Of a second result of the same run, as by `zctrace report`, another one.
    name = f"{evidence.request.run_id}-{secrets.token_hex(4)}.parquet"
    return {
        f"{table}/{folder}/{name}": _parquet(
            rows.drop(columns=[*parts, "source"], errors="ignore").assign(
                trace=evidence.request.run_id
            )
        )
        for table, rows in tables.items()
        if len(rows)
    }


def _parquet(rows: Any) -> bytes:
    texts = {name: "string" for name, kind in rows.dtypes.items() if kind == "category"}
    content = io.BytesIO()
    rows.astype(texts).to_parquet(content, engine="pyarrow", index=False)
    return content.getvalue()
