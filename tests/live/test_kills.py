"""A run that is killed, in any phase and by any signal, leaves nothing behind."""

import signal
import subprocess
import sys
import time

import pytest

from tests.live import traces
from tests.live.conftest import ROOT
from zctrace import errors
from zctrace.machine import kernels

STATUS = {
    signal.SIGINT: errors.INTERRUPTED,
    signal.SIGTERM: errors.TERMINATED,
    signal.SIGKILL: -signal.SIGKILL,
}


@pytest.fixture(scope="module")
def stock(live):
    return kernels.resolve("6.1", print).release


def interruptible():
    """A shell that starts the tests in the background has them ignore interrupts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def settled(before, seconds=15.0):
    """The machine as it is once the guardian is done, or after ``seconds``."""
    deadline = time.monotonic() + seconds
    while (after := traces.snapshot()) != before and time.monotonic() < deadline:
        time.sleep(0.1)
    return after


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        ("booting", signal.SIGKILL),
        ("booting", signal.SIGINT),
        ("compiling the probes", signal.SIGTERM),
        ("running", signal.SIGKILL),
        ("running", signal.SIGINT),
    ],
    ids=str,
)
def test_killed(stock, tmp_path, phase, number):
    before = traces.snapshot()
    process = subprocess.Popen(
        [sys.executable, "-m", "zctrace", "run", "--kernel", stock,
         "--csv", str(tmp_path / "out.csv"), "--repeat", "200"],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=interruptible,
    )  # fmt: skip
    for line in process.stderr:
        if phase in line:
            break
    process.send_signal(number)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == STATUS[number]
    assert "Traceback" not in complaint
    assert list(tmp_path.iterdir()) == []
    assert settled(before) == before


def test_a_guest_that_dies_halfway(stock):
    """Somebody else kills the emulator while it works."""
    before = traces.snapshot()
    process = subprocess.Popen(
        [sys.executable, "-m", "zctrace", "run", "--kernel", stock],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stderr:
        if "collector started" in line:
            break
    found = subprocess.run(
        ["pgrep", "-f", f"qemu-system.*{stock}"], capture_output=True, text=True
    )
    for pid in found.stdout.split():
        subprocess.run(["kill", "-KILL", pid])
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == errors.MachineError.exit_code
    assert "the collector died at:" in complaint
    assert settled(before) == before


def test_an_image_that_does_not_boot(live, tmp_path):
    """It has the signature of a kernel and nothing behind it."""
    image = tmp_path / "vmlinuz-broken"
    image.write_bytes(b"\0" * 0x1F1 + b"\x04" + b"\0" * 0x10 + b"HdrS" + b"\0" * 100_000)
    before = traces.snapshot()
    result = subprocess.run(
        [sys.executable, "-m", "zctrace", "run", "--kernel", image, "--boot-timeout", "5"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == errors.MachineError.exit_code
    assert "no progress for 5 s at: boot" in result.stderr or "did not boot" in result.stderr
    assert settled(before) == before
