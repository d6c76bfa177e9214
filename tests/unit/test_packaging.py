"""What is installed: a wheel, built once, beside pytest and nothing else."""

import fcntl
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import HERE, or_skip
from tests.unit.collectors import collecting
from tests.unit.test_sessions import recorded
from zctrace.evidence import session_protocol

ROOT = HERE.parent
PACKAGES = {"tracer": "zctrace", "probes": "zctrace/probes", "workloads": "zctrace/workloads"}
"""Folders, and where they are in a wheel."""
BESIDE = ("pyproject.toml", "README.md", "LICENSE")
SETUPTOOLS = 77
NOT_NEEDED = ("bcc", "jinja2", "msgspec", "pandas", "rich", "typer")
_SECONDS = 120

UNPRIVILEGED = "import os\nos.geteuid = lambda: 1000\n"
"""Whoever runs these may be root, with a kernel that can be probed."""
MEASURES = """
def test_copies(zctrace):
    with zctrace.window() as window:
        pass
    assert window.delivered_bytes > 16 << 20
    assert 1.99 < window.copies < 2.01
"""
LACKS = f"""
import importlib.util, pytest

@pytest.mark.parametrize("name", {NOT_NEEDED})
def test_lacks(name):
    assert importlib.util.find_spec(name) is None
"""
NAMESAKES = """
import pathlib
import probes.model, tracer.pytest_plugin, workloads.catalogue

def test_namesakes(zctrace):
    with zctrace.window():
        import probes.model, tracer.pytest_plugin, workloads.catalogue
    for module in (probes.model, tracer.pytest_plugin, workloads.catalogue):
        assert module.OWN == module.__name__
        assert pathlib.Path(module.__file__).is_relative_to(pathlib.Path(__file__).parent)
"""


def sources():
    """By its place in a wheel, every file of the package."""
    return {
        f"{name}/{path.relative_to(ROOT / folder)}": path
        for folder, name in PACKAGES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def build(folder):
    """A wheel, of a copy: building leaves files in the project, and takes in older ones."""
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / "project" / name, ignore=ignored)
    for name in BESIDE:
        shutil.copy(ROOT / name, folder / "project")
    pip("wheel", "--no-build-isolation", "-w", folder, folder / "project")


def pip(command, *arguments):
    options = ("--no-deps", "--no-index", "--disable-pip-version-check", "-q")
    subprocess.run(
        [sys.executable, "-m", "pip", command, *options, *arguments],
        check=True,
        timeout=_SECONDS,
    )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """Built once, also where several processes run tests."""
    if int(importlib.metadata.version("setuptools").split(".")[0]) < SETUPTOOLS:
        or_skip(f"building needs setuptools {SETUPTOOLS}: pip install -e '.[test]'")
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if parallel else base) / "wheel"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not [*folder.glob("*.whl")]:
            build(folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def environment(wheel, tmp_path_factory):
    """A folder with zctrace, installed without what it depends on, and pytest with that."""
    folder = tmp_path_factory.mktemp("environment")
    pip("install", "--no-compile", "--target", folder, wheel)
    for distribution in with_requirements("pytest"):
        for top in {Path(file).parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            (folder / top).symlink_to(distribution.locate_file(top))
    return folder


def with_requirements(name):
    """An installed distribution, and those that it requires here."""
    distribution = importlib.metadata.distribution(name)
    wanted = [r for r in distribution.requires or () if ";" not in r]
    names = [re.match(r"[\w.-]+", one)[0] for one in wanted]
    return [distribution, *(d for one in names for d in with_requirements(one))]


@pytest.fixture
def run(environment, tmp_path):
    """Run a project's tests with it, and with a collector if one is named."""
    project = tmp_path / "project"

    def ran(files, collector=None):
        for name, text in {"conftest.py": UNPRIVILEGED, **files}.items():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_text(text)
        return subprocess.run(
            # Without site-packages: what else is installed here is not found.
            [
                sys.executable,
                "-S",
                "-m",
                "pytest",
                "-rA",
                "--color=no",
                "-p",
                "no:cacheprovider",
            ],
            cwd=project,
            env={
                "PATH": str(project),  # where there is no sudo
                "PYTHONPATH": str(environment),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTEST_ADDOPTS": "-p no:cacheprovider",
                **({session_protocol.SOCKET: str(collector)} if collector else {}),
            },
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )

    return ran


def test_the_wheel_has_every_file_and_one_package(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    (described,) = {name.split("/")[0] for name in names} - {"zctrace"}
    assert described.endswith(".dist-info")
    assert {name for name in names if name.startswith("zctrace/")} == sources().keys()
    suffixes = {Path(name).suffix for name in names}
    assert suffixes >= {".c", ".h", ".java", ".xml", ".html", ".css", ".py"}


def test_it_brings_a_command_and_a_plugin(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("/entry_points.txt"))
        points = archive.read(name).decode()
    assert "[console_scripts]\nzctrace = zctrace.cli:main\n" in points
    assert "[pytest11]\nzctrace.pytest_plugin = zctrace.pytest_plugin\n" in points


def test_measuring_needs_the_standard_library_alone(run, tmp_path):
    with collecting(tmp_path / "s", recorded()) as collector:
        result = run({"test_it.py": MEASURES, "test_lacks.py": LACKS}, tmp_path / "s")
    assert f"{1 + len(NOT_NEEDED)} passed" in result.stdout, result.stdout + result.stderr
    assert len(collector.subjects) == 1


def test_where_nothing_can_collect_tests_are_skipped_and_say_why(run):
    result = run({"test_it.py": MEASURES})
    assert "1 skipped" in result.stdout, result.stdout + result.stderr
    text = " ".join(result.stdout.split())
    assert "zctrace: counting needs a collector that is root" in text
    assert result.returncode == 0


def test_a_project_keeps_packages_of_the_same_names_as_our_folders(run, tmp_path):
    """Its own are the ones that it gets, also in a window; and the plugin is loaded."""
    own = {
        f"{folder}/{name}.py": "OWN = __name__\n"
        for folder, name in [
            ("probes", "model"), ("tracer", "pytest_plugin"), ("workloads", "catalogue")
        ]
    }  # fmt: skip
    packages = {f"{folder}/__init__.py": "" for folder in PACKAGES}
    with collecting(tmp_path / "s", recorded()) as collector:
        result = run({**packages, **own, "test_it.py": NAMESAKES}, tmp_path / "s")
    assert "1 passed" in result.stdout, result.stdout + result.stderr
    assert len(collector.subjects) == 1
