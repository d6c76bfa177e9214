"""What is claimed of systems, and a judge for each claim.

A judge looks at what was seen and gives one of three words, with the figures it goes by. It
knows no result: with other figures it says another word.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from tests.systems.seen import Seen
from zctrace.analysis.verdicts import Verdict, Word
from zctrace.probes.syscalls import MOVING

SMALL = 0.01
"""Copies for each byte of payload that are none: heads, and wake-ups of eight bytes."""
NEARLY_NONE = 0.05
"""The same of a broker, which also talks with its client and with itself."""
JAVA_CALLS = ("mmap", "sendfile")
"""Those that Java is claimed to have of Linux's calls without a copy."""
ZERO_COPY_CALLS = (*JAVA_CALLS, "splice", "tee", "vmsplice", "copy_file_range")
TRADITIONAL_COPIES, TRADITIONAL_SWITCHES = 2, 4
_NAMES = {"u2k": "u→k", "k2u": "k→u", "k2k": "k→k", "u2u": "u→u"}


@dataclass(frozen=True)
class Claim:
    """What is said of a system, and who judges that."""

    system: str
    text: str
    judge: Callable[[Seen], Verdict]


def holds(sentence):
    return Verdict(Word.HOLDS, sentence)


def refuted(sentence):
    return Verdict(Word.REFUTED, sentence)


def not_measured(sentence):
    return Verdict(Word.NOT_MEASURED, sentence)


def wherever(judge, *strategies):
    """Judge each run of all ``strategies``: refuted where one is, and holds if all do.

    What was not measured somewhere leaves the others' word as it is if the strategy was
    measured elsewhere; a strategy that nowhere was leaves nothing that could hold.
    """

    def judged(seen):
        found = {name: [(run, judge(run)) for run in seen.runs.get(name, ())]
                 for name in strategies}  # fmt: skip
        verdicts = [pair for pairs in found.values() for pair in pairs]
        word = Word.HOLDS
        if any(verdict.word is Word.REFUTED for _, verdict in verdicts):
            word = Word.REFUTED
        elif not all(
            any(verdict.word is Word.HOLDS for _, verdict in pairs) for pairs in found.values()
        ):
            word = Word.NOT_MEASURED
        absent = [f"{name}: not in these results" for name, pairs in found.items() if not pairs]
        return Verdict(word, "; ".join([*_by_sentence(verdicts), *absent]))

    return judged


def _by_sentence(verdicts):
    """Kernels on which the same is to be said share a sentence."""
    groups = defaultdict(list)
    for run, verdict in verdicts:
        where = groups[run.strategy, run.by, verdict.sentence]
        if run.kernel not in where:
            where.append(run.kernel)
    return [
        f"`{strategy}` ({by}, Linux {', '.join(kernels)}): {sentence}"
        for (strategy, by, sentence), kernels in groups.items()
    ]


def _made(calls):
    return ", ".join(f"{count} {name}" for name, count in sorted(calls.items()))


def _copied(run, *ways):
    """In words; only directions that anything was copied in."""
    sizes = {way: run.copied.get(way) for way in ways or _NAMES}
    parts = [f"{_NAMES[way]} {'?' if n is None else n}" for way, n in sizes.items() if n != 0]
    return f"{', '.join(parts)} B of {run.payload}" if parts else f"0 B of {run.payload}"


def _unknown(run):
    return not_measured(run.doubt or "copies in user memory were not watched")


def traditional(run):
    """Two copies and four switches, as Java does it."""
    copies, switches = run.copies(), run.switches
    if copies is None or switches is None:
        return _unknown(run)
    sentence = f"{copies:g} copies ({_copied(run)}), {switches} switches ({_made(run.calls)})"
    same = (copies, switches) == (TRADITIONAL_COPIES, TRADITIONAL_SWITCHES)
    return holds(sentence) if same else refuted(sentence)


def mapped(run):
    """``map`` calls mmap, and nothing is read instead."""
    copies = run.copies("k2u")
    if copies is None or run.switches is None:
        return _unknown(run)
    sentence = f"{_made(run.calls)}; copied {_copied(run)}"
    return holds(sentence) if run.calls.get("mmap") and not copies else refuted(sentence)


def transferred(run):
    """``transferTo`` calls sendfile, which copies nothing."""
    copies = run.copies()
    if copies is None or run.switches is None:
        return _unknown(run)
    sentence = f"{_made(run.calls)}; copied {_copied(run)}"
    others = [name for name in ZERO_COPY_CALLS if name in run.calls and name not in JAVA_CALLS]
    if others:
        return refuted(f"{sentence}: it calls {' and '.join(others)}, too")
    return holds(sentence) if run.calls.get("sendfile") and not copies else refuted(sentence)


def java_calls(seen):
    """``transferTo`` is sendfile, and of calls without a copy there is mmap beside, no more.

    The second half can be refuted by any strategy of Java's own; that it holds is known of
    those strategies alone.
    """
    verdict = wherever(transferred, "java-transfer-to")(seen)
    if verdict.word is Word.NOT_MEASURED:
        return verdict
    own = [run for name, runs in seen.runs.items() if name.startswith("java-") for run in runs]
    by = sorted({run.by for run in own})
    calls = {name for run in own for name in run.calls if name in ZERO_COPY_CALLS}
    others = sorted(calls - set(JAVA_CALLS))
    strategies = len({run.strategy for run in own})
    sentence = (
        f"{verdict.sentence}; calls without a copy in {strategies} strategies of "
        f"{' and '.join(by)}: {', '.join(sorted(calls))}"
    )
    if verdict.word is Word.REFUTED or others:
        return refuted(sentence)
    return holds(f"{sentence}; what no strategy does is not judged")


