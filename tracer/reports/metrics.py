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

ADDRESS = "127.0.0.1"
_FIGURES = {
    "received": "Bytes that system calls, and operations of io_uring, read.",
    "delivered": "Bytes that they wrote.",
    "copied": "Bytes of these that the CPU copied.",
}
_LABELS = ("subject", "call")


@dataclass
class _Sums:
    """Bytes, by call."""

    received: Counter[str] = field(default_factory=Counter)
    delivered: Counter[str] = field(default_factory=Counter)
    copied: Counter[str] = field(default_factory=Counter)


class Exported:
    """What one subject has moved since the beginning, over several traces.

    Counters never go back. A trace's figures are shown while it goes on; its self-tests have
    the last word when it ends, and are counted by their outcome. A collector of
    prometheus_client's.
    """

    def __init__(self, subject: str) -> None:
        self._subject = subject
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
                _raise(getattr(self._now, name), getattr(look, name))

    def end(self, found: Answer) -> None:
        """A trace is over, and this is what it has found."""
        last = _sums(found)
        with self._lock:
            for name in _FIGURES:
                own = getattr(self._now, name)
                _raise(own, getattr(last, name))
                getattr(self._before, name).update(own)
            self._now = _Sums()
            self._tracing = False
            unknown = found.unassigned + found.unexplained_bytes
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
                for call, size in sorted(total.items()):
                    family.add_metric([self._subject, call], size)
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


def _sums(found: Answer) -> _Sums:
    sums = _Sums()
    for flow in found.trace.account.flows:
        into = sums.delivered if flow.way is FlowWay.OUT else sums.received
        into[flow.syscall or NO_CALL] += flow.bytes
    if found.copied is not None:
        for line in found.calls:
            sums.copied[line.name] += line.copied_bytes
    return sums


def _raise(sums: Counter[str], now: Mapping[str, int]) -> None:
    """To what there is now: a look is not of one moment, and may have less than the last."""
    for call, size in now.items():
        sums[call] = max(sums[call], size)


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
