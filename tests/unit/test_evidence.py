"""Evidence as JSON: what is read is what was written, and what is not understood is refused."""

import ast
import json
import math
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests import json_schema
from tests.conftest import HERE, recorded_evidence
from zctrace.analysis import saved, saved_form
from zctrace.collect import describe
from zctrace.errors import UsageError
from zctrace.evidence import json_form
from zctrace.evidence.schema import Count, Evidence
from zctrace.plan.plan import plan
from zctrace.probes.catalogue import CATALOGUE
from zctrace.probes.model import Quantity
from zctrace.probes.user_functions import PROGRAM_COPIES
from zctrace.workloads.marker import OUTSIDE, TAPPED, WATCHED, Role, RoleName, role_name

ROOT = HERE.parent
FILES = sorted((HERE / "evidence").glob("*.json"))
COUNT = {
    "role": "sender", "quantity": "copy-to-iter", "function": "_copy_to_iter",
    "mechanism": "call sites", "direction": "k2u", "syscall": "read", "caller": None,
    "calls": 1, "bytes": 7,
}  # fmt: skip


def recorded(path):
    """One evidence, or several: a result, or by name."""
    values = json.loads(path.read_text())
    return values.get("evidence") or ([values] if "schema" in values else [*values.values()])


def without_new(written, old):
    """``written`` without the members that ``old``, of an older version, has not."""
    if isinstance(written, dict):
        return {name: without_new(part, old[name]) for name, part in written.items()
                if name in old}  # fmt: skip
    if isinstance(written, list):
        return [without_new(*both) for both in zip(written, old, strict=True)]
    return written


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_was_saved_is_read_and_written_as_it_was(path):
    for old in recorded(path):
        written = json.loads(json.dumps(Evidence.from_json(old).to_json()))
        assert without_new(written, old) == old


def result(path, **changed):
    """A saved result, with its first count changed."""
    values = recorded_evidence("6.1").to_json()
    count = values["runs"][0]["counts"][0]
    count.update(changed)
    path.write_text(json.dumps({"evidence": [values]}))
    return values, count


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"byts": 7}, ": object contains unknown field byts"),
        ({"quantity": "copied"}, ".quantity: invalid enum value 'copied'"),
        ({"\x1b[31m\udcff": 7}, r": object contains unknown field \x1b[31m\udcff"),
        ({"quantity": "\x1b\udcff"}, r".quantity: invalid enum value '\x1b\\udcff'"),
        ({"bytes": "7"}, ".bytes: expected int, got str"),
        ({"bytes": None}, ".bytes: expected int, got null"),
        ({"bytes": 7.5}, ".bytes: expected int, got float"),
        ({"bytes": math.nan}, ".bytes: expected int, got float"),
        ({"bytes": -1}, ".bytes: expected int >= 0"),
        ({"bytes": 1 << 63}, f".bytes: expected int <= {(1 << 63) - 1}"),
        ({"bytes": [[[[7]]]]}, ".bytes: expected int, got array"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_with_its_place(tmp_path, changed, said):
    path = tmp_path / "result.json"
    result(path, **changed)
    with pytest.raises(UsageError) as refused:
        saved.read(path)
    assert refused.value.what == f"{path}: evidence[0].runs[0].counts[0]{said}"
    assert refused.value.why
    assert refused.value.hint


def test_a_place_has_the_name_that_only_the_file_knows(tmp_path):
    path = tmp_path / "result.json"
    values, _ = result(path)
    hits = values["runs"][1]["hits"]
    name = "[...]"
    hits[name] = {"program": "many", "perf": 1}
    path.write_text(json.dumps({"evidence": [values]}))
    with pytest.raises(UsageError) as refused:
        saved.read(path)
    place = f"evidence[0].runs[1].hits['{name}'].program"
    assert refused.value.what == f"{path}: {place}: expected int, got str"


@pytest.mark.parametrize(
    ("member", "value", "said"),
    [
        ("strategy", "telepathy", "this zctrace has no strategy 'telepathy'"),
        ("nic", "carrier-pigeon", "evidence.nics has no 'carrier-pigeon'"),
        ("file_system", "fat", "evidence.disks has no 'fat'"),
        ("cache", "lukewarm", "expected warm or cold, got 'lukewarm'"),
        ("payload_bytes", 0, "expected at least 1: nothing was to be moved"),
    ],
)
def test_members_that_do_not_fit_together_are_refused_with_their_place(
    tmp_path, member, value, said
):
    path = tmp_path / "result.json"
    values, _ = result(path)
    values["runs"][2][member] = value
    path.write_text(json.dumps({"evidence": [values]}))
    with pytest.raises(UsageError) as refused:
        saved.read(path)
    assert refused.value.what == f"{path}: evidence[0].runs[2].{member}: {said}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON: the file ends too early, at line 1, column 1"),
        (b'{"evidence":\n [', "not JSON: the file ends too early, at line 2, column 3"),
        (b'{"evidence": [}', "not JSON: line 1, column 15: expecting value"),
        (b"\0", "not JSON: line 1, column 1: expecting value"),
        (b'"\xff"', "not JSON: byte 1 is not UTF-8"),
        (b'{"evidence": NaN}', "expected array, got float"),
        (b'{"evidence": ' + b"1" * 10_000 + b"}", "not JSON: a number has too many digits"),
        (b'{"a":' * 100_000, "not JSON: objects and lists are nested too deeply"),
        (b"[]", "expected object, got array"),
        (b"{}", "object missing required field evidence"),
        (b'{"evidence": []}', "there are no runs in it"),
    ],
    ids=range(11),
)
def test_what_is_no_result_is_refused(tmp_path, content, said):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(UsageError) as refused:
        saved.read(path)
    assert refused.value.what == f"{path}: not a result of zctrace: {said}"
    assert refused.value.hint


