"""Copies within a program's own memory: where the functions are, and what is made of them."""

import ctypes
import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.conftest import recorded_evidence
from tests.unit.altering import added, altered, count, only, run_of, without
from zctrace import errors
from zctrace.analysis import rows as analysis_rows
from zctrace.analysis import runs
from zctrace.collect import describe, user_functions
from zctrace.collect.process_maps import mappings
from zctrace.plan.attachments import AttachPlan
from zctrace.plan.places import REGISTER_NUMBERS
from zctrace.probes.model import Direction, Mechanism, Quantity
from zctrace.probes.user_functions import OWN_COPIES, USER_COPIES
from zctrace.reports import markdown
from zctrace.reports.text import runs as terminal
from zctrace.workloads.known import Known, Moved

MIB, FROM = 1 << 20, 1024
MEMMOVE, *OF_JVM = USER_COPIES
QUANTITY = Quantity.USER_MEMORY
KEY = Moved(QUANTITY, Direction.USER_TO_USER)
NO_PLAN = AttachPlan((), (), (), (), (), (), ())


def code_at(place):
    with open(place.path, "rb") as file:
        file.seek(place.offset)
        return file.read(16)


def test_the_one_that_the_loader_has_chosen():
    """The same code as at the address that this process calls."""
    found = user_functions.places(MEMMOVE, os.getpid(), lambda path: "same", None)
    called = {
        ctypes.string_at(ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p), 16)
        for name in MEMMOVE.names
    }
    assert {code_at(place) for place in found} == called
    assert len(found) == len(called)


def test_another_c_library_is_not_guessed_at():
    with pytest.raises(errors.TraceError, match="which memmove is used in"):
        user_functions.places(MEMMOVE, os.getpid(), lambda path: path, None)


