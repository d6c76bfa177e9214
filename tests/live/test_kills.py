"""A run that is killed, in any phase and by any signal, leaves nothing behind.

On one kernel, or on two at once: how a run ends does not depend on the kernel in its guest.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.live import traces
from tests.live.conftest import ROOT
from zctrace import errors
from zctrace.machine import kernels

STATUS = {
    signal.SIGINT: errors.INTERRUPTED,
    signal.SIGTERM: errors.TERMINATED,
    signal.SIGHUP: errors.HUNG_UP,
    signal.SIGKILL: -signal.SIGKILL,
}
ONE, TWO = ("6.1",), ("6.1", "7.3")


def interruptible():
    """A shell that starts the tests in the background has them ignore some signals."""
    for number in STATUS:
        if number is not signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)


class Run:
    """``zctrace run`` on some kernels, with a folder for its temporary files alone."""

    def __init__(self, temporary, lines, *arguments):
        self._temporary = temporary
        chosen = [text for line in lines for text in ("--kernel", str(line))]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "zctrace", "run", *chosen, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(self._temporary)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=interruptible,
        )
        self._said = []
        self._ids = []

    def wait_for(self, phase, times=1):
        """Until the lines of its progress have told of it so often."""
        while sum(phase in line for line in self._said) < times:
            line = self.process.stderr.readline()
            assert line, f"it ended before {phase}: {self._said}"
            self._said.append(line)
        self._ids = [
            path.name.removeprefix("zctrace-") for path in self._temporary.glob("zctrace-*")
        ]
        assert len(self._ids) == times
        assert self.there()["processes"]

    def emulators(self):
        """The numbers of its QEMU processes, by their run's id."""
        found = {}
        for run_id in self._ids:
            marked = traces.processes(marks=[f"ZCTRACE_RUN={run_id}\0"])
            (found[run_id],) = [
                pid for pid, words in marked.items() if "qemu-system" in words.partition(" ")[0]
            ]
        return found

    def there(self):
        return traces.of_run(self._temporary, self._ids)

    def ended(self):
        """The status, and all that it has said on stderr."""
        _, rest = self.process.communicate(timeout=60)
        return self.process.returncode, "".join(self._said) + rest

    def left(self, seconds=15.0):
        """What is there of it once the guardian is done, or after ``seconds``."""
        deadline = time.monotonic() + seconds
        while (there := self.there()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return there


@pytest.fixture
def begun(live):
    """What begins a run, which is no more there after the test, whatever becomes of it.

    Its temporary folder is one that everybody can look into, as the strategies must.
    """
    runs = []
    temporary = Path(tempfile.mkdtemp(prefix="killed-"))
    temporary.chmod(0o755)

    def begin(lines, *arguments):
        if len(lines) > len(os.sched_getaffinity(0)):
            pytest.skip("two kernels at once need two processors")
        for line in lines:
            kernels.resolve(str(line), print)
        runs.append(Run(temporary, lines, *arguments))
        return runs[-1]

    yield begin
    for run in runs:
        run.process.kill()
        run.process.wait()
        run.process.stderr.close()
    shutil.rmtree(temporary)


@pytest.mark.parametrize(
    ("lines", "phase", "number"),
    [
        (TWO, "booting", signal.SIGKILL),
        (TWO, "booting", signal.SIGINT),
        (ONE, "compiling the probes", signal.SIGTERM),
        (ONE, "collector started", signal.SIGHUP),
        (ONE, "running", signal.SIGKILL),
        (ONE, "running", signal.SIGINT),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else str(value),
)
def test_killed(begun, tmp_path, lines, phase, number):
    csv = tmp_path / "out.csv"
    run = begun(lines, "--csv", csv, "--repeat", "200")
    run.wait_for(phase, len(lines))
    run.process.send_signal(number)
    status, complaint = run.ended()
    assert status == STATUS[number]
    assert "Traceback" not in complaint
    assert not csv.exists()
    assert run.left() == {}


def test_a_guest_that_dies_halfway(begun):
    """Somebody else kills one emulator while it works: the other kernel's run ends, too."""
    run = begun(TWO)
    run.wait_for("collector started", len(TWO))
    died, *_ = run.emulators().values()
    os.kill(died, signal.SIGKILL)
    status, complaint = run.ended()
    assert status == errors.MachineError.exit_code
    assert "the collector died at:" in complaint
    assert complaint.count("ended, because another kernel failed") == 1
    assert "Traceback" not in complaint
    assert run.left() == {}


def test_an_image_that_does_not_boot(begun, tmp_path):
    """It has the signature of a kernel and nothing behind it."""
    image = tmp_path / "vmlinuz-broken"
    image.write_bytes(b"\0" * 0x1F1 + b"\x04" + b"\0" * 0x10 + b"HdrS" + b"\0" * 100_000)
    run = begun([image], "--boot-timeout", "5")
    run.wait_for("booting")
    status, complaint = run.ended()
    assert status == errors.MachineError.exit_code
    assert "no progress for 5 s at: boot" in complaint or "did not boot" in complaint
    assert run.left() == {}
