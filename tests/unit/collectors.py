"""A collector without probes: the server of windows, in a thread, on recorded evidence."""

import dataclasses
import os
import threading
from contextlib import contextmanager

from tests.unit.altering import at_site
from zctrace.collect.windows import Server, listening
from zctrace.workloads.known import Known


class Collector:
    """``subjects`` are what was asked for; ``evidence`` is given for every window.

    Of a list, one for each window.
    """

    def __init__(self, evidence):
        self.evidence = evidence
        self.subjects = []
        self.aborted = 0
        self.goes_on = True
        self.thread = None

    def trace(self, subject, meanwhile):
        self.subjects.append(subject)
        try:
            meanwhile()
        except Exception:
            self.aborted += 1
            raise
        evidence = self.evidence.pop(0) if isinstance(self.evidence, list) else self.evidence
        if isinstance(evidence, Exception):
            raise evidence
        return evidence

    def end(self):
        self.goes_on = False
        self.thread.join()


@contextmanager
def collecting(path, evidence, uid=None):
    """One that listens at ``path`` for one user; for ourselves, if there is none named."""
    collector = Collector(evidence)
    with listening(path, os.getuid(), os.getgid()) as listener:
        own = os.getuid() if uid is None else uid
        server = Server(listener, own, 123, collector.trace)
        collector.thread = threading.Thread(
            target=server.run, args=(lambda: collector.goes_on,)
        )
        collector.thread.start()
        try:
            yield collector
        finally:
            collector.end()


def altered(evidence, *, lost=None, outside=0, expected=None):
    """Evidence with losses, bytes of nobody's, or controls that moved something else."""
    run = evidence.trace.run
    where = {"syscall": None, "caller": None}
    nobody = at_site(evidence, "outside:program", "skb_copy_bits", outside, **where)
    run = dataclasses.replace(
        run,
        lost={**run.lost, **(lost or {})},
        counts=(*run.counts, *([nobody] if outside else [])),
        expected=Known({**run.expected.moved, **(expected or {})}, run.expected.calls),
    )
    return dataclasses.replace(evidence, trace=dataclasses.replace(evidence.trace, run=run))
