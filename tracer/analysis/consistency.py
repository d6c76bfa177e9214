"""Rules between the members of one evidence that no type can express.

Reports look things up by number and by name. This module finds the numbers and names that
lead nowhere, and the place in the file that has them.
"""

from __future__ import annotations

from collections.abc import Iterator

from zctrace.evidence.account import CLOSED, EXITED, INTERRUPTED, SERVED, TIME, Account
from zctrace.evidence.schema import COLD, WARM, Evidence, Run
from zctrace.workloads import catalogue

Fault = tuple[str, str]
"""The place, and what is wrong with it."""


def faults(evidence: Evidence) -> Iterator[Fault]:
    """What is wrong, in the order of the members."""
    if evidence.rights and evidence.rights.get("uid") is None:
        yield "rights", "object missing required field uid"
    if evidence.trace:
        if not evidence.request.subject:
            yield "request.subject", "no program is named, but one was traced"
        if evidence.trace.ended not in (EXITED, TIME, INTERRUPTED, SERVED, CLOSED):
            yield "trace.ended", f"not a reason to end: {evidence.trace.ended!r}"
        yield from _of_account(evidence.trace.account)
        return
    for number, run in enumerate(evidence.runs):
        for place, reason in _of_run(evidence, run):
            yield f"runs[{number}].{place}", reason


def _of_run(evidence: Evidence, run: Run) -> Iterator[Fault]:
    if run.strategy not in {strategy.name for strategy in catalogue.STRATEGIES}:
        yield "strategy", f"this zctrace has no strategy {run.strategy!r}"
    if run.nic not in evidence.nics:
        yield "nic", f"evidence.nics has no {run.nic!r}"
    if run.file_system not in evidence.disks and not run.unavailable:
        yield "file_system", f"evidence.disks has no {run.file_system!r}"
    if run.cache not in (WARM, COLD):
        yield "cache", f"expected {WARM} or {COLD}, got {run.cache!r}"
    if run.payload_bytes < 1:
        yield "payload_bytes", "expected at least 1: nothing was to be moved"


def _of_account(account: Account) -> Iterator[Fault]:
    many = len(account.things)
    numbers = {
        "things": [("peer", thing.peer) for thing in account.things],
        "flows": [("thing", flow.thing) for flow in account.flows],
        "bookings": [("thing", booking.thing) for booking in account.bookings],
    }
    for member, found in numbers.items():
        for number, (name, thing) in enumerate(found):
            if thing is not None and thing >= many:
                place = f"trace.account.{member}[{number}].{name}"
                yield place, f"expected a number below {many}, got {thing}"
