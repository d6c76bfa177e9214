"""What was seen of a system, in the few figures that its claims are judged by.

Read from files: :func:`runs` from what ``zctrace run --json`` writes, :func:`kafka` from what
:mod:`tests.systems.gather` does.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field

from zctrace.analysis import program, saved
from zctrace.evidence.schema import Evidence

LOOPBACK = "lo"
_WAYS = ("u2k", "k2u", "k2k", "u2u")


@dataclass(frozen=True)
class Moved:
    """One run of a strategy: bytes copied by direction, and system calls by name.

    A figure that was not measured is ``None``; ``doubt`` says why. ``versions`` are of what
    performed it.
    """

    strategy: str
    versions: dict
    kernel: str
    payload: int
    copied: dict
    switches: int | None
    calls: dict
    doubt: str = ""

    @property
    def by(self):
        """What performed it, in words."""
        return ", ".join(f"{name.title()} {version}" for name, version in self.versions.items())

    def copies(self, *ways):
        """Bytes copied in these directions for each of the payload, or in all of them."""
        sizes = [self.copied.get(way) for way in ways or _WAYS]
        return None if None in sizes else sum(sizes) / self.payload


@dataclass(frozen=True)
class Case:
    """What a broker did while its client worked.

    ``payload`` is what the client moved, in bytes of records; ``wrote`` bytes that came into
    the topic's log, ``read`` those out of it, and ``sent`` those into sockets, by system
    call; ``copies`` are bytes copied by the CPU for each delivered.
    """

    payload: int
    wrote: dict = field(default_factory=dict)
    read: dict = field(default_factory=dict)
    sent: dict = field(default_factory=dict)
    copies: float | None = None
    doubt: str = ""


@dataclass(frozen=True)
class Broker:
    """A Kafka broker: what it has mapped of its logs, in bytes by file, and its cases."""

    version: str
    java: str
    kernel: str
    mapped: dict
    cases: dict


@dataclass(frozen=True)
class Seen:
    """Everything; ``runs`` by strategy."""

    runs: dict
    broker: Broker | None = None


def runs(paths):
    """Of all strategies over loopback, by name."""
    found = defaultdict(list)
    for path in paths:
        for judged in saved.read(path).runs:
            if judged.run.nic != LOOPBACK:
                continue
            figures = judged.figures
            found[judged.run.strategy].append(
                Moved(
                    judged.run.strategy,
                    _versions(judged),
                    ".".join(judged.evidence.kernel["release"].split(".")[:2]),
                    judged.run.payload_bytes,
                    {way: figures[f"{way}_bytes"] for way in _WAYS},
                    figures["mode_switches"],
                    judged.calls,
                    "" if figures["coverage"] == "complete" else str(figures["coverage"]),
                )
            )
    return dict(found)


def _versions(judged):
    """Of Java, and of Netty where the strategy is Netty's."""
    names = ["java", "netty"] if judged.run.strategy.startswith("netty-") else ["java"]
    tool = judged.evidence.tool
    return {name: tool[name] for name in names if name in tool}


def kafka(path):
    """The broker of one file."""
    text = json.loads(path.read_text())
    facts = text["kafka"]
    answers = [program.answer(Evidence.from_json(values)) for values in text["evidence"]]
    cases = {
        name: _case(answer, facts["moved"][name])
        for name, answer in zip(facts["cases"], answers, strict=True)
    }
    return Broker(
        facts["version"], facts["java"], answers[0].evidence.kernel["release"],
        facts["mapped"], cases,
    )  # fmt: skip


def _case(answer, payload):
    things = answer.trace.account.things
    moved = {name: defaultdict(int) for name in ("wrote", "read", "sent")}
    for flow in answer.trace.account.flows:
        thing = None if flow.thing is None else things[flow.thing]
        if thing and is_log(thing.name):
            moved["wrote" if flow.way == "out" else "read"][flow.syscall] += flow.bytes
        elif thing and thing.kind == "socket" and flow.way == "out":
            moved["sent"][flow.syscall] += flow.bytes
    doubt = "; ".join([f"self-test failed: {c.name}" for c in answer.failed] or answer.doubts)
    return Case(payload, **{k: dict(v) for k, v in moved.items()}, copies=answer.copies,
                doubt=doubt)  # fmt: skip


def is_log(name):
    """Whether this is a file that records are in, and not the metadata of the cluster."""
    return name.endswith(".log") and "__cluster_metadata" not in name
