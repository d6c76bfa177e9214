"""Imports point one way.

The walls between the rooms are contracts in pyproject.toml, which import-linter holds. What it
cannot say is here: who may use which package from outside, and when it is imported.
"""

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

import zctrace
from tests.links import link

ROOT = Path(__file__).parents[2]
FOLDERS = {"tracer": "zctrace", "probes": "zctrace.probes", "workloads": "zctrace.workloads"}
MODULES = {
    ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts]): path
    for folder, package in FOLDERS.items()
    for path in (ROOT / folder).rglob("*.py")
}
COLLECTING = ("collect", "evidence", "kernel", "plan", "probes", "session", "workloads")
MOST_FILES, MOST_LINES = 12, 400


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


def test_the_walls_between_the_rooms_hold():
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [linter, "--no-cache"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(link())},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", [n for n in MODULES if n.split(".")[1] in COLLECTING])
def test_next_to_the_kernel_the_standard_library_is_enough(name):
    """Beside BCC and a disassembler, which come with the distribution, in one module each."""
    allowed = set(sys.stdlib_module_names) | {"zctrace", "bcc", "capstone", "elftools"}
    assert roots(MODULES[name]) <= allowed


@pytest.mark.parametrize(
    ("package", "modules"),
    [
        ("bcc", {"zctrace.collect.compiler", "zctrace.collect.names"}),
        ("capstone", {"zctrace.kernel.text"}),
        ("elftools", {"zctrace.collect.elf_files"}),
        ("jinja2", {"zctrace.reports.html.rendering"}),
        ("pytest", {"zctrace.pytest_plugin"}),
        ("pandas", {"zctrace.analysis.frames", "zctrace.analysis.comparison.pairing"}),
    ],
)
def test_few_importers_each(package, modules):
    assert importers(package) == modules


def test_the_command_line_is_in_the_commands():
    users = importers("typer") | importers("rich")
    assert {n for n in users if n.split(".")[1] not in ("cli", "commands", "reports")} == set()


def test_the_disassembler_is_imported_late():
    assert "capstone" not in imports(MODULES["zctrace.kernel.text"], top_level_only=True)


def test_bcc_is_imported_late():
    """It takes more memory than all the rest, and most collectors need nothing of it."""
    for name, path in MODULES.items():
        late = imports(path, top_level_only=True) & {"zctrace.collect.names"}
        assert not late, name
    assert "bcc" not in imports(MODULES["zctrace.collect.compiler"], top_level_only=True)


def test_what_draws_is_imported_late():
    """Only a page needs it."""
    for name, path in MODULES.items():
        if not name.startswith("zctrace.reports.html."):
            late = {i for i in imports(path, top_level_only=True) if "reports.html" in i}
            assert not late, name


@pytest.mark.parametrize("name", ["zctrace.reports.data_path", "zctrace.plan.plan"])
def test_what_is_decided_without_input_or_output_is_pure(name):
    assert roots(MODULES[name]) <= {
        "__future__", "collections", "dataclasses", "enum", "zctrace",
    }  # fmt: skip


ENDS = {
    "zctrace.cli", "zctrace.collect.compiler", "zctrace.collect.main",
    "zctrace.machine.session_collector",
    "zctrace.workloads.__main__", "zctrace.workloads.launch",
}  # fmt: skip
"""Modules that are run."""


@pytest.mark.parametrize("name", sorted(MODULES.keys() - ENDS))
def test_only_what_is_run_exits(name):
    calls = [
        node
        for node in ast.walk(parsed(MODULES[name]))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("sys.exit", "exit")
    ]
    assert not calls


def test_the_first_level_has_few_files():
    assert len(list((ROOT / "tracer").glob("*.py"))) <= MOST_FILES


def test_pandas_is_imported_only_where_there_are_frames():
    """It takes as long as the rest of a command: a report is shown without."""
    code = """
import sys, zctrace.cli
try:
    zctrace.cli.app(["report", sys.argv[1]], standalone_mode=False)
finally:
    assert "zctrace.analysis.runs" in sys.modules
    assert "pandas" not in sys.modules
    assert zctrace.load and "pandas" in sys.modules
"""
    file = ROOT / "tests/evidence/java-25-6.1.json"
    result = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "java-" in result.stdout


def test_everything_that_is_promised_can_be_imported():
    names = {}
    exec("from zctrace import *", names)
    assert names.keys() - {"__builtins__"} == set(zctrace.__all__)
    assert names["__version__"] == zctrace._version.version()


def test_no_module_is_long():
    long = {
        name: n for name, p in MODULES.items() if (n := p.read_text().count("\n")) > MOST_LINES
    }
    assert long == {}
