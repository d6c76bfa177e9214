"""What programs read of a traced program: JSON and CSV. Integers and bytes, nothing rounded."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from zctrace.analysis import advice, border, by_process, captures, csv_rows, sentences
from zctrace.analysis.lines import Line
from zctrace.analysis.program import Answer
from zctrace.evidence.account import Thing
from zctrace.evidence.origin import FACTS
from zctrace.reports import costs

COLUMNS = [
    "kernel",
    "machine",
    "thing",
    "kind",
    "process",
    "descriptor",
    "syscall",
    "way",
    "direction",
    "calls",
    "bytes",
    "function",
    "caller",
    *FACTS,
]


def result_json(answers: Sequence[Answer]) -> str:
    """Everything; ``zctrace report`` reads this form back."""
    summary = [_summary(found) for found in answers]
    evidence = [found.evidence.to_json() for found in answers]
    return json.dumps({"summary": summary, "evidence": evidence}) + "\n"


def summary_line(found: Answer) -> str:
    """The last line of ``--jsonl``: the summary of :func:`result_json` alone."""
    return json.dumps({"summary": _summary(found)})


def _summary(found: Answer) -> dict[str, Any]:
    return {
        "verdict": sentences.sentence(found),
        "copies": found.copies,
        "basis": found.basis[0],
        "delivered_bytes": found.delivered,
        "received_bytes": found.received,
        "inside_bytes": found.border.inside,
        "copied_bytes": found.copied and {str(way): n for way, n in found.copied.items()},
        "kept_bytes": found.kept,
        "own_memory_bytes": (
            None if found.trace.run.user_copies_from is None else found.within_bytes
        ),
        "beside_bytes": found.beside,
        "structures_bytes": dict(found.explanation.other),
        "unassigned_bytes": found.unassigned,
        "captured_bytes": captures.tapped(found.trace.run),
        "unexplained_bytes": found.unexplained_bytes,
        "unexplained": [
            {**vars(part), "thing": found.name_of(part.thing)} for part in found.unexplained
        ],
        "transformed_bytes": found.transformed.bytes,
        "transformed": [vars(part) for part in found.transformed.by],
        "transformed_unassigned_bytes": found.transformed.unassigned,
        "copy_seconds": _copy_seconds(found, found.copied_bytes),
        "copy_seconds_by_call": _seconds_by_name(found, found.calls),
        "copy_seconds_by_thing": _seconds_by_name(found, found.things),
        "cpu_seconds": found.trace.cpu_seconds,
        "processes": [_process(process) for process in by_process.of(found)],
        "advice": [vars(one) for one in advice.of(found)],
        "doubts": list(found.doubts),
        "notes": list(found.notes),
        "status": found.trace.status,
        "control_results": [vars(control) for control in found.checked],
    }


def _process(process: by_process.Process) -> dict[str, Any]:
    return {
        "process": process.number,
        "name": process.name,
        "verdict": process.words,
        "copies": process.copies,
        "basis": process.border.basis[0],
        "delivered_bytes": process.border.delivered,
        "received_bytes": process.border.received,
        "copied_bytes": {str(way): n for way, n in process.copied.items()},
        "unknown_bytes": process.unknown,
    }


def _copy_seconds(found: Answer, copied: int | None) -> float | None:
    """Estimated; ``None`` where it was not timed, or nothing is known of copies."""
    return None if copied is None else costs.seconds_of(copied, found.trace.price)


def _seconds_by_name(found: Answer, named: Sequence[Line]) -> dict[str, float | None]:
    known = found.copied is not None
    return {
        line.name: _copy_seconds(found, line.copied_bytes)
        for line in named
        if known and line.copied_bytes
    }


def flows_csv(answers: Sequence[Answer]) -> str:
    """A row for what each call moved through each descriptor, and for what was copied."""
    return csv_rows.table(COLUMNS, itertools.chain.from_iterable(map(_rows, answers)))


def _rows(found: Answer) -> Iterator[dict[str, Any]]:
    things = found.trace.account.things
    common = {
        "kernel": found.evidence.kernel["release"],
        "machine": found.evidence.machine["kind"],
        **(found.evidence.origin.facts if found.evidence.origin else {}),
    }

    for flow in found.trace.account.flows:
        yield {
            **common,
            **_named(things, flow.thing),
            "process": flow.process,
            "descriptor": flow.descriptor,
            "syscall": flow.syscall,
            "way": flow.way,
            "calls": flow.calls,
            "bytes": flow.bytes,
        }
    for part in found.unexplained:
        yield {
            **common,
            **_named(things, part.thing),
            "syscall": part.syscall,
            "way": "unexplained",
            "direction": part.way,
            "bytes": part.bytes,
        }
    bookings = [*found.trace.account.bookings, *found.explanation.plain]
    for booking in bookings if found.copied is not None else ():
        yield {
            **common,
            **_named(things, booking.thing),
            "syscall": booking.syscall,
            "way": "copied",
            "process": booking.process,
            "direction": booking.direction,
            "calls": booking.calls,
            "bytes": booking.bytes,
        }
    for done in found.transformed.by:
        yield {
            **common,
            "syscall": done.syscall,
            "way": done.quantity,
            "calls": done.calls,
            "bytes": done.bytes,
            "function": done.function,
            "caller": done.caller,
        }


def _named(things: Sequence[Thing], number: int | None) -> dict[str, str]:
    thing = border.UNKNOWN if number is None else things[number]
    return {"thing": "" if number is None else thing.name, "kind": thing.kind}
