"""Whether zctrace was right where it was killed, starved or confined. Pure.

What a try is, stands in ``record``.
"""

import enum
from collections import Counter

from tests.kernel_lines import judge
from tests.kernel_lines.judge import Finding, Word
from zctrace.analysis.program import answer
from zctrace.evidence.schema import Evidence
from zctrace.probes.model import Quantity

KILLED = -9
PIECE = 1 << 16
"""What one call reads in :mod:`tries`, in bytes."""


class Beside(enum.StrEnum):
    """Of tries that have no answer to be judged, and of what stays behind."""

    NONE, LEFT = "killed", "left behind"


def message(text):
    """What the command line would have said, where there is only the traceback of it."""
    _, error, said = text.rpartition("zctrace.errors.")
    return f"zctrace: {said.partition(': ')[2]}" if error else text


def outcome(tried):
    """A :class:`Finding`, or :attr:`Beside.NONE` for one that was killed with nothing said."""
    if tried["result"] is not None:
        if "broken" in tried["result"]:
            return Finding(Word.WRONG, "the result is not whole")
        return of_result(tried["result"], tried["expected"])
    if tried["status"] == KILLED:
        return Beside.NONE
    return judge.of_message(tried["stderr"])


def of_result(result, expected):
    if "summary" in result:
        return judge.of_run(result["summary"])
    return of_trace(answer(Evidence.from_json(result["evidence"])), expected)


def of_trace(found, expected):
    """Of a traced program: ``expected`` are bytes by things' names and kinds, and calls."""
    if doubtful := judge.left_open(found):
        return doubtful
    wrong = [
        f"{what}: {seen} instead of {right}"
        for what, seen, right in _compared(found, expected)
        if seen != right
    ]
    return Finding(Word.WRONG, "; ".join(wrong)) if wrong else Finding(Word.EXACT)


def _compared(found, expected):
    lines = {line.name: line for line in found.things}
    for name, right in expected.get("things", {}).items():
        yield name, _copied(lines.get(name)), right
    for name, most in expected.get("at most", {}).items():
        line = lines.get(name)
        received = line.received if line else 0
        yield name, _copied(line), {"k2u": received} if received else {}
        yield f"{name}, of {most} B", received, min(received, most)
    for name in expected.get("some", ()):
        line = lines.get(name)
        # Of a call that ends later there is a copy, and nothing received yet.
        received = line.received if line else 0
        under_way = _copied(line).get("k2u", 0) - received
        yield f"{name}, received", received > 0, True
        yield f"{name}, copied", 0 <= under_way <= PIECE and set(_copied(line)) == {"k2u"}, True
    for kind, right in expected.get("kinds", {}).items():
        yield kind, _of_kind(found.trace.account, kind), dict.fromkeys(_EVERY_WAY, right)
    for call, right in expected.get("calls", {}).items():
        yield call, _made(found.trace.run, call), right


_EVERY_WAY = ("in", "out", "u2k", "k2u")


def _copied(line):
    return {str(way): size for way, size in line.copied.items() if size} if line else {}


def _of_kind(account, kind):
    """Bytes that things of a kind took and gave, and that were copied for it."""
    total = Counter()
    things = [thing.kind == kind for thing in account.things]
    for flow in account.flows:
        if flow.thing is not None and things[flow.thing]:
            total[str(flow.way)] += flow.bytes
    for booking in account.bookings:
        if booking.thing is not None and things[booking.thing] and booking.direction != "k2k":
            total[str(booking.direction)] += booking.bytes
    return dict(total)


def _made(run, call):
    return sum(
        count.calls
        for count in run.counts
        if (count.role, count.quantity, count.syscall)
        == ("program", Quantity.SYSCALL_ENTER, call)
    )


def tally(tries):
    """How often each came, and the reasons of all that is not exact, most frequent first."""
    counts, reasons = Counter(), Counter()
    for tried in tries:
        found = outcome(tried)
        counts[str(found if isinstance(found, Beside) else found.word)] += 1
        if isinstance(found, Finding) and found.why:
            reasons[f"{found.word}: {found.why}"] += 1
        if tried["left"]:
            counts[str(Beside.LEFT)] += 1
            reasons[f"{Beside.LEFT}: {tried['left']}"] += 1
    return counts, reasons.most_common()


def amounts(tries, name):
    """How often how many bytes were received from a thing, as text."""
    seen = Counter()
    for one in tries:
        if one["result"]:
            found = answer(Evidence.from_json(one["result"]["evidence"]))
            lines = [line.received for line in found.things if line.name == name]
            seen[sum(lines)] += 1
    return ", ".join(f"{size} B {many} ×" for size, many in sorted(seen.items()))
