"""The benchmark's pure parts: figures, tables, the document and the picture."""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench import bpf_programs, document, figures, guests, picture, tables, tracers
from tests.conftest import or_skip
from zctrace.machine import qemu
from zctrace.machine.kernels import Kernel

HERE = Path(guests.__file__).parent
ROOT = HERE.parents[1]
NAMES = list(tables.OPERATIONS)
SYMBOLS = """\
ffffffff81000000 T do_syscall_64
ffffffff81000100 t jhash.constprop.0
ffffffff81000180 d not_code
ffffffff81000200 T ksys_read
ffffffff81000200 T an_alias
ffffffffc0000000 t bpf_prog_0123456789abcdef_on_call	[bpf]
ffffffffc0001000 t bpf_trampoline_6442 [bpf]
ffffffffc0002000 t bpf_prog_1111111111111111	[bpf]
ffffffffc0003000 t bpf_prog_2222222222222222	[bpf]
"""


def lines(each):
    """What the workload prints where an operation takes so many instructions."""
    outlier = 1000
    return [
        [name, "4", *(str(4 * n) for n in (each, each, each + outlier))]
        for name in (*figures.CHECKS, *NAMES)
    ]


def found(**more):
    """Of a kernel: untraced 100 and 120 instructions, with zctrace 400 and 150."""
    return {
        tracers.UNTRACED: {"traced": lines(100), "bystander": lines(120)},
        tracers.ZCTRACE: {
            "traced": lines(400),
            "bystander": lines(150),
            "steps": [["one", 2_000_000], ["two", 5_000_000], ["", 11_000_000]],
            "peak_kib": 2048,
        },
        **more,
    }


def cells(table, row):
    """A row of a Markdown table, by its first cell."""
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {row} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_figure_is_the_median_batch_divided_by_its_operations():
    assert figures.per_operation([["read", "4", "40", "48", "4000"]]) == {"read": 12}


def test_extra_is_counted_from_the_untraced_run_of_the_same_kind():
    assert set(figures.extra(found(), "traced")["trace"].values()) == {300}
    assert set(figures.extra(found(), "bystander")["trace"].values()) == {30}


@pytest.mark.parametrize(
    ("one", "why"),
    [
        ({"missing": "strace"}, "not installed (apt-get install strace)"),
        ({"error": "Traceback\n  a line\nFailedError: ended\n"}, "FailedError: ended"),
    ],
)
def test_a_tracer_without_figures_says_why_and_has_no_number(one, why):
    result = found(strace=one)
    assert "strace" not in figures.extra(result, "traced")
    row = cells(tables.extra(result, "traced"), "strace -f -c")
    assert row[1:] == [why, *[""] * (len(NAMES) - 1)]


def test_the_table_has_extra_instructions_and_the_ratio():
    row = cells(tables.extra(found(), "traced"), "zctrace trace")
    assert row[1:] == ["300 (4.0 ×)"] * len(NAMES)


def test_steps_last_until_the_next_one():
    assert figures.steps(found()["trace"]) == {
        "start": 2_000_000,
        "one": 3_000_000,
        "two": 6_000_000,
    }
    table = tables.start(found(strace={"missing": "strace"}))
    assert cells(table, "two") == ["two", "6"]
    assert cells(table, "sum") == ["sum", "11"]
    assert cells(table, "peak memory of its largest process, MiB")[1] == "2"


def test_an_address_belongs_to_the_function_before_it():
    counts = {
        0: 5,
        0xFFFFFFFF81000004: 1,
        0xFFFFFFFF810000FF: 2,
        0xFFFFFFFF81000190: 4,
        0xFFFFFFFF81000200: 8,
        0xFFFFFFFFC0000010: 16,
        0xFFFFFFFFC0001010: 32,
    }
    counts |= {0xFFFFFFFFC0002000: 64, 0xFFFFFFFFC0003000: 128}
    programs = {"0123456789abcdef": "a place", "1111111111111111": "kprobe f"}
    assert figures.Symbols(SYMBOLS, programs).named(counts) == {
        figures.USER: 5,
        "do_syscall_64": 3,
        "jhash": 4,
        "ksys_read": 8,
        "BPF on_call": 16,
        "BPF trampolines": 32,
        "BPF kprobe f": 64,
        "BPF 2222222222222222": 128,
    }


def written(*each):
    """What the plugin writes: each operation in two stretches, and the workload's ends."""
    texts = [f"ffffffff81000000 {8 * n}\nffffffffc0000010 {8 * m}\n= 2\n" for n, m in each]
    return "".join(texts)


