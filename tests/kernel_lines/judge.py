"""Whether what zctrace said of known transfers is exact, open or wrong. Pure."""

import enum
import re
from dataclasses import dataclass

from tests.kernel_lines import workload

MIB = 1 << 20
RUN = {
    # u→k, k→u, k→k
    "read-write": (MIB, MIB, 0),
    "mmap-write": (MIB, 0, 0),
    "sendfile": (0, 0, 0),
    "splice": (0, 0, 0),
}
_COPIES = "u2k_bytes", "k2u_bytes", "k2k_bytes"
_FAULT = "a fault in zctrace"
"""What zctrace says of an error that it did not expect."""
_HEADERS = 4096
"""Heads of packets are copied where they are pulled into one piece: fewer bytes."""


class Word(enum.StrEnum):
    """EXACT: the right figures. OPEN: no figure, or one with a doubt, and the reason.

    REFUSED: a message instead of a result. WRONG: other figures, and no doubt.
    """

    EXACT, OPEN, REFUSED, WRONG = "exact", "open", "refused", "WRONG"


@dataclass(frozen=True)
class Finding:
    word: Word
    why: str = ""


def of_run(rows):
    """Of ``zctrace run``'s summary: the worst of its rows."""
    findings = [_of_row(row) for row in rows]
    if {row["strategy"] for row in rows} != set(RUN):
        findings.append(Finding(Word.WRONG, "not every strategy has a row"))
    return max(findings, key=lambda finding: list(Word).index(finding.word))


def _of_row(row):
    name, seen = row["strategy"], tuple(row[column] for column in _COPIES)
    failed = [c["name"] for c in row["control_results"] if not c["passed"]]
    doubts = [f"{name}: {control} failed" for control in failed]
    if row["coverage"] != "complete":
        doubts.append(f"{name}: {row['coverage']}")
    if doubts:
        return Finding(Word.OPEN, "; ".join(doubts))
    if seen != RUN[name]:
        return Finding(Word.WRONG, f"{name}: {seen} instead of {RUN[name]}")
    return Finding(Word.EXACT)


def expected():
    """Of the workload, by what: bytes by direction.

    A softirq copies for a zero-copy send on top of any thread: that is in no call's line.
    """
    received = workload.SENT + workload.ZEROCOPY
    return {
        "sendfile(2)": {},
        f"{workload.SOURCE}": {"u2k": workload.MADE, "k2u": workload.COPIED},
        f"{workload.COPY}": {"u2k": workload.COPIED},
        "sendto(2)": {},
        "recvfrom(2)": {"k2u": received},
        "MSG_ZEROCOPY": {"k2k": workload.ZEROCOPY},
    }


def left_open(found):
    """Why nothing is to be said of a trace's figures; ``None`` where they are to be right."""
    doubts = [f"{control.name} failed" for control in found.failed]
    doubts += found.doubts
    doubts += [f"{part.bytes} B unexplained: {part.why}" for part in found.unexplained]
    if found.unassigned:
        doubts.append(f"{found.unassigned} B inside the kernel are not attributed")
    return Finding(Word.OPEN, "; ".join(doubts)) if doubts else None


def of_trace(found, again=0):
    """Of ``zctrace trace``'s answer on the workload, of which TCP has sent so much again."""
    if doubtful := left_open(found):
        return doubtful
    calls = {line.name: _of_users(line.copied) for line in found.calls}
    things = {line.name.rpartition("/")[2]: _of_users(line.copied) for line in found.things}
    seen = {
        "sendfile(2)": calls.get("sendfile"),
        **{name: things.get(name) for name in (workload.SOURCE, workload.COPY)},
        "sendto(2)": calls.get("sendto"),
        "recvfrom(2)": calls.get("recvfrom"),
        "MSG_ZEROCOPY": {"k2k": found.copied.get("k2k", 0)},
    }
    beyond = seen["MSG_ZEROCOPY"]["k2k"] - workload.ZEROCOPY - again
    if 0 <= beyond < _HEADERS:
        seen["MSG_ZEROCOPY"] = expected()["MSG_ZEROCOPY"]
    wrong = [
        f"{what}: {copied} B instead of {expected()[what]}"
        for what, copied in seen.items()
        if copied != expected()[what]
    ]
    return Finding(Word.WRONG, "; ".join(wrong)) if wrong else Finding(Word.EXACT)


def _of_users(copied):
    return {str(way): size for way, size in copied.items() if way != "k2k"}


def of_message(text):
    """Of what zctrace said instead of a result; a traceback is no message, nor is a fault."""
    if (
        "Traceback" in text
        or _FAULT in text
        or not (said := re.search(r"^zctrace: (.+)", text, re.M | re.S))
    ):
        last = text.strip().rpartition("\n")[2]
        return Finding(Word.WRONG, f"it ended with: {last}")
    lines = [line.strip() for line in said[1].splitlines()]
    kept = [line for line in lines if not line.startswith("try:")]
    return Finding(Word.REFUSED, ": ".join(line.removeprefix("why: ") for line in kept if line))
