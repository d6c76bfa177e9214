"""What every report says, in the same words; and what it is said of. Pure, without a form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from zctrace.analysis import captures
from zctrace.analysis.runs import Judged
from zctrace.analysis.verdicts import Source, Word
from zctrace.evidence.devices import LOOPBACK, VIRTUAL
from zctrace.evidence.origin import FACTS
from zctrace.evidence.schema import COLD, WARM, Evidence
from zctrace.probes.model import Direction
from zctrace.reports.blocks import Text, Tone
from zctrace.sizes import human_size

UNMEASURED = "–"
NOT_RECORDED = "not recorded"
"""Of what older evidence does not say of itself."""
DIFFERENT = "≠"
DERIVED = "~: handed to a driver whose DMA mappings were not seen."
NO_CLAIM = "Empty claim and verdict: the textbook makes no claim about these strategies."
WAYS = {
    Direction.USER_TO_KERNEL: "u→k",
    Direction.KERNEL_TO_USER: "k→u",
    Direction.KERNEL_TO_KERNEL: "k→k",
    Direction.USER_TO_USER: "u→u",
}
"""Headings of columns: u is user memory, k the kernel's."""
_CACHES = {
    WARM: "payload in the page cache (warm)",
    COLD: "payload on the disk, page cache cold",
}
_MACHINES = {
    "host": "the host's own kernel",
    "qemu-tcg": "in a virtual machine (QEMU, emulated)",
    "qemu-kvm": "in a virtual machine (QEMU, KVM)",
}
_ALARMS = 6
"""How many controls an alarm names."""


def ways_watched(judged: Iterable[Judged]) -> list[Direction]:
    """Directions with a column: within user memory only where that was watched for any."""
    within = any(j.run.user_copies_from is not None for j in judged)
    return [way for way in WAYS if way is not Direction.USER_TO_USER or within]


def evidences_of(judged: Iterable[Judged]) -> list[Evidence]:
    """Each once, in order."""
    return list({id(j.evidence): j.evidence for j in judged}.values())


def by_strategy(judged: Sequence[Judged]) -> list[Judged]:
    """All runs of a strategy together, in the order of kernels."""
    names = list(dict.fromkeys(j.run.strategy for j in judged))
    return sorted(judged, key=lambda j: names.index(j.run.strategy))


def settings(rows: Sequence[Judged]) -> dict[tuple[str, str], list[Judged]]:
    """What was done under the same circumstances stands in the same tables."""
    parts: dict[tuple[str, str], list[Judged]] = {}
    for j in rows:
        parts.setdefault((j.run.nic, j.run.cache), []).append(j)
    return parts


def circumstances(nic: str, cache: str, rows: Sequence[Judged]) -> str:
    way = "Over loopback"
    if nic != LOOPBACK:
        facts = [j.evidence.nics[nic] for j in rows]
        gathers = {fact.scatter_gather for fact in facts}
        what = {
            frozenset({True}): "with scatter/gather",
            frozenset({False}): "without scatter/gather",
        }.get(frozenset(gathers), "with scatter/gather on some of the kernels")
        way = f"Over {facts[0].driver}, {what}"
    return f"{way}; {_CACHES[cache]}"


def alarm(runs: Sequence[Judged]) -> tuple[str, list[str]]:
    """What to say first where controls failed, and which; nothing where none did."""
    failed = [(j, control) for j in runs for control in j.failed]
    if not failed:
        return "", []
    reasons = list(
        dict.fromkeys(
            f"{j.run.strategy}, {release(j)}: {control.name}: {control.detail}"
            for j, control in failed
        )
    )
    more = len(reasons) - _ALARMS
    shown = reasons[:_ALARMS] + ([f"{more} more: see --json"] if more > 0 else [])
    return f"SELF-TEST FAILED: figures shown as {UNMEASURED} were withheld.", shown


def release(judged: Judged) -> str:
    return str(judged.figures["kernel"])


def kernel_line(judged: Judged, runs: Sequence[Judged]) -> str:
    """The kernel's line: 6.12 of 6.12.107-amd64; its release if there are two of a line."""
    of_same_line = {j.figures["kernel"] for j in runs if _beginning(j) == _beginning(judged)}
    return release(judged) if len(of_same_line) > 1 else _beginning(judged)


def _beginning(judged: Judged) -> str:
    return ".".join(release(judged).split(".")[:2])