def in_channel(run):
    """Copied into the kernel, out of it, and not a second time in the program's memory."""
    kernel, user = run.copies("u2k", "k2u", "k2k"), run.copies("u2u")
    if kernel is None or user is None:
        return _unknown(run)
    sentence = f"{kernel:.4g} copies with the kernel, {user:.4g} in user memory"
    return holds(sentence) if user < SMALL and kernel < 2 + SMALL else refuted(sentence)


def region(run):
    """Sent by sendfile, and neither read nor written by the program."""
    copies = run.copies()
    if copies is None or run.switches is None:
        return _unknown(run)
    moving = {name: many for name, many in run.calls.items() if name in MOVING}
    sentence = f"{copies:.4g} copies; calls that move bytes: {_made(moving) or 'none'}"
    return holds(sentence) if moving.get("sendfile") and copies < SMALL else refuted(sentence)


def beside(judge, *strategies):
    """The same word, and what strategies that do it otherwise copy in user memory."""

    def judged(seen):
        verdict = judge(seen)
        others = [run for name in strategies for run in seen.runs.get(name, ())]
        known = {run.strategy: run.copies("u2u") for run in others if run.copies("u2u")}
        seconds = [
            f"`{name}` beside: {copies:.4g} in user memory" for name, copies in known.items()
        ]
        return Verdict(verdict.word, "; ".join([verdict.sentence, *seconds]))

    return judged


def _bytes(sizes):
    return ", ".join(f"{size} B by {name}" for name, size in sorted(sizes.items()) if size)


def _kafka(seen, name):
    """One case of the broker, or the verdict that says why there is none to judge."""
    if not seen.broker:
        return None, not_measured("no broker was traced: make test-systems")
    case = seen.broker.cases.get(name)
    if case is None:
        return None, not_measured(f"the broker was not traced for: {name}")
    if case.doubt or case.copies is None:
        return None, not_measured(case.doubt or "nothing was delivered")
    return case, None


def _of(broker):
    return f"Kafka {broker.version}, Java {broker.java}, Linux {broker.kernel}"


def produced(seen):
    """Whether what is produced comes into the log through a mapping, in order."""
    case, verdict = _kafka(seen, "produce")
    if not case:
        return verdict
    broker = seen.broker
    logs = [name for name in broker.mapped if name.endswith(".log")]
    indexes = [name for name in broker.mapped if name not in logs]
    written = sum(case.wrote.values())
    size = sum(broker.mapped[name] for name in indexes)
    words = (
        f"{_of(broker)}: for {case.payload} B of records "
        f"{_bytes(case.wrote) or 'nothing by calls'} into the log; mapped are {len(logs)} .log "
        f"files, and {len(indexes)} indexes with {size} B"
    )
    if written >= case.payload:
        again = broker.cases.get("consume")
        kept = again and again.payload == case.payload
        order = "; all came back in the order they were sent in" if kept else ""
        return refuted(f"{words}{order}")
    if logs and written < case.payload * SMALL:
        return holds(words)
    return not_measured(f"{words}: neither explains the whole")


def consumed(seen):
    """Whether consumers are served by sendfile and without a copy, in plaintext."""
    case, verdict = _kafka(seen, "consume")
    if not case:
        return verdict
    words = (
        f"{_of(seen.broker)}, plaintext: {_bytes(case.sent)} into sockets for {case.payload} B "
        f"of records, {case.copies:.4f} copies per byte"
    )
    tls, _ = _kafka(seen, "consume, TLS")
    if tls:
        words += (
            f"; over TLS {_bytes(tls.sent)}, {_bytes(tls.read)} out of the log, "
            f"{tls.copies:.4f} copies"
        )
    by_sendfile = case.sent.get("sendfile", 0)
    whole = by_sendfile >= case.payload and case.copies <= NEARLY_NONE
    return holds(words) if whole else refuted(words)


CLAIMS = (
    Claim(
        "Java traditional I/O",
        "`RandomAccessFile.read(byte[])` and `Socket.getOutputStream().write` are the "
        "traditional way: 2 CPU copies, 4 switches",
        wherever(traditional, "java-traditional"),
    ),
    Claim(
        "Java NIO mmap",
        "`FileChannel.map` is `mmap` underneath",
        wherever(mapped, "java-mmap"),
    ),
    Claim(
        "Java NIO sendfile",
        "`FileChannel.transferTo` is `sendfile` underneath; of Linux's calls without a copy "
        "Java has only these two",
        java_calls,
    ),
    Claim(
        "Kafka, produce",
        "the broker persists what producers send through an mmap'ed file, in order",
        produced,
    ),
    Claim(
        "Kafka, consume",
        "the broker serves consumers by `sendfile`: page cache → socket, no CPU copy",
        consumed,
    ),
    Claim(
        "Netty, direct buffers",
        "channel I/O takes direct buffers, so that there is no second copy of the bytes",
        beside(wherever(in_channel, "netty-direct-buffer"), "netty-heap-buffer"),
    ),
    Claim(
        "Netty, CompositeByteBuf, wrap and slice",
        "buffers are put together, wrapped and cut without copying bytes",
        beside(
            wherever(in_channel, "netty-composite", "netty-wrapped", "netty-slice"),
            "netty-copied",
        ),
    ),
    Claim(
        "Netty, FileRegion",
        "`DefaultFileRegion` uses `FileChannel.transferTo`, no loop of read and write",
        wherever(region, "netty-file-region", "netty-file-region-epoll"),
    ),
)
