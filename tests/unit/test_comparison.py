"""What changed between two results, from recorded evidence and from altered."""

import csv
import dataclasses
import functools
import io
import json

import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.conftest import HERE, recorded_evidence
from tests.unit import altering
from zctrace import cli, errors
from zctrace.analysis import program as traced
from zctrace.analysis import runs as summary
from zctrace.analysis import saved
from zctrace.analysis.comparison import increases, model, pairing, programs
from zctrace.analysis.comparison import runs as compared_runs
from zctrace.analysis.comparison.model import COPIED, Change, Part
from zctrace.analysis.lines import Line
from zctrace.evidence.account import Only, Thing
from zctrace.evidence.schema import Evidence
from zctrace.probes.model import Direction
from zctrace.reports import comparison as reports
from zctrace.reports import comparison_data, machine_readable, program_data
from zctrace.reports.text import paper

ON, OFF = "nginx, sendfile on", "nginx, sendfile off"
SIZE = 16 << 20
"""Of the file that all recorded programs deliver."""


@functools.cache
def recordings(line):
    text = (HERE / "evidence" / f"programs-{line}.json").read_text()
    return {name: Evidence.from_json(values) for name, values in json.loads(text).items()}


def recorded(name, line="6.1"):
    return recordings(line)[name]


def release(line):
    return recorded_evidence(line).kernel["release"]


def delivered(name):
    """Bytes that a recorded program delivered: the file, and of a server its headers."""
    (many,) = traced.answer(recorded(name)).delivered.values()
    assert SIZE <= many < SIZE + 1024
    return many


def result_of(before, after):
    """Of evidence, one or a list on each side."""
    sides = [side if isinstance(side, list) else [side] for side in (before, after)]
    return pairing.compare(
        *(
            saved.Saved(
                HERE / name,
                tuple(summary.judge(e for e in side if not e.trace)),
                tuple(traced.answer(e) for e in side if e.trace),
            )
            for name, side in zip(("before", "after"), sides, strict=True)
        )
    )


def only(before, after):
    (compared,) = result_of(before, after).comparisons
    return compared


def rendered(result, width=80):
    text = io.StringIO()
    paper.show(reports.report(result), Console(file=text, width=width))
    return text.getvalue()


def flat(text):
    return " ".join(text.split())


def rows(result):
    return list(csv.DictReader(io.StringIO(comparison_data.differences_csv(result))))


def item(compared, part, name):
    (found,) = [i for i in compared.items if i.part is part and i.name.startswith(name)]
    return found


def with_trace(evidence, **values):
    of_run = {k: values.pop(k) for k in ("counts", "lost", "hits") if k in values}
    run = dataclasses.replace(evidence.trace.run, **of_run)
    return dataclasses.replace(
        evidence, trace=dataclasses.replace(evidence.trace, run=run, **values)
    )


def larger(evidence, factor):
    """A program that did everything so many times."""
    trace = evidence.trace

    def more(values):
        return tuple(
            dataclasses.replace(v, calls=v.calls * factor, bytes=v.bytes * factor)
            if getattr(v, "role", "program") == "program"
            else v
            for v in values
        )

    account = dataclasses.replace(
        trace.account, flows=more(trace.account.flows), bookings=more(trace.account.bookings)
    )
    return with_trace(evidence, account=account, counts=more(trace.run.counts))


def blind_to(evidence, function):
    """With a dead probe, which fails the controls."""
    counts = tuple(c for c in evidence.trace.run.counts if c.function != function)
    return with_trace(evidence, counts=counts)


def test_from_copying_to_not():
    compared = only(recorded(OFF), recorded(ON))
    assert compared.changed
    off, on = (traced.answer(recorded(name)) for name in (OFF, ON))
    assert compared.headline == (
        f"copies per byte delivered: 2.00 → < 0.01 ({off.copied_bytes} → {on.copied_bytes} B "
        f"copied for {delivered(OFF)} B; -1.00 by writev(2), -1.00 by pread64(2))"
    )
    assert [c.figure for c in compared.circumstances] == ["traced"]
    first = compared.items[0]
    assert (first.part, first.name, first.of(COPIED).by) == (Part.TOTAL, "copied", -2 * SIZE)
    entered = ("program", "syscall-enter", "sendfile")
    sent = sum(
        c.calls for c in on.trace.run.counts if (c.role, c.quantity, c.syscall) == entered
    )
    assert item(compared, Part.CALL, "sendfile").of("calls") == Change("calls", 0, sent)
    assert sent > 0
    assert item(compared, Part.SITE, "_copy_from_iter").of(COPIED).by == -SIZE


