"""Real kernels, booted for the tests."""

import csv
import json
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import LIVE_KERNELS
from tracer import kernels, machine, stage, vm
from tracer.guardian import guarded

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


@pytest.fixture(params=LIVE_KERNELS, scope="session")
def kernel(request, live):
    """A kernel line, fetched if it is not at hand."""
    kernels.resolve(request.param, print)
    return request.param


def zctrace(*arguments, seconds=900, **options):
    """Run the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "tracer", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        **options,
    )


@pytest.fixture(scope="session")
def measure(tmp_path_factory):
    """``zctrace run`` on a kernel; a value with the result in every form."""

    def measured(line, *arguments, status=0, seconds=900):
        folder = tmp_path_factory.mktemp("run")
        files = {form: folder / form for form in ("csv", "json", "evidence")}
        outputs = [text for form, path in files.items() for text in (f"--{form}", path)]
        result = zctrace("run", "--kernel", line, *outputs, *arguments, seconds=seconds)
        assert result.returncode == status, result.stderr
        return SimpleNamespace(
            stdout=result.stdout,
            stderr=result.stderr,
            rows=list(csv.DictReader(files["csv"].open())),
            evidence=list(csv.DictReader(files["evidence"].open())),
            json=json.loads(files["json"].read_text()),
        )

    return measured


@pytest.fixture(scope="session")
def in_guest():
    """Run one of the scripts beside this file as root in a guest; returns its answer.

    The script gets a copy of the project that everybody can read, the files to write its
    answer and its progress to, and further arguments; ``file_systems`` are on its disks, and
    copies of ``programs`` beside the script.
    """

    def ran(line, script, *arguments, file_systems=(), boot_options=(), programs=()):
        with guarded(f"test-{secrets.token_hex(4)}") as run_folder:
            code = stage.stage(run_folder.path)
            for path in HERE.glob("*.py"):
                (code / path.name).write_text(path.read_text())
            for program in programs:
                shutil.copy(program, code)
            run_folder.path.chmod(0o755)
            found = kernels.resolve(line, print)
            kvm = vm.kvm_works(found, run_folder, print)
            images = {kind: run_folder.path / f"disk.{kind}" for kind in file_systems}
            for kind, image in images.items():
                machine.make_image(image, kind, 1 << 20)
            disks = tuple(images.values())
            guest = vm.Guest(found, kvm, 3 << 30, run_folder.path, disks, boot_options)
            answer, steps = run_folder.path / "answer", run_folder.path / "steps"
            progress = vm.Progress(steps, answer, print, 0)
            command = [vm.PYTHON, "-I", str(code / script), str(code), str(answer), str(steps)]
            vm.run(guest, [*command, *map(str, arguments)], run_folder, progress)
            return json.loads(answer.read_text())

    return ran
