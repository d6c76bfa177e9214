"""In a guest: ``zctrace`` as a command on the running kernel, and what it leaves behind."""

import contextlib
import os
import subprocess
import time
from pathlib import Path

import record
import traces

PYTHON, SITE, OUT = "/usr/bin/python3", Path("/run/site"), Path("/run/out")
SOURCE, COPY, SIZE = Path("/run/source"), Path("/run/copy"), 1_000_003
COPYING = ("dd", f"if={SOURCE}", f"of={COPY}", "bs=64k", "status=none")
COPIED = {"things": {str(SOURCE): {"k2u": SIZE}, str(COPY): {"u2k": SIZE}}}
_KPROBE_EVENTS = Path("/sys/kernel/tracing/kprobe_events")
_SETTLING_SECONDS, _MOST_SECONDS = 120.0, 600
STUCK = 124
"""As ``timeout`` ends."""
_COLLECTOR = "isolated.py zctrace.collect.main"
done = []
"""The tries, as ``judge`` takes them."""


def there():
    """What zctrace could leave behind, as comparable values."""
    return {
        **traces.snapshot(),
        "kprobe events": _KPROBE_EVENTS.read_text().splitlines(),
        "unfinished files": [str(path) for path in OUT.glob(".zctrace-*")],
    }


def _left(before):
    """The kernel frees programs when no processor can be in one any more: it takes a while."""
    deadline = time.monotonic() + _SETTLING_SECONDS
    while (now := there()) != before and time.monotonic() < deadline:
        time.sleep(0.2)
    return {key: [before[key], now[key]] for key in before if before[key] != now[key]}


class Command:
    """``zctrace`` at work; ``prefix`` is what runs it, ``environment`` is beside ours."""

    def __init__(self, *words, prefix=(), then=(), environment=(), result=None, **options):
        self.result, self._said = result or OUT / "result.json", OUT / "stderr"
        (OUT / "result.json").unlink(missing_ok=True)
        self._before = there()
        command = [PYTHON, "-m", "zctrace", *words, "--kernel", "host", "--json", self.result]
        with self._said.open("w") as said:
            self.process = subprocess.Popen(
                [*map(str, prefix), *map(str, command), *map(str, then)],
                env={**os.environ, **dict(environment)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                cwd="/run",
                **options,
            )

    def collector(self):
        """Its number; ``None`` while there is none."""
        return next(
            (n for n, w in traces.processes(("zctrace",)).items() if _COLLECTOR in w), None
        )

    def said(self):
        return self._said.read_text(errors="replace")

    def ended(self, what, say, expected=COPIED):
        """Wait for its end, and note the try."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_MOST_SECONDS)
        stuck = self.process.poll() is None
        if stuck:
            self.process.kill()
            self.process.wait()
        # Not as one that was killed on purpose.
        status = STUCK if stuck else self.process.wait()
        never = f"Traceback: it had not ended after {_MOST_SECONDS} s" if stuck else ""
        tried = record.tried(
            status,
            self.said()[-3000:] + never,
            record.read(self.result),
            expected,
            _left(self._before),
            what,
        )
        done.append(tried)
        say(f"{what}: status {status}, {tried['stderr'][-200:]}; left {tried['left']}")
        return tried