def heading(evidence: Evidence) -> tuple[str, ...]:
    """Whose kernel that is, and which one the host's own is; where, when and how measured."""
    facts = made(evidence)
    lines = [f"Linux {evidence.kernel['release']}, {machine(evidence)}"]
    if evidence.machine["kind"] != "host":
        own = f" ({facts['host_kernel']})" if evidence.origin else ""
        lines.append(f"the host's own kernel{own} was not measured")
    if evidence.origin is None:
        lines.append(f"host, date and command line {NOT_RECORDED}; zctrace {facts['build']}")
        return tuple(lines)
    lines.append(f"measured on {facts['host']}, {facts['ended']}, zctrace {facts['build']}")
    return (*lines, f"command line: {facts['command']}")


def machine(evidence: Evidence) -> str:
    """On what kind of machine the kernel ran."""
    kind = str(evidence.machine["kind"])
    return _MACHINES.get(kind, kind)


def made(evidence: Evidence) -> dict[str, str]:
    """Where, when, with which command line and by which version: a word for each of FACTS."""
    if evidence.origin:
        return evidence.origin.facts
    build = evidence.tool.get("zctrace", NOT_RECORDED)
    return {**dict.fromkeys(FACTS, NOT_RECORDED), "build": build}


def task(judged: Sequence[Judged]) -> str:
    first = judged[0]
    sizes = sorted({j.run.payload_bytes for j in judged})
    payload = f"{human_size(sizes[0])} ({sizes[0]} B)"
    if len(sizes) > 1:
        payload = f"{len(sizes)} payloads from {sizes[0]} to {sizes[-1]} B"
    chunk = first.run.chunk_bytes
    how = "one system call per transfer where possible"
    if chunk:
        how = f"at most {human_size(chunk)} per system call"
    systems = " and ".join(dict.fromkeys(j.run.file_system for j in judged))
    return f"{payload} on {systems}{_way(judged)}; {how}"


def _way(judged: Sequence[Judged]) -> str:
    """The circumstances, where they are the same for all and need no heading."""
    if {(j.run.nic, j.run.cache) for j in judged} == {(LOOPBACK, WARM)}:
        return ", page cache warm; TCP sockets on loopback"
    return ""


def several(runs: Sequence[Judged]) -> bool:
    """Whether there is more than one kernel."""
    return len({id(j.evidence) for j in runs}) > 1


def name(judged: Judged, runs: Sequence[Judged]) -> str:
    """The strategy, and what tells its runs apart."""
    words = judged.run.strategy
    if len({j.run.payload_bytes for j in runs}) > 1:
        words = f"{words} {human_size(judged.run.payload_bytes)}"
    if any(j.run.run_index for j in runs):
        words = f"{words} #{judged.run.run_index}"
    return words


def number(value: object) -> str:
    return UNMEASURED if value is None else str(value)


def copies(value: object) -> str:
    """Copies to three digits, never rounded to a whole number that it is not."""
    if value is None:
        return UNMEASURED
    assert isinstance(value, int | float)
    if value == int(value):
        return str(int(value))
    text = f"{value:.3f}"
    return repr(value) if float(text) == int(float(text)) else text


def claim(value: object) -> str:
    return "" if value is None else str(value)


def _alike(judged: Judged) -> tuple[object, ...]:
    run = judged.run
    return run.strategy, run.nic, run.cache, run.payload_bytes


def differs(judged: Judged, runs: Sequence[Judged], column: str) -> bool:
    """Whether a figure that was measured is another one on another kernel."""
    values: dict[int, set[object]] = {}
    for j in runs:
        if _alike(j) == _alike(judged):
            measured = values.setdefault(id(j.evidence), set())
            if j.figures[column] is not None:
                measured.add(j.figures[column])
    kernels = {frozenset(measured) for measured in values.values() if measured}
    return judged.figures[column] is not None and len(kernels) > 1


def marked(
    judged: Judged,
    runs: Sequence[Judged],
    column: str,
    show: Callable[[object], str] = number,
) -> str:
    mark = f"{DIFFERENT} " if differs(judged, runs, column) else ""
    return mark + show(judged.figures[column])


def calls(judged: Judged, shown: int) -> str:
    """System calls by name, the most frequent first, so many of them."""
    if judged.figures["syscalls"] is None:
        return UNMEASURED
    made = sorted(judged.calls.items(), key=lambda item: -item[1])
    names = ", ".join(f"{count} {call}" for call, count in made[:shown])
    return names + (f" +{len(made) - shown}" if len(made) > shown else "")


def moved_by_dma(judged: Judged, runs: Sequence[Judged], way: str) -> str:
    """Bytes that a device moved, ``way`` in or out."""
    source = judged.figures[f"dma_{way}_source"]
    if source == Source.NONE.value:
        return "no device"
    mark = " ~" if source == Source.DERIVED.value else ""
    return marked(judged, runs, f"dma_{way}_bytes") + mark