@pytest.mark.parametrize("name", ["cp", "cat", "shell", ON, OFF])
def test_kernels_that_agree(name):
    """Some bytes are copied elsewhere, and page faults are others: neither counts."""
    compared = only(recorded(name, "6.1"), recorded(name, "7.3"))
    assert not compared.changed
    assert model.NOTHING in compared.headline
    circumstances = {c.figure: c for c in compared.circumstances}
    assert circumstances["kernel"].after == recorded(name, "7.3").kernel["release"]
    assert "kernel's build" not in circumstances


def test_nothing_differs_from_itself():
    for evidence in (recorded(OFF), recorded_evidence("7.3")):
        result = result_of(evidence, evidence)
        (compared,) = result.comparisons
        assert [*compared.items, *compared.varying, *compared.circumstances] == []
        assert not compared.changed
        assert rows(result) == []
        assert rendered(result).startswith("Nothing changed in what counts: ")


def test_the_largest_change_is_first():
    compared = only(recorded(ON), recorded(OFF, "7.3"))
    weights = [programs.weight(i, compared.basis) for i in compared.items]
    assert weights == sorted(weights, reverse=True)
    assert weights[0][0] > weights[-1][0]


def test_of_other_amounts_copies_for_each_byte_are_compared():
    before, after = recorded(OFF), larger(recorded(OFF), 3)
    compared = only(before, after)
    assert not compared.changed
    assert "2.00 copies per byte delivered" in compared.headline
    copied = item(compared, Part.CALL, "writev")
    assert copied.of(COPIED).by == 2 * delivered(OFF)
    assert not any(programs.matters(i, compared.basis) for i in compared.items)
    text = flat(rendered(result_of(before, after)))
    many = f"{delivered(OFF)} B before, {3 * delivered(OFF)} B after"
    assert f"{many}. These differ, so copies" in text
    assert "_copy_from_iter" not in text


def test_less_copied_for_each_byte_is_a_change_though_more_is_copied():
    compared = only(recorded("cat"), larger(recorded(ON), 10**6))
    assert compared.changed
    assert compared.headline.startswith("copies per byte delivered: 1.00 → < 0.01 (")
    assert item(compared, Part.CALL, "recvfrom").of(COPIED).by > 0


def test_the_same_copies_by_other_calls_are_a_change():
    cp = recorded("cp")
    counts = tuple(
        dataclasses.replace(c, syscall="sendfile") if c.syscall == "copy_file_range" else c
        for c in cp.trace.run.counts
    )
    account = dataclasses.replace(
        cp.trace.account,
        **{
            part: tuple(
                dataclasses.replace(of, syscall="sendfile")
                if of.syscall == "copy_file_range"
                else of
                for of in getattr(cp.trace.account, part)
            )
            for part in ("flows", "bookings")
        },
    )
    compared = only(cp, with_trace(cp, counts=counts, account=account))
    assert compared.changed
    assert compared.headline.startswith(
        "copies per byte delivered: 1.00, as before, but not in the same way: "
    )
    assert "-1.00 by copy_file_range(2)" in compared.headline
    assert "+1.00 by sendfile(2)" in compared.headline


def test_many_more_system_calls_are_told_though_nothing_else_changed():
    cat = recorded("cat")
    counts = tuple(
        dataclasses.replace(c, calls=c.calls * 9)
        if (c.role, c.quantity, c.syscall) == ("program", "syscall-enter", "read")
        else c
        for c in cat.trace.run.counts
    )
    headline = only(cat, with_trace(cat, counts=counts)).headline
    assert headline.startswith(model.NOTHING)
    assert "; but system calls: " in headline


