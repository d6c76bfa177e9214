"""Real kernels, booted for the tests."""

import csv
import functools
import json
import os
import secrets
import shutil
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import LIVE_KERNELS
from tests.live.suites import PROCESSORS
from zctrace.analysis import program
from zctrace.collect.describe import MEMORY
from zctrace.evidence.schema import Evidence
from zctrace.machine import images as machine_images
from zctrace.machine import kernels, observations, qemu, staging
from zctrace.machine import kvm as machine_kvm
from zctrace.machine import progress as machine_progress
from zctrace.machine.guardian import guarded
from zctrace.workloads.jvm import java

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


@pytest.fixture(params=LIVE_KERNELS, scope="session")
def kernel(request, live):
    """A kernel line, fetched if it is not at hand."""
    kernels.resolve(request.param, print)
    return request.param


def zctrace(*arguments, seconds=900, altered=None, **options):
    """Run the command line to its end; guests are as :mod:`altered` has them by that name."""
    module = ("tests.live.altered", altered) if altered else ("zctrace",)
    return subprocess.run(
        [sys.executable, "-m", *module, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        **options,
    )


@contextmanager
def on_one_processor():
    """Several kernels are measured one at a time then: another worker has a guest, too."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(everywhere)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, everywhere)


@pytest.fixture(scope="session")
def measure(tmp_path_factory):
    """``zctrace run`` on a kernel; a value with the result in every form."""

    def measured(line, *arguments, status=0, seconds=900, processors=PROCESSORS):
        folder = tmp_path_factory.mktemp("run")
        files = {form: folder / form for form in ("csv", "json", "evidence")}
        outputs = [text for form, path in files.items() for text in (f"--{form}", path)]
        result = zctrace(
            *("run", "--kernel", line, "--cpus", processors, *outputs, *arguments),
            seconds=seconds,
        )
        assert result.returncode == status, result.stderr
        return SimpleNamespace(
            stdout=result.stdout,
            stderr=result.stderr,
            rows=list(csv.DictReader(files["csv"].open())),
            evidence=list(csv.DictReader(files["evidence"].open())),
            json=json.loads(files["json"].read_text()),
        )

    return measured


def unpack(folder, *packages):
    """Debian packages, and the libraries they need that are not here, in ``folder``.

    Unpacked alone: installed, servers among them would be started. Returns their root.
    """

    def apt(*words):
        return subprocess.run(["apt-get", "-qq", *words], cwd=folder, capture_output=True)

    def is_here(package):
        status = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
        return subprocess.run(status, capture_output=True).stdout == b"installed"

    wanted = list(packages)
    for package in wanted:
        if apt("download", package).returncode:
            apt("update")
            apt("download", package).check_returncode()
        (file,) = folder.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", file, folder / "packages"], check=True)
        needs = subprocess.run(
            ["dpkg-deb", "-f", file, "Depends"], capture_output=True, text=True, check=True
        ).stdout
        for name in (need.split()[0] for need in needs.split(",") if need.strip()):
            if name.startswith("lib") and name not in wanted and not is_here(name):
                wanted.append(name)
    return folder / "packages"


@pytest.fixture(scope="session")
def unpacked(live, tmp_path_factory):
    """What unpacks Debian packages: :func:`unpack`, each time into a folder of its own."""
    return lambda *packages: unpack(tmp_path_factory.mktemp("debs"), *packages)


def run_in_guest(
    line,
    script,
    *arguments,
    file_systems=(),
    boot_options=(),
    folders=(),
    modules=(),
    room_bytes=1 << 20,
    processors=1,
    show=lambda line: None,
):
    """Run one of the scripts beside this file as root in a guest; returns its answer.

    The script gets a copy of the project that everybody can read, and a tar of it, since a
    guest takes long for each file that it reads from here; the files to write its answer and
    its progress to, and further arguments; ``file_systems``, with room for files
    of ``room_bytes``, are on its disks, and copies of ``folders`` and of ``modules``, which
    are files, beside the script. ``show`` gets lines of its progress that are no steps.
    """
    with guarded(f"test-{secrets.token_hex(4)}") as run_folder:
        code = staging.stage(run_folder.path)
        for path in [*HERE.glob("*.py"), *modules]:
            (code / path.name).write_text(path.read_text())
        for folder in folders:
            shutil.copytree(folder, code / folder.name, symlinks=True)
        with tarfile.open(run_folder.path / f"{code.name}.tar", "w") as whole:
            whole.add(code, code.name)
        run_folder.path.chmod(0o755)
        found = kernels.resolve(line, print)
        kvm = machine_kvm.kvm_works(found, run_folder, print)
        images = {kind: run_folder.path / f"disk.{kind}" for kind in file_systems}
        for kind, image in images.items():
            machine_images.make_image(image, kind, room_bytes)
        disks = tuple(images.values())
        guest = qemu.Guest(
            *(found, kvm, 3 << 30, run_folder.path, disks, boot_options), processors=processors
        )
        answer, steps = run_folder.path / "answer", run_folder.path / "steps"
        progress = machine_progress.Progress(steps, answer, print, 0, show=show)
        command = [qemu.PYTHON, "-I", str(code / script), str(code), str(answer), str(steps)]
        memory = run_folder.path / MEMORY
        observations.lend(found, memory)
        qemu.run(guest, [*command, *map(str, arguments)], run_folder, progress)
        observations.take_back(found, memory)
        return json.loads(answer.read_text())


@pytest.fixture(scope="session")
def in_guest():
    """What runs a script in a guest: :func:`run_in_guest`."""
    return run_in_guest


PROGRAMS = ("nginx", "haproxy", "pv", "socat", "openssl", "fio", "systemd")
"""Debian packages, for tracing_guest's suites."""
SUITES = {
    "6.1": ("programs", "i386", "more_programs", "calls", "little_room"),
    "7.3": ("programs", "i386"),
}
"""By kernel: what is one kernel's own is tried on each, the rest on one."""


@pytest.fixture(scope="session")
def packages(unpacked):
    """Those programs, a certificate that is its own authority, and Java's classes."""
    folder = unpacked(*PROGRAMS)
    java.compile_into(folder / "classes", java.find(), [HERE / "Relay.java"], [])
    subprocess.run(
        [
            *(folder / "usr/bin/openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes"),
            *("-subj", "/CN=localhost", "-days", "2"),
            *("-keyout", folder / "key", "-out", folder / "certificate"),
        ],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="session")
def traced_on(in_guest, packages):
    """By kernel: what became of the programs of its suites, or others; and what was found."""

    @functools.cache
    def traced_programs(line, suites=None, processors=1):
        result = in_guest(
            line,
            "tracing_guest.py",
            *(suites or SUITES[line]),
            file_systems=("ext4", "xfs"),
            folders=(packages,),
            room_bytes=64 << 20,
            processors=processors,
        )
        assert result["failures"] == {}
        answers = {
            name: program.answer(Evidence.from_json(evidence))
            for name, evidence in result["evidence"].items()
        }
        return SimpleNamespace(answers=answers, found=result["found"])

    return traced_programs
