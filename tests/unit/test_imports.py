"""Imports point one way."""

import ast
import functools
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for package in ("probes", "workloads", "tracer")
    for path in (ROOT / package).rglob("*.py")
}
COLLECTING = {
    "tracer.attach", "tracer.bpf", "tracer.btf", "tracer.call_sites", "tracer.collector",
    "tracer.disk", "tracer.instrument",
    "tracer.errors", "tracer.flows", "tracer.stacks", "tracer.phases", "tracer.wiring",
    "tracer.evidence", "tracer.isolated", "tracer.kernel", "tracer.kernel_text",
    "tracer.mappings",
    "tracer.payload", "tracer.perf", "tracer.plan", "tracer.protocol", "tracer.serving",
    "tracer.session", "tracer.target", "tracer.termination", "tracer.tracing",
    "tracer.user_memory",
}  # fmt: skip


@functools.cache
def parsed(path):
    return ast.parse(path.read_text())


@functools.cache
def imports(path, *, top_level_only=False):
    tree = parsed(path)
    names = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def roots(path):
    return {name.split(".")[0] for name in imports(path)}


def importers(package):
    return {name for name, path in MODULES.items() if package in roots(path)}


@pytest.mark.parametrize("name", [n for n in MODULES if n.startswith(("probes", "workloads"))])
def test_probes_and_workloads_use_only_the_standard_library(name):
    allowed = set(sys.stdlib_module_names) | {"probes", "workloads", "__future__"}
    assert roots(MODULES[name]) <= allowed


def test_probes_do_not_know_workloads():
    for name, path in MODULES.items():
        if name.startswith("probes"):
            assert "workloads" not in roots(path)


@pytest.mark.parametrize(
    ("package", "module"),
    [
        ("bcc", "tracer.attach"),
        ("typer", "tracer.cli"),
        ("capstone", "tracer.kernel_text"),
        ("jinja2", "tracer.reports.html"),
        ("matplotlib", "tracer.reports.canvas"),
        ("pytest", "tracer.pytest_plugin"),
    ],
)
def test_one_importer_each(package, module):
    assert importers(package) == {module}


def test_pandas_stays_in_the_summary():
    assert importers("pandas") == {"tracer.summary"}


def test_nobody_imports_the_command_line():
    users = {n for n, p in MODULES.items() if "tracer.cli" in imports(p)}
    assert users <= {"tracer.__main__"}


def test_collecting_needs_nothing_but_bcc_and_a_disassembler():
    allowed = set(sys.stdlib_module_names) | {
        "probes", "workloads", "tracer", "bcc", "capstone", "__future__",
    }  # fmt: skip
    for name in COLLECTING:
        path = MODULES[name]
        assert roots(path) <= allowed, name
        own = {i for i in imports(path) if i in MODULES and i.startswith("tracer.")}
        assert own <= COLLECTING, f"{name} imports the analysing half: {own - COLLECTING}"


def test_the_disassembler_is_imported_late():
    assert "capstone" not in imports(MODULES["tracer.kernel_text"], top_level_only=True)


DRAWING = {
    f"tracer.reports.{name}" for name in ("canvas", "chart", "drawing", "html", "svg", "tables")
}
"""Modules that the page alone needs."""


def test_what_draws_is_imported_late():
    """Matplotlib takes a second, and only a page needs it."""
    for name, path in MODULES.items():
        if name not in DRAWING:
            assert not DRAWING & imports(path, top_level_only=True), name


def test_ways_are_values():
    """What is drawn is decided without a drawing."""
    assert roots(MODULES["tracer.reports.ways"]) <= {
        "__future__", "collections", "dataclasses", "enum", "probes", "tracer", "workloads",
    }  # fmt: skip


def test_planning_is_pure():
    path = MODULES["tracer.plan"]
    assert roots(path) <= {
        "__future__", "collections", "dataclasses", "enum", "probes", "tracer",
    }  # fmt: skip


def test_only_the_command_line_exits():
    for name, path in MODULES.items():
        if name in ("tracer.attending", "tracer.cli", "tracer.collector",
                    "workloads.__main__", "workloads.launch"):  # fmt: skip
            continue
        calls = [
            node
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("sys.exit", "exit")
        ]
        assert not calls, name