def test_what_was_not_measured_is_no_number():
    broken = blind_to(recorded(OFF), "_copy_from_iter")
    result = result_of(recorded(OFF), broken)
    (compared,) = result.comparisons
    assert compared.headline == (
        "copies per byte delivered: 2.00 → not measured: a self-test failed after"
    )
    copied = [row for row in rows(result) if row["figure"] == COPIED]
    assert {row["part"] for row in copied} == {"total", "call", "thing", "site"}
    assert "pread64 512 16777216 – 1.00 → – recvfrom" in flat(rendered(result))
    for row in copied:
        assert (row["after"], row["change"], row["after_per_byte"]) == ("", "", "")
        assert row["before"] != ""
    assert any(d.startswith("after: self-test failed: known bytes") for d in compared.doubts)
    back = only(broken, recorded(OFF))
    assert "not measured → 2.00: a self-test failed before" in back.headline


def test_two_sides_without_figures_are_not_alike():
    broken = blind_to(recorded(OFF), "_copy_from_iter")
    compared = only(broken, broken)
    assert "not measured on either side" in compared.headline
    assert model.NOTHING not in compared.headline
    assert any(d.startswith("before and after: self-test failed") for d in compared.doubts)


def test_lower_bounds_are_told():
    lost = with_trace(recorded(ON), lost={"call": 3})
    compared = only(recorded(OFF), lost)
    assert "2.00 → at least < 0.01" in compared.headline
    assert any(d.startswith("after: figures are lower bounds: 3") for d in compared.doubts)
    assert only(recorded(ON), lost).headline.startswith("as far as observed, nothing changed")


def test_where_nothing_was_delivered_bytes_are_compared():
    account = dataclasses.replace(recorded("cat").trace.account, flows=())
    compared = only(recorded("cat"), with_trace(recorded("cat"), account=account))
    assert compared.basis.why_not == "nothing was delivered or received after"
    copied = traced.answer(recorded("cat")).copied_bytes
    assert compared.headline == (
        f"bytes copied: {copied} (for {SIZE} B delivered → 0 B delivered)"
    )
    assert compared.changed


def test_what_is_only_received_is_not_related_to_what_was_delivered():
    evidence = recorded("cat")
    flows = tuple(f for f in evidence.trace.account.flows if f.way == "in")
    account = dataclasses.replace(evidence.trace.account, flows=flows)
    compared = only(evidence, with_trace(evidence, account=account))
    assert compared.basis.why_not.startswith(f"before, {SIZE} B were delivered, and after, ")
    assert "per byte" not in rendered(
        result_of(evidence, with_trace(evidence, account=account))
    )


def test_what_moved_inside_is_compared():
    compared = only(recorded("cat"), recorded("shell"))
    (inside,) = [item for item in compared.items if item.name == "inside: pipe"]
    (change,) = inside.figures
    assert (change.figure, change.before, change.after) == ("inside_bytes", 0, 16777216)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("pipe:[15457]", "pipe"),
        ("unix stream socket:[88]", "unix stream socket"),
        ("tcp 127.0.0.1:8001 → 127.0.0.1:59574", "tcp 127.0.0.1:8001 → 127.0.0.1:*"),
        ("tcp [::1]:40000 → [::1]:443", "tcp [::1]:* → [::1]:443"),
        ("udp 0.0.0.0:0 → 10.0.0.1:53", "udp 0.0.0.0:0 → 10.0.0.1:53"),
        ("/proc/4711/status", "/proc/*/status"),
        ("/dev/pts/3", "/dev/pts/*"),
        ("/srv/release:40000", "/srv/release:40000"),
        ("/srv/a[1]", "/srv/a[1]"),
    ],
)
def test_names_without_what_changes_by_itself(name, instead):
    assert programs.stable(name) == instead


def test_clients_of_a_server_are_one_thing():
    evidence = recorded(OFF)

    def at(port):
        things = tuple(
            Thing(t.kind, f"tcp 127.0.0.1:8002 → 127.0.0.1:{port}") if t.kind == "socket" else t
            for t in evidence.trace.account.things
        )
        return dataclasses.replace(evidence.trace.account, things=things)

    compared = only(
        with_trace(evidence, account=at(40000)), with_trace(evidence, account=at(50000))
    )
    assert not compared.items


