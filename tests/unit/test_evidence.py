"""Evidence as JSON: what is read is what was written, and what is not understood is refused."""

import ast
import json
import re

import pytest

from tests.conftest import HERE, recorded_evidence
from zctrace.analysis import saved
from zctrace.collect import describe
from zctrace.errors import UsageError
from zctrace.evidence import json_form
from zctrace.evidence.schema import Count, Evidence
from zctrace.plan.plan import plan
from zctrace.probes.catalogue import CATALOGUE
from zctrace.probes.model import Quantity
from zctrace.probes.user_functions import USER_COPIES
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


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"byts": 7}, "Count has no byts"),
        ({"quantity": "copied"}, "Count.quantity: 'copied' is not a valid Quantity"),
        ({"bytes": "7"}, "Count.bytes: '7' is no int"),
        ({"bytes": None}, "Count.bytes: None is no int"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(changed, said):
    assert json_form.read(Count, COUNT).bytes == 7
    with pytest.raises(UsageError) as refused:
        json_form.read(Count, {**COUNT, **changed})
    assert refused.value.what == f"evidence that cannot be read: {said}"


def test_a_member_without_a_default_has_to_be_there():
    values = {name: value for name, value in COUNT.items() if name not in ("bytes", "role")}
    with pytest.raises(UsageError, match="Count lacks bytes, role"):
        json_form.read(Count, values)


def test_of_a_saved_file_it_is_said_which(tmp_path):
    values = recorded_evidence("6.1").to_json()
    values["runs"][0]["counts"][0]["quantity"] = "copied"
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"evidence": [values]}))
    with pytest.raises(UsageError) as refused:
        saved.read(path)
    assert refused.value.what.startswith(f"{path}: evidence that cannot be read: Count.")
    assert refused.value.why


def modules():
    for folder in ("tracer", "workloads", "probes"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path != ROOT / "probes" / "model.py":
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
        *(copy.function for copy in USER_COPIES),
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


def test_what_no_kernel_gives_account_of_is_refused():
    values = recorded_evidence("6.1").to_json()
    values["runs"][0]["account"] = {"resident_byte": 0}
    with pytest.raises(UsageError, match=r"Run\.account: .* no account of resident_byte$"):
        Evidence.from_json(values)


def test_every_role_has_a_name_and_watched_ones_another():
    names = {role_name(role) for role in Role}
    outside = {role_name(role | OUTSIDE) for role in WATCHED}
    assert {name.outside for name in map(role_name, WATCHED)} == outside
    tapped = {role_name(role | TAPPED) for role in WATCHED}
    assert {name.tapped for name in map(role_name, WATCHED)} == tapped
    assert names | outside | tapped | {RoleName.EVERYBODY} == set(RoleName)