def test_symbols_are_per_repetition_and_in_the_order_of_the_runs():
    result = {
        key: {who: [["read", "4", "1"]] for who in figures.WHO}
        | {"symbols": SYMBOLS, "programs": {}}
        for key in (tracers.UNTRACED, tracers.ZCTRACE)
    }
    text = f"= 0\n{written((10, 0), (20, 0))}= 0\n{written((11, 7), (22, 3))}"
    by = figures.by_symbol(result, text)
    assert by["traced"]["untraced"] == {"read": {"do_syscall_64": 10, "BPF on_call": 0}}
    assert by["bystander"]["trace"] == {"read": {"do_syscall_64": 22, "BPF on_call": 3}}
    assert figures.difference(by["traced"]["trace"], by["traced"]["untraced"]) == {
        "read": {"do_syscall_64": 1, "BPF on_call": 7}
    }


def test_a_symbol_has_a_row_where_it_matters_to_one_operation():
    small = {"large": 970, "BPF on_call": 29, "rare": 1}
    assert figures.leading({"a": small}, 0.03) == ["large"]
    assert figures.leading({"a": small, "b": {"rare": 1, "large": 1}}, 0.03) == [
        "large",
        "rare",
    ]
    assert figures.leading({"a": {"large": 900, "BPF on_call": 100}}, 0.03) == [
        "BPF on_call",
        "large",
    ]


def test_rows_of_symbols_and_all_others_make_the_sum():
    def of(large, small):
        return {name: {"large": large, "small": small} for name in NAMES}

    table = tables.symbols({"traced": {"untraced": of(1, 1), "trace": of(1001, 11)}}, "traced")
    assert cells(table, "`large`")[1] == "1\N{NO-BREAK SPACE}000"
    assert "`small`" not in table
    assert cells(table, "all others")[1] == "10"
    assert cells(table, "sum")[1] == "1\N{NO-BREAK SPACE}010"


def test_growth_counts_sockets_and_rows():
    account = {"things": [1, 2], "flows": [1] * 3, "bookings": []}
    one = {"evidence": {"trace": {"account": account}}, "peak_kib": 5 * 1024}
    table = tables.growth({"16,2": one, "1,5": {"error": "x\nFailedError: no"}})
    assert cells(table, "16") == ["16", "64", "2", "3", "0", "5"]
    assert cells(table, "1")[:3] == ["1", "10", "FailedError: no"]


def test_only_what_is_between_the_marks_is_renewed():
    text = f"before\n{document.BEGIN}\nold\n{document.END}\nafter\n"
    new = document.renewed(text, "new")
    assert new == f"before\n{document.BEGIN}\n\nnew\n\n{document.END}\nafter\n"
    assert document.renewed(new, "new") == new
    with pytest.raises(ValueError, match="not both"):
        document.renewed("no marks", "new")


def test_the_document_has_every_table():
    of = {name: {"large": 1} for name in NAMES}
    where = {who: {"untraced": of, "trace": of} for who in figures.WHO}
    measured = {
        "6.1": {"found": found(), "symbols": where},
        "7.3": {"found": found(), "unattributed": "no plugin"},
    }
    text = document.section({"date": "today"}, measured, ("6.1", {}))
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Linux 6.1: extra instructions per operation",
        "## Linux 6.1: where the extra instructions of `zctrace trace` go",
        "## Linux 6.1: what starting costs",
        "## Linux 7.3: extra instructions per operation",
        "## Linux 7.3: where the extra instructions of `zctrace trace` go",
        "## Linux 7.3: what starting costs",
        "## Linux 6.1: more threads and sockets",
    ]
    assert "* date: today" in text
    assert text.count("Not measured: no plugin") == 1


def test_the_picture_shows_every_figure_and_says_what_was_not_measured():
    other = found(strace={"traced": lines(1100), "bystander": lines(120)})
    drawn = picture.draw({"6.1": found(strace={"missing": "strace"}), "7.3": other})
    root = ET.fromstring(drawn)
    name = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{name}svg"
    texts = [element.text for element in root.iter(f"{name}text")]
    assert texts.count("300") == 2 * len(NAMES)
    assert texts.count("1 000") == len(NAMES)
    assert texts.count("not measured") == len(NAMES)
    widths = sorted({float(bar.get("width")) for bar in root.iter(f"{name}rect")})
    longest = widths[-1]
    assert widths == pytest.approx([0, 0.3 * longest, longest], abs=0.01)
    assert longest <= picture.WIDTH - picture.NAMES - picture.SHOWN


def test_a_guest_whose_instructions_are_counted_is_emulated(monkeypatch):
    booted = []
    monkeypatch.setattr(qemu, "run", lambda guest, *arguments: booted.append(guest))
    kernel = Kernel("6.1.0", Path("/boot/vmlinuz"), "cache")
    guest = qemu.Guest(kernel, True, 1 << 30, Path("/run-folder"))
    with guests.emulated("-icount", "shift=0"):
        qemu.run(guest, ["collector"])
    qemu.run(guest, ["collector"])
    counted, other = booted
    assert counted.machine == "qemu-tcg"
    assert qemu.command(counted)[-2:] == ["-icount", "shift=0"]
    assert other == guest