def test_traces_are_paired_by_program_and_kernel():
    names = ["cat", "cp", ON]
    before = [recorded(name) for name in names] + [recorded("shell")]
    after = [recorded(name, "7.3") for name in reversed(names)] + [recorded("cp --reflink")]
    result = result_of(before, after)
    assert len(result.comparisons) == 3
    for compared in result.comparisons:
        traced_as = [c for c in compared.circumstances if c.figure == "traced"]
        assert all(str(c.before).startswith("process") for c in traced_as)
    assert result.only_before == [
        f"sh -c cat /run/programs/ext4/payload | wc -c; exit 7, on {release('6.1')}"
    ]
    assert result.only_after[0].startswith("cp --reflink=always ")
    assert result.headline == "nothing changed in what counts, in 3 comparisons"


def test_of_several_the_largest_change_is_the_answer():
    cheap = dataclasses.replace(
        recorded("cat"),
        trace=recorded(ON).trace,
        sites=recorded(ON).sites,
    )
    result = result_of([recorded("cp"), recorded("cat")], [recorded("cp"), cheap])
    assert result.headline.startswith(
        "1 of 2 comparisons changed; the most cat /run/programs/ext4/payload"
    )
    assert "1.00 → < 0.01" in result.headline
    assert [compared.changed for compared in result.comparisons] == [True, False]


def test_one_program_on_two_kernels_is_paired_by_release_then_by_line():
    cat, newer = recorded("cat"), recorded("cat", "7.3")
    later = dataclasses.replace(cat, kernel={**cat.kernel, "release": "6.1.0-99-amd64"})
    result = result_of([cat, newer], [newer, later])
    assert sorted(c.subject.rpartition(" on ")[2] for c in result.comparisons) == [
        "6.1.0-99-amd64", newer.kernel["release"],
    ]  # fmt: skip
    assert not result.only_before
    assert not result.only_after


def test_a_key_of_several_says_nothing():
    def table(*names):
        rows = [(name, name, name, name[0]) for name in names]
        return pd.DataFrame(rows, columns=["found", "name", "whole", "first"])

    pairs, left, right = pairing.paired(
        table("a1", "a2", "b"), table("a3", "b", "c"), [["whole"], ["first"]]
    )
    assert (pairs, left, right) == ([("b", "b")], ["a1", "a2"], ["a3", "c"])


def test_one_reason_in_two_functions_is_one():
    cp = recorded("cp")
    counts = tuple(
        dataclasses.replace(c, caller="iomap_write+0x1")
        if c.syscall == "copy_file_range"
        else c
        for c in cp.trace.run.counts
    )
    compared = only(cp, with_trace(cp, counts=counts))
    assert {i.part for i in compared.items} == {Part.SITE}
    assert not compared.changed


def test_a_trace_and_runs_have_nothing_in_common():
    with pytest.raises(errors.UsageError, match=r"has traces, .* has runs of strategies"):
        result_of(recorded("cat"), recorded_evidence("6.1"))


def test_runs_without_their_like():
    evidence = recorded_evidence("6.1")
    some = [
        dataclasses.replace(evidence, runs=(altering.run_of(evidence, name),))
        for name in ("sendfile", "splice")
    ]
    with pytest.raises(errors.UsageError, match="nothing in common"):
        result_of(*some)
    result = result_of(evidence, some[0])
    assert result.only_after == []
    assert f"splice 1 MiB, on {release('6.1')}" in result.only_before
    assert len(result.only_before) == len(evidence.runs) - 1
    assert f"; and {len(evidence.runs) - 7} more: " in flat(rendered(result))


def test_file_to_file_is_paired_by_the_device_that_was_asked_for():
    evidence = recorded_evidence("6.1")
    (run,) = (r for r in evidence.runs if r.strategy == "copy-file-range")
    over = dataclasses.replace(run, nic="veth")
    nics = {**evidence.nics, "veth": evidence.nics["lo"]}
    both = dataclasses.replace(evidence, runs=(run, over), nics=nics)
    result = result_of(both, dataclasses.replace(both, runs=(over, run)))
    assert result.headline == "nothing changed in what counts: 2 runs"
    assert not result.only_before


def test_runs_on_kernels_that_agree():
    compared = only(recorded_evidence("6.1"), recorded_evidence("7.3"))
    assert compared.headline == f"{model.NOTHING}: {len(recorded_evidence('6.1').runs)} runs"
    assert {i.part for i in compared.items} <= {Part.RUN}
    figures = {c.figure for i in compared.varying for c in i.figures}
    assert {"copy_calls", "interrupts"} <= figures
    assert not figures & {"cpu_copied_bytes", "mode_switches"}


