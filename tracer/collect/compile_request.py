"""What a guest has compiled outside of it, and how it asks: by files in the run's folder.

BCC takes seconds on this machine, and a minute on an emulated processor. What it compiles
depends on no kernel that runs, but on the text and its parameters, which the guest has found.
So the guest asks, and waits for what it would have compiled and kept itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zctrace.kernel import remembered

_DIGITS = 32
"""Of the key, in names of files."""
COMPILED = re.compile(rf"programs-[0-9a-f]{{{_DIGITS}}}\.json")
_WANTED, _REFUSED = "wanted-", "refused-"
_OPEN = "compiles"
"""Is there while somebody outside looks for requests."""
_POLL_SECONDS = 0.05
_LONGEST_SECONDS = 120.0
"""Less than what a silent guest is given."""
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Wanted:
    """A text and its parameters, and the ``key`` that what is compiled of them is kept by."""

    key: str
    text: str
    parameters: Mapping[str, str]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Wanted:
        """Raises one of several errors for what no guest of ours has written."""
        key, text, parameters = content["key"], content["text"], content["parameters"]
        if not _KEY.fullmatch(key):
            raise ValueError(key)
        return cls(key, str(text), {str(name): str(v) for name, v in parameters.items()})


def place(memory: Path, key: str) -> Path:
    """Where what was compiled is kept."""
    return memory / f"programs-{key[:_DIGITS]}.json"


def answered(kept: Path, key: str, text: str, parameters: Mapping[str, str]) -> bool:
    """Ask, and wait; whether there is an answer in ``kept``. False where nothing can answer."""
    memory, name = kept.parent, f"{key[:_DIGITS]}.json"
    if not (memory / _OPEN).exists():
        return False
    kept.unlink(missing_ok=True)  # it was of no use
    wanted = memory / f"{_WANTED}{name}"
    remembered.write(wanted, {"key": key, "text": text, "parameters": dict(parameters)})
    deadline = time.monotonic() + _LONGEST_SECONDS
    while wanted.exists() and time.monotonic() < deadline:
        if kept.exists():
            return True
        if (memory / f"{_REFUSED}{name}").exists():
            return False
        time.sleep(_POLL_SECONDS)
    return False


def invite(memory: Path) -> None:
    """Let a guest ask; somebody must look then."""
    (memory / _OPEN).touch()


def requests(memory: Path) -> Iterator[Path]:
    """Everything that was asked for, whether it was answered or not."""
    return memory.glob(f"{_WANTED}*.json")


def refuse(request: Path) -> None:
    """Have the guest compile it itself."""
    remembered.write(request.with_name(request.name.replace(_WANTED, _REFUSED)), {})
