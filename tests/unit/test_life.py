"""A step may take any time as long as it shows a sign of life."""

import json
import subprocess
import sys
import threading

import pytest

from zctrace.collect import life
from zctrace.collect.describe import SERVING, TRACING
from zctrace.collect.life import LEAST_BYTES, Life
from zctrace.errors import MachineError
from zctrace.machine import progress as machine_progress
from zctrace.machine.progress import Progress

LIMIT = machine_progress._STEP_SECONDS


class Guest:
    """A guest that writes lines, and its answer, at given seconds. No second passes."""

    def __init__(self, folder, lines, answers_at=float("inf")):
        self.now = 0.0
        self._lines, self._answers_at = dict(lines), answers_at
        self.said, self.shown = [], []
        self.progress = Progress(
            folder / "progress",
            folder / "answer",
            self.said.append,
            0,
            endless=TRACING,
            show=self.shown.append,
            clock=lambda: self.now,
            sleep=self._sleep,
        )
        self._folder = folder

    def poll(self):
        """As that of a process that runs."""

    def _sleep(self, seconds):
        self.now += max(seconds, 1.0)
        for at in [at for at in self._lines if at <= self.now]:
            with self.progress.file.open("a") as file:
                file.write(json.dumps(self._lines.pop(at)) + "\n")
        if self.now >= self._answers_at:
            self.progress.answer.write_text("{}")

    def wait(self):
        self.progress.wait(self, self._folder / "console", self._folder / "log")


def test_a_step_that_shows_life_may_take_many_times_its_limit(tmp_path):
    step, alive = {0: {"step": "compiling the probes"}}, {"alive": True}
    signs = dict.fromkeys(range(100, 3700, 100), alive)
    guest = Guest(tmp_path, {**step, **signs}, answers_at=3700)
    guest.wait()
    assert guest.now >= 3700
    # A sign is for nobody to see.
    assert guest.said == ["compiling the probes"]
    assert guest.shown == []


def test_a_step_that_shows_none_ends_at_its_limit(tmp_path):
    guest = Guest(tmp_path, {0: {"step": "running sendfile"}})
    with pytest.raises(MachineError, match=f"{LIMIT:.0f} s at: running sendfile"):
        guest.wait()
    assert LIMIT < guest.now < LIMIT + 5


def test_the_limit_counts_from_the_last_sign(tmp_path):
    guest = Guest(tmp_path, {0: {"step": "attaching"}, 170: {"alive": True}})
    with pytest.raises(MachineError, match="at: attaching"):
        guest.wait()
    assert 170 + LIMIT < guest.now < 170 + LIMIT + 5


def test_a_program_may_be_traced_for_any_time(tmp_path):
    guest = Guest(tmp_path, {0: {"step": TRACING}}, answers_at=100_000)
    guest.wait()


def test_what_is_done_little_by_little_is_a_sign_in_the_end():
    done = {"a": 0}
    seen = Life(lambda: dict(done))
    assert not seen.shown()
    done["a"] += LEAST_BYTES // 2
    assert not seen.shown()
    done["a"] += LEAST_BYTES // 2
    assert seen.shown()
    assert not seen.shown()


def test_what_a_process_does_that_is_gone_by_the_next_look_takes_nothing_back():
    done = {"a": 10 * LEAST_BYTES}
    seen = Life(lambda: dict(done))
    del done["a"]
    assert not seen.shown()
    done["b"] = LEAST_BYTES
    assert seen.shown()


CHILD = """
import os, sys
null, zero = open("/dev/null", "wb", 0), bytes(1 << 20)
def memory(): return bytearray(1 << 22)
def bytes_(): null.write(zero)
def processor():
    for _ in range(1000000): pass
kept = []
for line in sys.stdin:
    kept.append(globals()[line.strip()]())
    print(flush=True)
"""


@pytest.mark.parametrize(
    ("what", "is_sign"), [("memory", True), ("bytes_", True), ("processor", False)]
)
def test_of_another_process_memory_and_bytes_are_signs_and_time_is_none(what, is_sign):
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def have(word):
            process.stdin.write(word + "\n")
            process.stdin.flush()
            process.stdout.readline()

        def of_it():
            names = (f"memory of {process.pid}", f"bytes of {process.pid}")
            found = life.done()
            return {name: found[name] for name in names}

        have("processor")
        seen = Life(of_it)
        have(what)
        assert seen.shown() is is_sign
        process.stdin.close()


def test_each_descriptor_counts(tmp_path):
    before = life.done()["descriptors"]
    files = [(tmp_path / str(number)).open("w") for number in range(16)]
    assert life.done()["descriptors"] - before >= LEAST_BYTES
    for file in files:
        file.close()


def test_nothing_is_looked_at_while_a_program_is_traced(monkeypatch):
    looks, told = [], threading.Semaphore(0)
    looked = threading.Semaphore(0)

    def done():
        looks.append(1)
        looked.release()
        return {"a": len(looks) * LEAST_BYTES}

    monkeypatch.setattr(life, "done", done)
    monkeypatch.setattr(life, "PERIOD_SECONDS", 0.001)
    with life.watched(told.release) as step:
        assert looked.acquire(timeout=10)  # the first, to compare with
        step("attaching the probes")
        assert told.acquire(timeout=10)
        for endless in (TRACING, SERVING, "running splice", "running the self-tests again"):
            step(endless)
            # One look may be under way.
            while looked.acquire(timeout=0.05):
                pass
            before = len(looks)
            assert not looked.acquire(timeout=0.05)
            assert len(looks) == before
        while told.acquire(blocking=False):
            pass
        step("adding up")
        assert told.acquire(timeout=10)
