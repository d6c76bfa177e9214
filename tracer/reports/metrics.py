"""What is counted, as metrics for Prometheus: OpenMetrics over HTTP on this machine alone."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from zctrace import packages
from zctrace._version import version
from zctrace.analysis.program import Answer
from zctrace.errors import OutputError, UsageError
from zctrace.evidence.account import NO_CALL, FlowWay, Look
from zctrace.probes.syscalls import ALWAYS_COPY

ADDRESS = "127.0.0.1"
_FIGURES = {
    "received": "Bytes that system calls, and operations of io_uring, read.",
    "delivered": "Bytes that they wrote.",
    "copied": "Bytes of these that the CPU copied.",
}
_LABELS = ("subject", "call")


_Key = tuple[str, str]
"""A subject, and a call."""


@dataclass
class _Sums:
    """Bytes, by subject and call."""

    received: Counter[_Key] = field(default_factory=Counter)
    delivered: Counter[_Key] = field(default_factory=Counter)
    copied: Counter[_Key] = field(default_factory=Counter)


class Exported:
    """What one subject has moved since the beginning, over several traces.

    Or, ``by_unit``, what each unit of it has.

    Counters never go back. A trace's figures are shown while it goes on; its self-tests have
    the last word when it ends, and are counted by their outcome. A collector of
    prometheus_client's.
    """

    def __init__(self, subject: str, *, by_unit: bool = False) -> None:
        self._subject, self._by_unit = subject, by_unit
        self.kernel = ""
        self._lock = threading.Lock()
        self._before, self._now = _Sums(), _Sums()
        self._tracing = False
        self._unknown = 0
        self._ended: Counter[str] = Counter(dict.fromkeys(("passed", "open", "failed"), 0))

    def look(self, look: Look) -> None:
        """What there is in the current trace up to now."""
        with self._lock:
            self._tracing = True
            for name in _FIGURES:
                if self._by_unit:
                    now = {(row.unit, row.call): getattr(row, name) for row in look.units}
                else:
                    now = {(self._subject, c): n for c, n in getattr(look, name).items()}
                _raise(getattr(self._now, name), now)

    def end(self, found: Answer) -> None:
        """A trace is over, and this is what it has found."""
        # By unit, there was a last look.
        last = _Sums() if self._by_unit else _sums(self._subject, found)
        with self._lock:
            for name in _FIGURES:
                own = getattr(self._now, name)
                _raise(own, getattr(last, name))
                getattr(self._before, name).update(own)
            self._now = _Sums()
            self._tracing = False
            unknown = found.unassigned + found.unexplained_bytes
            if self._by_unit:
                # Whose they are is not known.
                plain = found.explanation.plain
                unknown += sum(one.bytes for one in plain if one.syscall not in ALWAYS_COPY)
            self._unknown += unknown
            is_open = found.doubts or unknown
            self._ended["failed" if found.failed else "open" if is_open else "passed"] += 1

    def collect(self) -> Iterator[Any]:
        """Families of prometheus_client's."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            InfoMetricFamily,
        )

        with self._lock:
            for name, text in _FIGURES.items():
                family = CounterMetricFamily(f"zctrace_{name}_bytes", text, labels=_LABELS)
                total = getattr(self._before, name) + getattr(self._now, name)
                for labels, size in sorted(total.items()):
                    family.add_metric(labels, size)
                yield family
            yield CounterMetricFamily(
                "zctrace_unknown_bytes",
                "Bytes that may have been copied as well, of traces that ended.",
                value=self._unknown,
            )
            traces = CounterMetricFamily(
                "zctrace_traces",
                "Traces that ended. open: some copies may be missing; failed: a self-test did, "
                "and the figures since the last trace are not to be trusted.",
                labels=("subject", "outcome"),
            )
            for outcome, many in self._ended.items():
                traces.add_metric([self._subject, outcome], many)
            yield traces
            yield GaugeMetricFamily(
                "zctrace_tracing", "1 while bytes are counted.", value=int(self._tracing)
            )
            facts = {"version": version(), "kernel": self.kernel}
            yield InfoMetricFamily("zctrace", "Version, and the kernel measured.", value=facts)


def _sums(subject: str, found: Answer) -> _Sums:
    sums = _Sums()
    for flow in found.trace.account.flows:
        into = sums.delivered if flow.way is FlowWay.OUT else sums.received
        into[subject, flow.syscall or NO_CALL] += flow.bytes
    if found.copied is not None:
        for line in found.calls:
            sums.copied[subject, line.name] += line.copied_bytes
    return sums


def _raise(sums: Counter[_Key], now: Mapping[_Key, int]) -> None:
    """To what there is now: a look is not of one moment, and may have less than the last."""
    for key, size in now.items():
        sums[key] = max(sums[key], size)


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(exported: Exported, port: int) -> Iterator[str]:
    """Answer scrapes on this machine's own address; the value is where.

    Raises :class:`UsageError` without prometheus_client, and :class:`OutputError` where the
    port is taken.
    """
    try:
        from prometheus_client import CollectorRegistry, make_wsgi_app
    except ModuleNotFoundError as error:
        raise UsageError(
            "metrics need the Python package prometheus_client",
            "it is not installed",
            f"{packages.remedy('prometheus')}; or pip install prometheus-client",
        ) from error
    registry = CollectorRegistry()
    registry.register(exported)
    try:
        server = make_server(
            ADDRESS, port, make_wsgi_app(registry), WSGIServer, handler_class=_Quiet
        )
    except OSError as error:
        raise OutputError(
            f"--port {port}: {error.strerror}", "another program listens there", "--port N"
        ) from error
    with server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{ADDRESS}:{server.server_port}/metrics"
        finally:
            server.shutdown()