def test_evidence_of_another_schema_is_refused_as_such(tmp_path):
    path = tmp_path / "result.json"
    values, _ = result(path)
    path.write_text(json.dumps({"evidence": [values, {**values, "schema": 4, "new": 1}]}))
    with pytest.raises(UsageError) as refused:
        saved.read(path)
    assert refused.value.what == f"{path}: evidence[1].schema: 4, but this zctrace reads 3"
    assert "version" in refused.value.hint


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_seconds_are_a_number_that_is_finite(tmp_path, seconds):
    path = tmp_path / "result.json"
    values, _ = result(path)
    path.write_text(json.dumps({"evidence": [{**values, "timings": {"run": seconds}}]}))
    with pytest.raises(UsageError, match=r"evidence\[0\]\.timings\['run'\]: expected float"):
        saved.read(path)


def test_a_name_that_is_not_utf_8_is_read(tmp_path):
    path = tmp_path / "result.json"
    values, _ = result(path)
    values["request"]["file"] = "/tmp/\udcff"
    path.write_text(json.dumps({"evidence": [values]}))
    assert saved.read(path).runs[0].evidence.request.file == "/tmp/\udcff"


@pytest.mark.parametrize("changed", [{"byts": 7}, {"quantity": "copied"}])
def test_a_collector_of_another_version_is_not_understood(changed):
    assert json_form.read(Count, COUNT).bytes == 7
    with pytest.raises(UsageError, match="this is no Count that this zctrace can read"):
        json_form.read(Count, {**COUNT, **changed})


def test_a_member_without_a_default_has_to_be_there():
    values = {name: value for name, value in COUNT.items() if name not in ("bytes", "role")}
    with pytest.raises(UsageError, match="this is no Count"):
        json_form.read(Count, values)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recorded_evidence_has_the_form_of_saved_results(path):
    evidences = recorded(path)
    found = saved_form.evidence_of(json.dumps({"evidence": evidences}).encode())
    assert found == [Evidence.from_json(values) for values in evidences]


@pytest.mark.parametrize("path", json_schema.FILES, ids=lambda path: path.parent.name)
def test_the_published_schema_is_what_the_program_reads(path):
    assert path.read_text() == json_schema.text(), "python -m tests.json_schema"