def tests_dma(judged: Judged) -> bool:
    """Whether the textbook's claim about DMA can hold or be refuted in this setting.

    There has to be a device to send, and the payload must not be in the page cache before.
    """
    evidence, run = judged.evidence, judged.run
    cold = run.cache != WARM or bool(evidence.request.file)
    return cold and evidence.nic_of(run).driver not in VIRTUAL


def asks_for_dma(judged: Judged) -> bool:
    """Whether anything but loopback and a warm page cache was asked for."""
    return judged.run.nic != LOOPBACK or judged.run.cache != WARM


def sentences(runs: Sequence[Judged], *, every: bool = False) -> list[tuple[str, Word]]:
    """Why verdicts are what they are, and why bytes were copied inside the kernel.

    Of claims that hold only with ``every``.
    """
    told_of = {Word.REFUTED, Word.NOT_MEASURED} | ({Word.HOLDS} if every else set())
    said: dict[tuple[str, str, Word], list[str]] = {}
    for j in runs:
        if j.run.unavailable:
            missing = f"not available: {j.run.strategy}"
            key = (missing, j.run.unavailable, Word.NOT_MEASURED)
            said.setdefault(key, []).append(kernel_line(j, runs))
            continue
        told = (("copies", j.copies), ("switches", j.switches), ("DMA", j.dma))
        for figure, verdict in told if every or asks_for_dma(j) else told[:2]:
            if verdict.word in told_of:
                what = f"{verdict.word.value}: {j.run.strategy}, {figure}"
                said.setdefault((what, verdict.sentence, verdict.word), []).append(
                    kernel_line(j, runs)
                )
        if j.figures["reason"]:
            why = f"{j.run.strategy}, copies inside the kernel"
            said.setdefault((why, str(j.figures["reason"]), Word.NO_CLAIM), []).append(
                kernel_line(j, runs)
            )
    spoken = []
    for (what, sentence, word), lines in said.items():
        on = f" ({', '.join(dict.fromkeys(lines))})" if several(runs) else ""
        spoken.append((f"{what}{on}: {sentence}", word))
    return spoken


def controls_passed(runs: Sequence[Judged]) -> Text:
    checked = [control for j in runs for control in j.checked]
    failed = sum(not control.passed for control in checked)
    return Text(
        f"Self-tests: {len(checked) - failed} of {len(checked)} passed.",
        Tone.ALARM if failed else Tone.PLAIN,
    )


def _from(callers: int) -> str:
    if not callers:
        return ""
    return f" ({callers} caller{'s' if callers > 1 else ''})"


def coverage(evidence: Evidence, runs: Sequence[Judged]) -> list[Text]:
    """What was watched and how, what was not and why, and what was lost."""
    by_mechanism: dict[str, dict[str, int]] = {}
    for site in evidence.sites:
        if site.callers != 0:
            # Several sites may be the same function, for different callers.
            of = by_mechanism.setdefault(site.mechanism, {})
            of[site.function] = of.get(site.function, 0) + (site.callers or 0)
    said = [
        Text(
            f"Watched by {mechanism}: "
            + ", ".join(f"{name}{_from(many)}" for name, many in of.items())
            + "."
        )
        for mechanism, of in by_mechanism.items()
    ]
    for site in evidence.sites:
        if site.note:
            said.append(Text(f"Fallback: {site.function}: {site.note}.", Tone.DOUBT))
    if refused := [
        f"{site.function} from {', '.join(dict.fromkeys(site.unreached))}"
        for site in evidence.sites
        if site.unreached
    ]:
        said.append(Text(f"Call sites that could not be probed: {'; '.join(refused)}."))
    for blind in evidence.blind:
        functions = " or ".join(blind.functions)
        paths = ", ".join(sorted(blind.paths))
        said.append(
            Text(
                f"Not covered: {functions} ({blind.reason}). Affects claims about {paths}.",
                Tone.DOUBT,
            )
        )
    lost: Counter[str] = Counter()
    for j in runs:
        lost.update(j.run.losses)
    causes = ", ".join(f"{many} × {cause}" for cause, many in lost.items())
    said.append(Text(f"Lost events: {causes or 'none'}."))
    if runs and not any(j.run.tells_skips for j in runs):
        said.append(
            Text(
                "This kernel does not report probe hits skipped during interrupts (Linux 6.7 "
                "and later do), so missed events cannot be ruled out."
            )
        )
    for sentence in captures.sentences(j.run for j in runs):
        said.append(Text(f"{sentence[0].upper()}{sentence[1:]}.", Tone.DOUBT))
    again = sum(j.run.attempts - 1 for j in runs)
    if again:
        said.append(
            Text(f"Repeated runs: {again} (a probe hit was missed, or TCP retransmitted).")
        )
    if evidence.rights:
        user = f"{evidence.request.user} (uid {evidence.rights['uid']})"
        said.append(Text(f"Strategies ran as {user}."))
    return said
