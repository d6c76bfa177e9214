"""Signals that end a program: once, and by way of everything that cleans up."""

import signal
import subprocess
import sys
import time

import pytest

from zctrace import errors

WAITING = (
    "import signal, sys, time; from zctrace import errors\n"
    "errors.raise_terminated()\n"
    "try: print('ready', flush=True); time.sleep(60)\n"
    "except errors.Terminated as ended:\n"
    "    time.sleep(0.2)  # another signal is ignored\n"
    "    sys.exit(ended.status)\n"
)


def waiting(ignored=None):
    """A program that waits for such a signal; ``ignored`` is ignored when it starts."""

    def prepare():
        for number in (signal.SIGHUP, signal.SIGTERM):
            kept = signal.SIG_IGN if number == ignored else signal.SIG_DFL
            signal.signal(number, kept)

    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, preexec_fn=prepare
    )
    process.stdout.readline()
    return process


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, errors.TERMINATED), (signal.SIGHUP, errors.HUNG_UP)],
)
def test_a_signal_that_ends_is_an_exception_once(number, status):
    with waiting() as process:
        for one in (number, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(one)
            time.sleep(0.05)
        assert process.wait(20) == status


def test_who_was_started_by_nohup_outlives_the_terminal():
    with waiting(ignored=signal.SIGHUP) as process:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        assert process.poll() is None
        process.terminate()
        assert process.wait(20) == errors.TERMINATED
