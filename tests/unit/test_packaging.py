"""What is installed: an sdist and a wheel of it, built once, beside pytest and nothing else."""

import email
import fcntl
import importlib.metadata
import os
import re
import shutil
import site
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from release.__main__ import PLACES
from tests.conftest import HERE, or_skip
from tests.unit.collectors import collecting
from tests.unit.test_sessions import recorded
from zctrace import _version
from zctrace.evidence import session_protocol

ROOT = HERE.parent
PACKAGES = {"tracer": "zctrace", "probes": "zctrace/probes", "workloads": "zctrace/workloads"}
"""Folders, and where they are in a wheel."""
NOT_OURS = (".git", ".venv", "build", "dist", ".*cache", "__pycache__", "*.egg-info")
VERSION = "0.1.0.dev5+gabcdef1"
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
    """An sdist of a copy, and a wheel of that: building leaves files in the project."""
    project = folder / "project"
    shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(*NOT_OURS))
    (project / "tracer" / _version.FILE).write_text(f"{VERSION}\n")
    said = _built(project, "sdist")
    (sdist,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(sdist, folder)
    said += _built(folder / f"zctrace-{VERSION}", "wheel")
    (folder / "said").write_text(said)


def _built(project, kind):
    """Put into the folder above; returns what was said."""
    return subprocess.run(
        [sys.executable, "-c", f"from setuptools import build_meta as b; b.build_{kind}('..')"],
        cwd=project,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},  # of which setuptools warns
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
    ).stdout


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
def sdist(wheel):
    (built,) = wheel.parent.glob("*.tar.gz")
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


def test_the_sdist_has_what_git_tracks(sdist):
    if not (ROOT / ".git").exists():
        or_skip("this is no copy of the repository: nothing tells what belongs to it")
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", ROOT, "ls-files", "-z"],
        check=True,
        capture_output=True,
        text=True,
    )
    tracked = {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert len(tracked) > 400
    assert tracked - names == set()


def test_building_warns_of_nothing(wheel):
    said = (wheel.parent / "said").read_text()
    assert "running sdist" in said
    assert "running bdist_wheel" in said
    assert re.findall(r"(?im)^.*(?:warning|deprecat).*$", said) == []


def test_the_wheel_has_every_file_and_one_package(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    described, shared = sorted({name.split("/")[0] for name in names} - {"zctrace"})[::-1]
    assert described.endswith(".dist-info")
    assert shared.endswith(".data")
    of_the_package = {name for name in names if name.startswith("zctrace/")}
    assert of_the_package == sources().keys() | {f"zctrace/{_version.FILE}"}
    suffixes = {Path(name).suffix for name in names}
    assert suffixes >= {".c", ".h", ".java", ".xml", ".html", ".css", ".py"}


def test_the_wheel_has_the_man_page_and_the_completions(wheel):
    with zipfile.ZipFile(wheel) as archive:
        shared = {
            name.partition(".data/data/share/")[2]: archive.read(name).decode()
            for name in archive.namelist()
            if ".data/data/share/" in name
        }
    assert shared.keys() == PLACES.keys()
    assert f'"zctrace {VERSION}"' in shared["man/man1/zctrace.1"]


def test_both_say_of_which_commit_they_are(sdist, wheel, environment):
    with tarfile.open(sdist) as archive:
        inside = archive.extractfile(f"zctrace-{VERSION}/tracer/{_version.FILE}")
        assert inside.read().decode() == f"{VERSION}\n"
    assert wheel.name.startswith(f"zctrace-{VERSION}-")
    result = subprocess.run(
        [sys.executable, "-S", "-c", "import zctrace; print(zctrace.__version__)"],
        env={"PYTHONPATH": str(environment), "PYTHONDONTWRITEBYTECODE": "1", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert result.stdout == f"{VERSION}\n", result.stderr


def test_the_description_is_complete(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("/METADATA"))
        about = email.message_from_bytes(archive.read(name))
        assert any(n.endswith("/licenses/LICENSE") for n in archive.namelist())
    assert about["License-Expression"] == "GPL-2.0-or-later"
    assert about["Description-Content-Type"] == "text/markdown"
    assert about["Summary"]
    assert about["Keywords"]
    classifiers = about.get_all("Classifier")
    assert "Operating System :: POSIX :: Linux" in classifiers
    least = about["Requires-Python"].removeprefix(">=")
    assert f"Programming Language :: Python :: {least}" in classifiers


def test_it_brings_a_command_and_a_plugin(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("/entry_points.txt"))
        points = archive.read(name).decode()
    assert "[console_scripts]\nzctrace = zctrace.__main__:main\n" in points
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


def _packages(text):
    return set(re.findall(r"[a-z][a-z0-9.+-]+", re.sub(r"\(.*?\)|\$\{.*?\}|:any", "", text)))


def _assigned(name):
    found = re.search(rf"^{name} := (.*?[^\\])$", (ROOT / "Makefile").read_text(), re.M | re.S)
    return set(found[1].replace("\\\n", " ").split())


def test_the_debian_package_brings_what_make_run_installs():
    control = (ROOT / "debian" / "control").read_text()
    depends, recommends = (
        _packages(re.search(rf"^{name}:(.*?)^\S", control, re.M | re.S)[1])
        for name in ("Depends", "Recommends")
    )
    assert _assigned("PACKAGES") - {"python3-venv"} <= depends | recommends
    # Python's own dependencies, one by one, but for what the package has for itself.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.match(r"[\w-]+", one)[0] for one in project["dependencies"]}
    assert {f"python3-{name}" for name in names - {"msgspec", "typer"}} <= depends
    vendored = (ROOT / "debian" / "vendored.txt").read_text()
    assert re.findall(r"^([\w-]+)==", vendored, re.M) == ["annotated-doc", "msgspec", "typer"]
    assert recommends <= _packages((ROOT / "Containerfile").read_text())


def test_make_installs_the_same_man_page_and_completions():
    assert _assigned("SHARED") == PLACES.keys()


@pytest.fixture
def home(tmp_path):
    """Whoever imports from there says so."""
    place = site.getusersitepackages().replace(str(Path.home()), str(tmp_path))
    Path(place).mkdir(parents=True)
    (Path(place) / "evil.pth").write_text("import sys; print('imported')\n")
    return tmp_path


@pytest.mark.parametrize("way", ["package", "make"])
def test_root_imports_nothing_from_the_home_of_whoever_called_sudo(way, home, tmp_path):
    script = tmp_path / "zctrace"
    if way == "package":
        shutil.copy(ROOT / "debian" / "zctrace.py", script)
    else:
        # As pip writes it, and as make changes that.
        script.write_text("#!/usr/bin/python3\nprint('started')\n")
        edit = _made("ISOLATED")
        subprocess.run(["sed", "-i", edit, script], check=True)
    script.chmod(0o755)
    environment = {"PATH": os.defpath, "HOME": str(home), "PYTHONPATH": str(home)}
    said = subprocess.run([script], env=environment, capture_output=True, text=True).stdout
    assert "imported" not in said
    if way == "make":
        assert said == "started\n"
        script.write_text("#!/bin/sh\necho started\n")
        subprocess.run(["sed", "-i", edit, script], check=True)
        assert script.read_text() == "#!/bin/sh\necho started\n"


def _made(name):
    """A variable as make has it for the shell, and the shell for a command."""
    show = f"include {ROOT / 'Makefile'}\nshow:\n\t@printf %s $({name})\n"
    command = ["make", "-s", "-f", "-", "show"]
    return subprocess.check_output(command, input=show, cwd=ROOT, text=True)