def test_several_kernels_are_paired_by_release_then_by_line():
    six, seven = recorded_evidence("6.1"), recorded_evidence("7.3")
    newer = dataclasses.replace(six, kernel={**six.kernel, "release": "6.1.0-99-amd64"})
    result = result_of([six, seven], [seven, newer])
    assert sorted(c.subject for c in result.comparisons) == [
        f"on {six.kernel['release']} → 6.1.0-99-amd64",
        f"on {seven.kernel['release']}",
    ]
    # Of several kernels one that is left is not the other's successor.
    other = dataclasses.replace(six, kernel={**six.kernel, "release": "5.4.0-1"})
    with pytest.raises(errors.UsageError, match="nothing in common"):
        result_of([six, seven], other)
    result = result_of([six, seven], [seven, other])
    assert [c.subject for c in result.comparisons] == [f"on {seven.kernel['release']}"]
    assert len(result.only_before) == len(six.runs)


def copying_more(evidence, strategy, size=4711):
    """With a copy more inside the kernel."""
    site = next(s for s in evidence.sites if s.quantity == "skb-copy-bits")
    stray = altering.count(
        "sender", site.function, size, quantity="skb-copy-bits",
        mechanism=site.mechanism, direction="k2k", syscall="sendfile",
        caller="skb_segment+0x1",
    )  # fmt: skip
    return altering.added(evidence, strategy, stray)


def test_a_run_that_copies_more(evidence):
    after = copying_more(evidence, "sendfile", 1 << 20)
    result = result_of(evidence, after)
    (compared,) = result.comparisons
    assert compared.headline == (
        f"CPU copies of sendfile 1 MiB: 0 → 1 (0 → 1048576 B); 1 of {len(evidence.runs)} runs "
        "changed"
    )
    changed = {c.figure: c for c in compared.items[0].figures}
    assert changed["k2k_bytes"].by == 1 << 20
    assert changed["verdict_copies"] == Change("verdict_copies", "holds", "refuted")
    assert "u2k_bytes" not in changed
    reason = item(compared, Part.REASON, "sendfile 1 MiB: no scatter/gather")
    assert reason.of(COPIED) == Change(COPIED, 0, 1 << 20)
    assert "verdict on copies holds refuted" in flat(rendered(result))


def test_repetitions_that_differ_alike_are_one_row(evidence):
    run = altering.run_of(evidence, "sendfile")
    before = dataclasses.replace(
        evidence, runs=tuple(dataclasses.replace(run, run_index=n) for n in range(3))
    )
    compared = only(before, copying_more(before, "sendfile", 1 << 20))
    assert "3 of 3 runs changed" in compared.headline
    assert [i.name.partition(":")[0] for i in compared.items] == ["3 times sendfile 1 MiB"] * 2
    runs = (before.runs[0], copying_more(before, "sendfile").runs[1], before.runs[2])
    compared = only(before, dataclasses.replace(before, runs=runs))
    assert {i.name.partition(":")[0] for i in compared.items} == {"sendfile 1 MiB #1"}


def test_a_little_more_is_not_rounded_away(evidence):
    result = result_of(evidence, copying_more(evidence, "mmap-write", 7))
    assert "CPU copies of mmap-write 1 MiB: 1 → 1.0000066" in result.headline
    assert "CPU copies 1 1.0000066" in flat(rendered(result))


@pytest.mark.parametrize("column", compared_runs.COUNTING)
@pytest.mark.parametrize("after", ["measured", "none", None, 3, 2.5])
def test_every_figure_may_be_the_first_that_differs(column, after):
    """Some figures are words, and some are a number on one side only."""
    judged = altering.only(recorded_evidence("6.1"), "sendfile")
    other = dataclasses.replace(judged, figures={**judged.figures, column: after})
    before = judged.figures[column]
    compared = compared_runs.compare("", [(judged, other)], [])
    said = "not measured" if after is None else after
    assert compared.changed == (after != before)
    assert not compared.changed or f"→ {said}" in compared.headline