def test_nor_is_one_that_is_told_what_to_choose():
    own = {**os.environ, "GLIBC_TUNABLES": "glibc.cpu.x86_rep_movsb_threshold=4096"}
    program = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(
        program, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        with pytest.raises(errors.TraceError, match="in process"):
            user_functions.places(MEMMOVE, process.pid, lambda path: "same", None)
        process.stdin.close()


def test_what_is_not_mapped_is_nowhere():
    assert user_functions.places(OF_JVM[0], os.getpid(), lambda path: "same", None) == []


def test_a_library_without_symbols_is_an_error():
    stripped = dataclasses.replace(OF_JVM[0], library="libc.so")
    with pytest.raises(errors.TraceError, match="is not to be found in"):
        user_functions.places(
            stripped, os.getpid(), lambda path: "same", lambda path, name: None
        )


def test_by_symbols():
    other = dataclasses.replace(OF_JVM[1], library="libc.so")
    (place,) = user_functions.places(
        other, os.getpid(), lambda path: "same", lambda path, name: 0x40
    )
    assert place.offset == 0x40
    assert Path(place.path).samefile(
        next(m.path for m in mappings("self") if "libc.so" in m.path)
    )


def test_a_process_that_is_gone():
    with pytest.raises(FileNotFoundError):
        user_functions.places(MEMMOVE, 2**30, lambda path: "same", None)


@pytest.fixture
def watched(evidence):
    """The same runs as if copies in user memory had been watched for one of them."""
    sites = (*evidence.sites, *describe.sites(NO_PLAN, {}, user_memory=True))
    expected = run_of(evidence, "read-write").expected + Known({KEY: 180_059})
    evidence = altered(
        dataclasses.replace(evidence, sites=sites),
        "read-write",
        user_copies_from=FROM,
        expected=expected,
    )
    within = {
        "quantity": QUANTITY,
        "mechanism": Mechanism.UPROBE.value,
        "direction": Direction.USER_TO_USER.value,
    }
    return added(
        evidence,
        "read-write",
        count("control_before", "memmove", size=180_059, **within),
        count("control_after", "memmove", size=180_059, **within),
        count("sender", "memmove", size=MIB, **within),
        count("sender", "_Copy_arrayof_conjoint_jlongs", size=5, **within),
    )


def test_they_are_copies_like_others(watched):
    figures = only(watched, "read-write").figures
    assert (figures["u2u_bytes"], figures["cpu_copied_bytes"]) == (MIB + 5, 3 * MIB + 5)
    assert figures["coverage"] == "complete"
    assert figures["verdict_copies"] == "refuted"


def test_where_nobody_watched_there_is_no_figure(watched):
    """And no row that says 0."""
    figures = only(watched, "sendfile").figures
    assert figures["u2u_bytes"] is None
    assert figures["verdict_copies"] == "holds"
    rows = analysis_rows.tidy_rows(watched, run_of(watched, "sendfile"))
    assert [row for row in rows if row.quantity == QUANTITY] == []


def test_a_control_that_is_not_seen_withholds_them(watched):
    run = run_of(watched, "read-write")
    blind = altered(
        watched,
        "read-write",
        counts=tuple(
            c for c in run.counts if (c.quantity, c.role) != (QUANTITY, "control_after")
        ),
    )
    figures = only(blind, "read-write").figures
    assert figures["u2u_bytes"] is None
    assert f"known bytes, {KEY}, control_after" in figures["coverage"]


def test_without_a_control_nothing_is_said(watched):
    expected = without(run_of(watched, "read-write").expected, KEY)
    figures = only(altered(watched, "read-write", expected=expected), "read-write").figures
    assert figures["cpu_copied_bytes"] is None
    assert "within the program's own memory" in figures["coverage"]


@pytest.mark.parametrize(("offset", "found"), [(2, 3), (1, None)])
def test_behind_what_pushes(tmp_path, offset, found):
    library = tmp_path / "libany.so"
    library.write_bytes(b"\x90\x48\x55\x48\x89\xe5")
    copy = dataclasses.replace(OF_JVM[0], pushes=True)
    if found:
        assert user_functions._behind_push(copy, str(library), offset) == found
    else:
        with pytest.raises(errors.TraceError, match="begins in another way"):
            user_functions._behind_push(copy, str(library), offset)


def test_the_table_has_a_column_for_them_where_they_were_watched(evidence, watched):
    def headings(evidence):
        text = io.StringIO()
        terminal.render(runs.judge([evidence]), Console(file=text, width=80))
        (line,) = [one for one in text.getvalue().splitlines() if "k→u" in one]
        return line.split()

    assert "u→u" not in headings(evidence)
    assert "u→u" in headings(watched)
    assert "u→u" in markdown.document(runs.judge([watched]))


@pytest.mark.parametrize(
    ("strategy", "u2k", "k2u", "u2u", "words"),
    [
        ("java-traditional", MIB, MIB, 2 * MIB, ("refuted", "refuted")),
        ("java-mmap", MIB, 0, 0, ("holds", "refuted")),
        ("java-transfer-to", 0, 0, 0, ("holds", "refuted")),
        ("java-heap-buffer", MIB, MIB, 2 * MIB, ("no claim", "no claim")),
        ("java-direct-buffer", MIB, MIB, 0, ("no claim", "no claim")),
    ],
)
def test_recorded_runs_of_java(strategy, u2k, k2u, u2u, words):
    """What a JVM did on a real kernel; every control of its own passed."""
    judged = only(recorded_evidence("6.1-java"), strategy)
    figures = judged.figures
    assert [figures[f"{way}_bytes"] for way in ("u2k", "k2u", "u2u")] == [u2k, k2u, u2u]
    assert figures["cpu_copies"] == (u2k + k2u + u2u) / MIB
    assert (figures["verdict_copies"], figures["verdict_switches"]) == words
    assert figures["coverage"] == "complete"
    assert {c.name for c in judged.checked if str(KEY) in c.name} == {
        f"known bytes, {KEY}, {role}" for role in ("control_before", "control_after")
    }


@pytest.mark.parametrize(
    ("strategy", "u2k", "k2u", "u2u", "verdict"),
    [
        ("netty-direct-buffer", MIB, MIB, 0, "holds"),
        ("netty-heap-buffer", MIB, MIB, 2 * MIB, "no claim"),
        ("netty-composite", MIB, MIB, 0, "holds"),
        ("netty-wrapped", MIB, MIB, 0, "holds"),
        ("netty-slice", MIB, MIB, 0, "holds"),
        ("netty-copied", MIB, MIB, 2 * MIB, "no claim"),
        ("netty-file-region", 0, 0, 0, "holds"),
        ("netty-file-region-epoll", 0, 0, 0, "holds"),
        ("netty-chunked-file", MIB, MIB, 2 * MIB, "no claim"),
    ],
)
def test_recorded_runs_of_netty(strategy, u2k, k2u, u2u, verdict):
    judged = only(recorded_evidence("6.1-netty"), strategy)
    figures = judged.figures
    assert [figures[f"{way}_bytes"] for way in ("u2k", "k2u", "u2u")] == [u2k, k2u, u2u]
    assert (figures["verdict_copies"], figures["verdict_switches"]) == (verdict, "no claim")
    assert (figures["coverage"], figures["controls"]) == ("complete", "passed")


def test_a_recorded_run_by_tls():
    """More leaves than is payload; copies beside the payload's are small ones."""
    evidence = recorded_evidence("6.1-netty")
    figures = only(evidence, "netty-tls").figures
    secured = run_of(evidence, "netty-tls").account.secured_bytes
    assert secured == MIB + 128 * 38
    assert (figures["u2k_bytes"], figures["k2u_bytes"]) == (secured, MIB)
    assert 0 < figures["u2u_bytes"] - (2 * MIB + secured) < MIB // 16
    assert (figures["coverage"], figures["controls"]) == ("complete", "passed")
    assert evidence.tool["netty"] == "4.2.18.Final"


def test_who_copies_in_a_jvm():
    run = run_of(recorded_evidence("6.1-java"), "java-traditional")
    callers = {
        (c.function, c.caller.partition("(")[0].partition(" ")[0]): c.bytes
        for c in run.counts
        if (c.role, c.quantity) == ("sender", QUANTITY)
    }
    assert sum(callers.values()) == 2 * MIB
    assert {function for function, _ in callers} == {"memmove", "Unsafe_CopyMemory0"}


@pytest.mark.parametrize(
    ("function", "pushed", "on_stack", "unit"),
    [
        ("memmove", 0, 0, 1),
        ("_Copy_arrayof_conjoint_jlongs", 0, 0, 8),
        # Behind what was pushed and the address to return to.
        ("Unsafe_CopyMemory0", 8, 16, 1),
    ],
)
def test_where_a_function_s_number_of_bytes_is(function, pushed, on_stack, unit):
    (copy,) = (copy for copy in USER_COPIES if copy.function == function)
    assert user_functions.settings(copy, 33, 2, 256) == {
        "PLACE_SITE": 33,
        "PLACE_PUSHED": pushed,
        "PLACE_ON_STACK": on_stack,
        "PLACE_SLOT": 2,
        "PLACE_UNIT": unit,
        "PLACE_FIRST": REGISTER_NUMBERS["dx"],
        "USER_COPIES_FROM": 256,
    }


OF_GO, LINKED_IN = OWN_COPIES


class Names:
    """Of a file that has some functions, at some offsets."""

    def __init__(self, **offsets):
        self.offsets = offsets

    def functions(self, path):
        return [(0x400000 + offset, name) for name, offset in self.offsets.items()]

    def offset_of(self, path, name):
        return self.offsets.get(name)


def offsets(copy, names, path="/srv/program", libraries=()):
    found = user_functions.places_in(copy, path, names, libraries)
    return [(place.path, place.offset) for place in found]


def test_go_has_its_length_in_another_register():
    names = Names(**{"runtime.memmove": 0x77, "main.main": 0x99})
    assert offsets(OF_GO, names) == [("/srv/program", 0x77)]
    assert user_functions.settings(OF_GO, 1, 0, 1)["PLACE_FIRST"] == REGISTER_NUMBERS["cx"]
    assert offsets(OF_GO, Names()) == []
    assert offsets(OF_GO, names, path="") == []


def test_all_variants_of_a_program_that_is_linked_statically():
    names = Names(
        __memmove_avx_unaligned_erms=1, __memcpy_avx_unaligned_erms=1, __mempcpy_ssse3=2,
        # These run into the others from above.
        __memcpy_chk_avx_unaligned=3, __memmove_chk_erms=4, __memcpy_chk=5, memmove=6,
    )  # fmt: skip
    assert offsets(LINKED_IN, names) == [("/srv/program", 1), ("/srv/program", 2)]


def test_our_own_c_library_is_every_program_s():
    found = offsets(MEMMOVE, None, path="")
    same = user_functions.places(MEMMOVE, os.getpid(), lambda path: "same", None)
    assert {offset for _, offset in found} == {place.offset for place in same}
    assert {Path(path).name for path, _ in found} == {"libc.so.6"}


def test_a_jvm_beside_the_program(tmp_path):
    (tmp_path / "lib/server").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    program = str(tmp_path / "bin/java")
    assert user_functions.libraries_beside(program) == []
    jvm = tmp_path / "lib/server/libjvm.so"
    jvm.touch()
    assert user_functions.libraries_beside(program) == [str(jvm)]
    names = Names(_Copy_arrayof_conjoint_jlongs=9)
    (copy,) = (c for c in OF_JVM if c.function == "_Copy_arrayof_conjoint_jlongs")
    assert offsets(copy, names, libraries=[str(jvm)]) == [(str(jvm), 9)]


def test_the_file_that_a_command_runs(tmp_path):
    environment = {"PATH": "/usr/bin:/bin"}

    def of(command):
        return user_functions.program_of(command, str(tmp_path), environment)

    for name, first in {
        "script": "#!/bin/sh -e",
        "env": "#!/usr/bin/env sh",
        "nested": "#!./script",
        "loop": "#!./loop",
        "empty": "#!",
    }.items():
        (tmp_path / name).write_text(first + "\n")
    shell = os.path.realpath("/bin/sh")
    assert of("sh") == of("./script") == of("./env") == of("./nested") == shell
    assert of(sys.executable) == os.path.realpath(sys.executable)
    assert of("./loop") == of("./empty") == of("./none") == of("no-such-command") == ""
