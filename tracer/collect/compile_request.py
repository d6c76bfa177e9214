"""What a guest has compiled outside of it, and how it asks: by files in the run's folder.

BCC takes seconds on this machine, and a minute on an emulated processor. What it compiles
depends on no kernel that runs, but on the text and its parameters, which the guest has found.
So the guest asks, and waits for what it would have compiled and kept itself.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zctrace.kernel import remembered

_DIGITS = 32
"""Of the key, in names of files."""
COMPILED = re.compile(rf"programs-[0-9a-f]{{{_DIGITS}}}\.json")
_WANTED = re.compile(rf"wanted-[0-9a-f]{{{_DIGITS}}}\.json")
_OPEN = "compiles"
"""Is there while somebody outside looks for requests."""
_POLL_SECONDS = 0.05
LONGEST_SECONDS = 90.0
"""Less than what a silent guest is given, so that it can compile by itself afterwards."""
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Wanted:
    """A text and its parameters, and the ``key`` that what is compiled of them is kept by.

    ``sources`` is a digest of what it is compiled with, but for the text.
    """

    key: str
    sources: str
    text: str
    parameters: Mapping[str, str]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Wanted:
        """Raises one of several errors for what no guest of ours has written."""
        key, text, parameters = content["key"], content["text"], content["parameters"]
        if not _KEY.fullmatch(key):
            raise ValueError(key)
        numbers = {str(name): str(value) for name, value in parameters.items()}
        return cls(key, str(content["sources"]), str(text), numbers)


def place(memory: Path, key: str) -> Path:
    """Where what was compiled is kept."""
    return memory / f"programs-{key[:_DIGITS]}.json"


def answered(memory: Path, wanted: Wanted) -> bool:
    """Ask, and wait; whether there is an answer in its :func:`place`.

    False where nothing can answer.
    """
    kept, request = place(memory, wanted.key), memory / f"wanted-{wanted.key[:_DIGITS]}.json"
    invited, refused = memory / _OPEN, _refusal(request)
    if not invited.exists():
        return False
    for file in (kept, refused):  # they were of no use, or came too late
        file.unlink(missing_ok=True)
    remembered.write(request, dataclasses.asdict(wanted))
    deadline = time.monotonic() + LONGEST_SECONDS
    try:
        while request.exists() and invited.exists() and time.monotonic() < deadline:
            if kept.exists():
                return True
            if refused.exists():
                return False
            time.sleep(_POLL_SECONDS)
        return False
    finally:
        for file in (request, refused):
            file.unlink(missing_ok=True)


def invite(memory: Path) -> None:
    """Let a guest ask; raises ``OSError`` if somebody does already."""
    os.close(os.open(memory / _OPEN, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC))


def end(memory: Path) -> None:
    """Nothing answers any more."""
    (memory / _OPEN).unlink(missing_ok=True)


def requests(memory: Path) -> list[Path]:
    """Everything that is asked for, whether it was answered or not."""
    return [path for path in memory.iterdir() if _WANTED.fullmatch(path.name)]


def refuse(request: Path) -> bool:
    """Have the guest compile it itself; false where not even that can be written."""
    return remembered.write(_refusal(request), {})


def _refusal(request: Path) -> Path:
    return request.with_name(request.name.replace("wanted", "refused"))