def test_a_run_with_fewer_calls(evidence):
    def halved(c):
        of_calls = c.quantity in ("syscall-enter", "syscall-exit") and c.syscall == "splice"
        ours = of_calls and c.role == "sender"
        return dataclasses.replace(c, calls=c.calls // 2) if ours else c

    compared = only(evidence, altering.with_counts(evidence, "splice", halved))
    first = compared.items[0]
    assert compared.headline.startswith(
        "mode switches of splice 1 MiB: 64 → 32; CPU copies as before; 1 of "
    )
    assert first.of("calls of splice") == Change("calls of splice", 32, 16)


def test_runs_whose_controls_failed_are_not_compared(evidence):
    result = result_of(evidence, altering.broken(evidence))
    (compared,) = result.comparisons
    assert compared.headline.startswith("CPU copies of read-write 1 MiB: 2 → not measured")
    for row in rows(result):
        if row["figure"] == "cpu_copied_bytes":
            assert (row["after"], row["change"]) == ("", "")
    more = altering.broken(copying_more(evidence, "sendfile"))
    for other in (compared, only(evidence, more)):
        assert not [i for i in other.items if i.part is Part.REASON]
    assert any("self-test failed" in doubt for doubt in compared.doubts)
    neither = only(altering.broken(evidence), altering.broken(evidence))
    assert (
        neither.headline
        == f"copies were not measured on either side, in {len(evidence.runs)} runs"
    )


def test_what_one_kernel_cannot_do():
    compared = only(recorded_evidence("5.10"), recorded_evidence("7.3"))
    assert compared.headline.startswith("CPU copies of io-uring-zc 1 MiB: not measured → 2; ")
    assert any("not available" in doubt for doubt in compared.doubts)


def test_what_tcp_sends_again_is_no_change(evidence):
    """Copied once more, which no two runs need do alike."""
    again = 47168

    def more(c):
        ours = (c.role, c.quantity) == ("sender", "skb-copy-ubufs")
        return dataclasses.replace(c, bytes=c.bytes + again) if ours and c is largest else c

    run = altering.run_of(evidence, "msg-zerocopy")
    largest = max(
        (c for c in run.counts if (c.role, c.quantity) == ("sender", "skb-copy-ubufs")),
        key=lambda c: c.bytes,
    )
    after = altering.with_counts(evidence, "msg-zerocopy", more)
    after = altering.told(after, "msg-zerocopy", retransmitted_bytes=again)
    compared = only(evidence, after)
    assert not compared.changed
    (first,) = [i for i in compared.items if i.part is Part.RUN]
    assert first.of("cpu_copied_bytes").by == again
    assert f"TCP sent 0 B again before, {again} B after" in first.note
    # More than that is one.
    assert only(evidence, copying_more(after, "msg-zerocopy")).changed


def test_how_reasons_share_the_copies_of_packets_is_no_change():
    compared = only(recorded_evidence("6.1-e1000"), recorded_evidence("7.3-e1000"))
    assert not compared.changed
    assert not [i for i in compared.items if i.part is Part.REASON]
    assert [i for i in compared.varying if i.part is Part.REASON]


def test_circumstances():
    before = recorded("cat")
    after = dataclasses.replace(
        before,
        rights={**before.rights, "uid": 0},
        tool={**before.tool, "zctrace": "9"},
        machine={**before.machine, "kind": "host", "memory_bytes": 1 << 40},
        request=dataclasses.replace(before.request, mechanism="callsite"),
        kernel={**before.kernel, "version": "#2"},
        trace=dataclasses.replace(before.trace, status=1),
    )
    found = {c.figure: (c.before, c.after) for c in only(before, after).circumstances}
    assert found.pop("kernel's build")[1] == "#2"
    assert found == {
        "machine": ("qemu-tcg", "host"),
        "memory, GiB": (round(before.machine["memory_bytes"] / 2**30, 1), 1024.0),
        "version of zctrace": (before.tool["zctrace"], "9"),
        "mechanism": ("auto", "callsite"),
        "rights: uid": (before.rights["uid"], 0),
        "exit status": (0, 1),
    }


PAIRS = {
    "nginx": lambda: (recorded(OFF), recorded(ON)),
    "other programs": lambda: (recorded("cat"), recorded(OFF, "7.3")),
    "shell": lambda: (recorded("shell"), recorded("shell", "7.3")),
    "not measured": lambda: (recorded(OFF), blind_to(recorded(OFF), "_copy_from_iter")),
    "runs": lambda: (recorded_evidence("6.1"), recorded_evidence("7.3")),
    "cannot": lambda: (recorded_evidence("5.10"), recorded_evidence("7.3")),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_report_fits(name):
    result = result_of(*PAIRS[name]())
    text = rendered(result)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert flat(text).lower().startswith(result.headline.lower())
    faults = [n for n, line in enumerate(text.splitlines()) if "page faults" in line]
    tables = [n for n, line in enumerate(text.splitlines()) if "───" in line]
    assert not faults or not tables or min(faults) > max(tables)


@pytest.mark.parametrize("name", PAIRS)
def test_csv_and_json_have_the_same_rows(name):
    result = result_of(*PAIRS[name]())
    read = json.loads(comparison_data.differences_json(result))
    assert read["headline"] == result.headline
    assert len(read["differences"]) == len(rows(result)) > 0
    for row, other in zip(rows(result), read["differences"], strict=True):
        assert list(row) == list(other) == comparison_data.COLUMNS
        for column, value in other.items():
            assert row[column] == ("" if value is None else str(value))
        assert (other["before"] != other["after"]) != (other["part"] == "not paired")


@pytest.fixture
def paths(tmp_path):
    """A trace on each side, and runs."""
    found = {}
    for name, evidence in (("off", recorded(OFF)), ("on", recorded(ON))):
        found[name] = tmp_path / f"{name}.json"
        found[name].write_text(program_data.result_json([traced.answer(evidence)]))
    found["run"] = tmp_path / "run.json"
    found["run"].write_text(
        machine_readable.result_json(summary.judge([recorded_evidence("6.1")]))
    )
    broken = blind_to(recorded(ON), "_copy_from_iter")
    found["broken run"] = tmp_path / "broken-run.json"
    judged = summary.judge([altering.broken(recorded_evidence("6.1"))])
    found["broken run"].write_text(machine_readable.result_json(judged))
    found["broken"] = tmp_path / "broken.json"
    found["broken"].write_text(program_data.result_json([traced.answer(broken)]))
    return {name: str(path) for name, path in found.items()}


def test_the_command(paths, tmp_path):
    made = tmp_path / "made.csv"
    arguments = ["compare", paths["off"], paths["on"]]
    shown = CliRunner().invoke(cli.app, [*arguments, "--csv", str(made)])
    assert shown.exit_code == 0
    assert shown.stdout.startswith("Copies per byte delivered: 2.00 → < 0.01 (")
    piped = CliRunner().invoke(cli.app, [*arguments, "--csv", "-"])
    assert piped.stdout == made.read_text()
    again = CliRunner().invoke(cli.app, [*arguments, "--csv", str(made)])
    assert isinstance(again.exception, errors.OutputError)
    alone = CliRunner().invoke(cli.app, [*arguments, "--json", "-"])
    assert json.loads(alone.stdout)["comparisons"][0]["changed"] is True


def test_the_command_refuses(paths, tmp_path):
    (tmp_path / "bad.json").write_text("{}")
    for arguments, kind, what in (
        ((paths["off"], paths["run"]), errors.UsageError, "has traces"),
        ((paths["off"], str(tmp_path / "bad.json")), errors.UsageError, "not a result of"),
        ((paths["off"], "/absent"), errors.UsageError, "/absent: No such file"),
    ):
        result = CliRunner().invoke(cli.app, ["compare", *arguments])
        assert isinstance(result.exception, kind)
        assert what in result.exception.what
        assert result.stdout == ""


def test_failed_controls_on_a_side_are_shown_and_are_the_status(paths):
    result = CliRunner().invoke(cli.app, ["compare", paths["off"], paths["broken"]])
    assert isinstance(result.exception, errors.ControlError)
    assert result.stdout.startswith("Copies per byte delivered: 2.00 → not measured")
    result = CliRunner().invoke(cli.app, ["compare", paths["broken run"], paths["run"]])
    assert isinstance(result.exception, errors.ControlError)
    assert result.stdout.startswith("CPU copies of read-write 1 MiB: not measured → 2; ")


@pytest.mark.parametrize(
    ("before", "after", "status", "said"),
    [
        (
            "on",
            "off",
            12,
            "byte delivered: < 0.01 → 2.00 (+1.00 by writev(2), +1.00",
        ),
        ("off", "on", 0, ""),
        ("on", "on", 0, ""),
        ("on", "doubtful", 12, "some copies may be missing"),
        ("doubtful", "on", 0, ""),
        ("on", "unassigned", 12, "copies per byte delivered: < 0.01 → 0.25"),
        ("on", "nothing", 12, "nothing was delivered or received after"),
        ("run", "run", 0, ""),
        ("run", "more", 12, "CPU copies of read-write 1 MiB: 2 → 3"),
        ("more", "run", 0, ""),
    ],
)
def test_an_increase_fails(paths, tmp_path, monkeypatch, before, after, status, said):
    """Where nothing tells that there is none, that is one, too."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary_file := tmp_path / "summary"))
    on = recorded(ON)
    lost = {**on.trace.run.lost, "call": 3}
    nobody = altering.at_site(
        on, "outside:program", "skb_copy_bits", SIZE // 4, syscall=None, caller=None
    )
    empty = dataclasses.replace(on.trace.account, flows=(), bookings=())
    counts = tuple(c for c in on.trace.run.counts if c.role != "program")
    for name, evidence in (
        ("doubtful", with_trace(on, lost=lost)),
        ("unassigned", with_trace(on, counts=(*on.trace.run.counts, nobody))),
        ("nothing", with_trace(on, account=empty, counts=counts)),
    ):
        paths[name] = str(tmp_path / name)
        text = program_data.result_json([traced.answer(evidence)])
        (tmp_path / name).write_text(text)
    paths["more"] = str(tmp_path / "more")
    run = copying_more(recorded_evidence("6.1"), "read-write", 1 << 20)
    (tmp_path / "more").write_text(machine_readable.result_json(summary.judge([run])))
    arguments = ["compare", paths[before], paths[after]]
    assert CliRunner().invoke(cli.app, arguments).exit_code == 0
    assert not summary_file.exists()
    result = CliRunner().invoke(cli.app, [*arguments, "--fail-on-increase"])
    assert getattr(result.exception, "exit_code", 0) == status, result.output
    assert said in flat(str(result.exception))
    assert summary_file.read_text().startswith("# What changed?")


def test_what_is_not_there_any_more_is_an_increase():
    result = result_of([recorded(ON), recorded("cp")], recorded(ON))
    assert [text.partition(":")[0] for text in result.increases] == ["only in before"]
    assert result_of(recorded(ON), [recorded(ON), recorded("cp")]).increases == []


def with_subject(evidence, **values):
    subject = dataclasses.replace(evidence.request.subject, **values)
    return dataclasses.replace(
        evidence, request=dataclasses.replace(evidence.request, subject=subject)
    )


def test_what_was_asked_differently_says_nothing():
    on = recorded(ON)
    part = with_subject(on, only=Only(calls=("sendfile",)))
    assert "not asked for the same: a part" in result_of(on, part).increases[0]
    assert "own memory" in result_of(on, with_subject(on, user_copies=4096)).increases[0]
    assert "started" in result_of(on, with_subject(on, follow=False)).increases[0]


def test_a_new_doubt_is_an_increase_and_an_old_one_is_none():
    on = recorded(ON)
    lost, more, other = (
        with_trace(on, lost={**on.trace.run.lost, **values})
        for values in ({"call": 3}, {"call": 5}, {"call": 3, "cpus-unwatched": 1})
    )
    assert result_of(lost, more).increases == []
    assert "some copies may be missing" in result_of(lost, other).increases[0]


def test_copies_in_own_memory_are_an_increase():
    before, after = traced.answer(recorded(ON)), traced.answer(recorded(ON))
    line = Line("memmove", 1)
    line.copied[Direction.USER_TO_USER] = SIZE
    after = dataclasses.replace(after, within=[line])
    basis = programs.compare("it", before, after, []).basis
    assert "copies per byte" in increases.of_traces(before, after, basis)


def test_a_run_that_is_certain_no_more_is_an_increase():
    before = recorded_evidence("6.1")
    lost = {**before.runs[0].lost, "call": 3}
    after = dataclasses.replace(
        before, runs=(dataclasses.replace(before.runs[0], lost=lost), *before.runs[1:])
    )
    assert result_of(before, before).increases == []
    assert len(result_of(before, after).increases) == 1
    assert result_of(after, before).increases == []