@pytest.mark.parametrize("tracer", tracers.TRACERS, ids=lambda tracer: tracer.key)
def test_a_tool_gets_the_command_and_nothing_is_left_to_fill_in(tracer):
    addresses = dict.fromkeys(tracers.COPY_SITES, "ffffffff81234567")
    words = tracer.command(["workload", "run"], "/out", addresses)
    assert "workload run" in " ".join(words)
    assert not re.search(r"\{[\w/]+\}", " ".join(words))
    assert ("/out" in words) == bool(tracer.program)
    assert bool(tracer.package) == bool(tracer.program)


def test_the_workload_has_every_operation_of_the_tables():
    text = (HERE / "workload.c").read_text()
    assert re.findall(r'^    \{ "(\w+)", ', text, re.M) == [*figures.CHECKS, *NAMES]


def test_the_workload_and_the_plugin_compile(tmp_path):
    if not shutil.which("gcc"):
        or_skip("the benchmark's programs are compiled with gcc: apt-get install gcc libc6-dev")
    workload, plugin = guests.build(tmp_path)
    symbols = subprocess.run(["nm", "-D", plugin], capture_output=True, text=True).stdout
    assert " T qemu_plugin_install" in symbols
    # The marks that the plugin looks for, and no others.
    marks = re.findall(rb"\x0f\x1f\x84\x00zct(.)", workload.read_bytes(), re.S)
    assert sorted(set(marks)) == [b"\0", b"\1", b"\2"]
    assert subprocess.run([workload], capture_output=True).returncode == 2


def test_the_document_in_the_repository_can_be_renewed():
    text = (ROOT / "docs" / "cost.md").read_text()
    assert "\nnew\n" in document.renewed(text, "new")


@pytest.mark.parametrize(
    ("symbol", "kind"),
    [
        ("BPF on_call", "BPF programs' own code"),
        ("BPF trampolines", "calling BPF programs"),
        ("jhash", "BPF maps"),
        ("__htab_map_lookup_elem", "BPF maps"),
        ("copy_from_kernel_nofault_allowed", "reading kernel memory"),
        ("native_sched_clock", "the clock, for run-time statistics"),
        ("kprobe_int3_handler", "exceptions and probes"),
        ("perf_trace_sys_enter", "system calls' slow path, and tracepoints"),
        ("perf_trace_add", "perf events"),
        ("event_sched_out", "perf events"),
        ("memcpy_erms", "everything else"),
    ],
)
def test_every_function_is_of_one_kind(symbol, kind):
    kinds = figures.by_kind({"read": {symbol: 7}})
    assert {name: counts["read"] for name, counts in kinds.items() if counts["read"]} == {
        kind: 7
    }


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The files that the benchmark reads and writes, elsewhere; the document has no figures."""
    for name in ("RAW", "DOCUMENT", "PICTURE"):
        monkeypatch.setattr(bench, name, tmp_path / name)
    bench.DOCUMENT.write_text(f"# Cost\n{document.BEGIN}\n{document.END}\n")
    return tmp_path


def test_the_document_is_written_again_from_the_last_results(files):
    measured = {"6.1": {"found": found(), "unattributed": "no plugin"}}
    raw = {"about": {"date": "today"}, "measured": measured, "growth": None}
    bench.RAW.write_text(json.dumps(raw))
    assert bench.main(["--again"]) == ""
    assert "| zctrace trace | 300 (4.0 ×) |" in bench.DOCUMENT.read_text()
    assert ET.parse(bench.PICTURE).getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--only", "trace,nonsense"], "--only nonsense: there is no such tracer"),
        (["--only", "trace", "--write"], "--write needs every tracer"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_measured(files, capsys, words, complaint):
    with pytest.raises(SystemExit):
        bench.main(words)
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("whole", [True, False])
def test_a_run_measures_what_was_asked_for_and_keeps_it(files, monkeypatch, whole):
    asked = []

    def operations(line, workload, keys):
        asked.append((line, *keys))
        return {"release": f"{line}.0", "found": found()}

    monkeypatch.setattr(bench, "unable", str)
    monkeypatch.setattr(guests, "build", lambda folder: (folder, folder))
    monkeypatch.setattr(guests, "operations", operations)
    monkeypatch.setattr(guests, "symbols", lambda *_: asked.append("symbols") or {})
    monkeypatch.setattr(guests, "growth", lambda *_: asked.append("growth") or {})
    only = [] if whole else ["--only", "trace"]
    assert bench.main(["--kernel", "6.1", *only]) == ""
    expected = [("6.1", *tracers.BY_KEY), "symbols", "growth"]
    assert asked == (expected if whole else [("6.1", "untraced", "trace")])
    assert json.loads(bench.RAW.read_text())["measured"]["6.1"]["release"] == "6.1.0"


def test_programs_with_as_many_places_keep_names_of_their_own():
    places = ["kprobe filemap_read+0x1cd", "kprobe tcp_sendmsg_locked+0x2"]
    assert bpf_programs.together(places, "0123456789abcdef") == "kprobe, 2 places, 012345"
    assert bpf_programs.together(places[:1], "0123456789abcdef") == places[0]