def modules():
    for folder in ("tracer", "workloads", "probes"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path not in (ROOT / "probes" / "model.py", ROOT / "probes" / "quantities.py"):
                yield path.relative_to(ROOT), ast.parse(path.read_text())


NAME = re.compile(rf"({'|'.join(Quantity)})(:\w+)?")
"""Of a quantity, alone or with where it goes."""
TYPED = {"quantity", "direction", "mechanism", "purpose", "kind", "role", "way", "events"}
"""Members whose values are enumerations, or consist of them."""


def spelled(tree):
    """Lines with a figure's name as a text, right or wrong."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and NAME.fullmatch(str(node.value)):
            yield node.lineno
        if isinstance(node, ast.Compare):
            parts = list(ast.walk(node))
            named = {part.attr for part in parts if isinstance(part, ast.Attribute)}
            texts = [part for part in parts if isinstance(part, ast.Constant)
                     and isinstance(part.value, str)]  # fmt: skip
            if TYPED & named and texts:
                yield node.lineno


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("c.quantity == 'disk-raed'", True),
        ("(c.role, c.quantity) == (role, 'disk-raed')", True),
        ("events['disk-read']", True),
        ("run.expected['disk-read:d2k']", True),
        ("c.quantity in (Quantity.DISK_READ,)", False),
        ("c.function == 'memcpy'", False),
    ],
)
def test_a_text_for_a_figure_is_found(code, found):
    assert bool(list(spelled(ast.parse(code)))) is found


def test_figures_are_named_by_enumerations_alone():
    """A text that is spelled wrongly equals nothing: its figure would be a silent zero."""
    found = {str(path): lines for path, tree in modules() if (lines := [*spelled(tree)])}
    assert found == {}


def test_everything_that_counts_copies_is_a_site(facts):
    attach_plan = plan(CATALOGUE, facts)
    refused = {attach_plan.calls[0].number: ["odd+0x10"]}
    sites = list(describe.sites(attach_plan, refused, user_memory=True))
    found = [site.function for site in sites]
    assert found == [
        *(call.target.function for call in attach_plan.calls),
        *(copy.site.function for copy in attach_plan.copies),
        *(copy.function for copy in PROGRAM_COPIES),
    ]
    for site, call in zip(sites, attach_plan.calls, strict=False):
        target = call.target
        assert (site.quantity, site.direction) == (target.quantity, target.direction)
        assert (site.purpose, site.breakpoint) == (target.purpose, target.breakpoint)
        assert (site.paths, site.why) == (target.paths, target.why)
    for site, copy in zip(sites[len(attach_plan.calls) :], attach_plan.copies, strict=False):
        assert (site.quantity, site.direction) == (copy.site.quantity, copy.site.direction)
        assert (site.kind, site.mechanism) == (copy.kind, copy.mechanism)
        assert (site.address, site.note) == (hex(copy.address), copy.note)
        assert (site.paths, site.why) == (copy.site.paths, copy.site.why)
    first = attach_plan.calls[0]
    assert sites[0].callers == len(first.calls) - 1
    assert sites[0].unreached == (*(call.name for call in first.unreached), "odd+0x10")
    inexact = {site.function for site in sites if not site.exact}
    assert inexact == {copy.site.function for copy in attach_plan.copies if not copy.exact}


def test_what_no_kernel_gives_account_of_is_refused(tmp_path):
    values = recorded_evidence("6.1").to_json()
    values["runs"][0]["account"] = {"resident_byte": 0}
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"evidence": [values]}))
    with pytest.raises(UsageError) as caught:
        saved.read(path)
    assert caught.value.what.endswith("account: object contains unknown field resident_byte")


def test_every_role_has_a_name_and_watched_ones_another():
    names = {role_name(role) for role in Role}
    outside = {role_name(role | OUTSIDE) for role in WATCHED}
    assert {name.outside for name in map(role_name, WATCHED)} == outside
    tapped = {role_name(role | TAPPED) for role in WATCHED}
    assert {name.tapped for name in map(role_name, WATCHED)} == tapped
    assert names | outside | tapped | {RoleName.EVERYBODY} == set(RoleName)


@pytest.mark.parametrize("make", ["device", "sparse", "pipe"])
def test_what_has_no_end_is_not_read_to_it(tmp_path, make, monkeypatch):
    path = tmp_path / "result.json"
    monkeypatch.setattr(saved, "_MOST_BYTES", 1 << 20)
    if make == "device":
        path = Path("/dev/zero")
    elif make == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        os.mkfifo(path)
        script = 'exec 2>/dev/null; exec cat /dev/zero >"$1"'
        writer = subprocess.Popen(["sh", "-c", script, "sh", path])
    with pytest.raises(UsageError, match="more than 1 MiB"):
        saved.read(path)
    if make == "pipe":
        assert writer.wait(10) == -signal.SIGPIPE
