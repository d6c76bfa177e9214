"""The meter's programs, compiled once by BCC and kept; made by bpf(2) alone from then on.

What is kept is for one kernel's build, one text and its parameters; nothing of a run is in it.
An entry that is damaged, that somebody else could have written, or that another BCC has
compiled, is as good as none: then BCC compiles anew, in a process of its own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zctrace import packages
from zctrace._version import RELEASE
from zctrace.collect import compile_request
from zctrace.errors import MissingError, TraceError
from zctrace.kernel import remembered
from zctrace.kernel.bpf_maps import Description, Table

_COMPILER = Path(__file__).with_name("compiler.py")
_VERSION = re.compile(r"__version__ = '([^']+)'")
INSTRUCTION = struct.Struct("=BBhi")
"""Of BPF: the operation, two registers of four bits, an offset, a number."""
_LOAD_CONSTANT, _OF_A_MAP = 0x18, 1
"""As in compiler.py."""
_NAMES = "it looks up functions in programs"
_MOST_BYTES = 8 << 20
"""Of a function: eight times of what any kernel takes."""
_MALFORMED = (
    *(LookupError, TypeError, ValueError, AttributeError),
    *(binascii.Error, struct.error, zlib.error),
)


@dataclass(frozen=True)
class Compiled:
    """Functions' instructions, by name, which name maps by their number among ``maps``."""

    bcc: str
    maps: tuple[Description, ...]
    functions: Mapping[str, bytes]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Compiled:
        """Raises one of several errors if that is not what the compiler has written."""
        return cls(
            str(content["bcc"]),
            tuple(Description(**about) for about in content["maps"]),
            {name: _unpacked(text) for name, text in content["functions"].items()},
        )


class Programs:
    """Maps, made by the kernel, and the instructions that use them.

    ``entries`` are the maps' by the number that stands for them in the text. Raises
    ``OSError``, and one of several errors where what was compiled is damaged.
    """

    def __init__(self, compiled: Compiled, entries: Mapping[int, int]) -> None:
        self.bcc_version = compiled.bcc
        with ExitStack() as stack:
            self._tables: dict[str, Table] = {}
            for about in compiled.maps:
                table = Table(about, entries.get(about.entries, about.entries))
                stack.callback(table.close)
                self._tables[about.name] = table
            maps = [table.map_fd for table in self._tables.values()]
            self._functions = {
                name: _with_maps(code, maps) for name, code in compiled.functions.items()
            }
            self._cleanup = stack.pop_all()

    def __getitem__(self, name: str) -> Table:
        return self._tables[name]

    def __iter__(self) -> Iterator[str]:
        """Names of the functions."""
        return iter(self._functions)

    def instructions(self, function: str) -> bytes:
        """To be loaded; raises ``KeyError``."""
        return self._functions[function]

    def close(self) -> None:
        self._cleanup.close()


def programs(
    text: str,
    parameters: Mapping[str, str],
    headers: Path,
    entries: Mapping[int, int],
    memory: Path | None,
) -> Programs:
    """Those of a text, from ``memory`` or compiled against the ``headers`` and kept there.

    In a guest they are compiled outside of it, where that can be. Raises
    :class:`MissingError` where it has to be compiled and there is no BCC, and
    :class:`TraceError` where BCC does not compile it or the kernel makes no maps of it.
    """
    key = _key(text, parameters, headers)
    place = compile_request.place(memory, key) if memory else None
    if place and (found := _recalled(place, key, entries)):
        return found
    if memory and place:
        wanted = compile_request.Wanted(key, sources(headers), text, parameters)
        if compile_request.answered(memory, wanted) and (
            found := _recalled(place, key, entries)
        ):
            return found
    content = _compile(text, parameters, headers)
    try:
        made = Programs(Compiled.from_json(content), entries)
    except OSError as error:
        raise TraceError("the kernel refused a table of the meter", str(error)) from error
    if place:
        remembered.write(place, {"key": key, **content})
    return made


def _recalled(place: Path, key: str, entries: Mapping[int, int]) -> Programs | None:
    content = remembered.read(place)
    installed = _installed()
    if not content or content.get("key") != key:
        return None
    if installed and content.get("bcc") != installed:
        return None
    try:
        return Programs(Compiled.from_json(content), entries)
    except (OSError, *_MALFORMED):
        return None


def _key(text: str, parameters: Mapping[str, str], headers: Path) -> str:
    """Of all that what is compiled depends on, but for BCC's version.

    BCC asks the running kernel for its version and which helpers it has.
    """
    build = os.uname()[2:]
    about = [RELEASE, sources(headers), *build, text, sorted(parameters.items())]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def sources(headers: Path) -> str:
    """A digest of the header files and of the compiler."""
    files = [_COMPILER, *sorted(path for path in headers.rglob("*.h"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _installed() -> str:
    """The version of the BCC that is there, without importing it; empty if there is none."""
    found = importlib.util.find_spec("bcc")
    if not found or not found.origin:
        return ""
    try:
        version = _VERSION.search(Path(found.origin).with_name("version.py").read_text())
    except OSError:
        return ""
    return version[1] if version else ""


class Compiling:
    """BCC at work on a text, in a process of its own, by this or another ``python``; ended by
    ``kill``."""

    def __init__(
        self,
        text: str,
        parameters: Mapping[str, str],
        headers: Path,
        python: str = "",
        environment: Mapping[str, str] | None = None,
        stderr: int | None = None,
    ) -> None:
        wanted = {"text": text, "flags": [f"-D{n}={v}" for n, v in parameters.items()]}
        with ExitStack() as stack:
            self._answer = stack.enter_context(tempfile.TemporaryFile())
            with tempfile.TemporaryFile() as asked:
                asked.write(json.dumps(wanted).encode())
                asked.seek(0)
                self.process = subprocess.Popen(
                    [
                        python or sys.executable,
                        "-I",
                        str(_COMPILER),
                        str(self._answer.fileno()),
                    ],
                    stdin=asked,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    pass_fds=[self._answer.fileno()],
                    # BCC takes "kernel headers" from <here>/include; see the comments in there.
                    env={**(environment or os.environ), "BCC_KERNEL_SOURCE": str(headers)},
                )
            self._cleanup = stack.pop_all()

    def content(self) -> dict[str, Any]:
        """What the compiler answers, once it has ended; raises as :func:`programs` does."""
        try:
            status = self.process.wait()
        except BaseException:
            self.kill()
            raise
        with self._cleanup:
            self._answer.seek(0)
            answer = self._answer.read()
        if status:
            raise TraceError(
                "BCC could not compile the meter",
                f"the compiler ended with status {status}",
                "zctrace doctor",
            )
        content: dict[str, Any] = json.loads(answer)
        if "missing" in content:
            raise _no_bcc(content["missing"], "it compiles the meter, once for each kernel")
        if "refused" in content:
            raise TraceError(
                "BCC could not compile the meter", content["refused"], "zctrace doctor"
            )
        return content

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._cleanup.close()


def _compile(text: str, parameters: Mapping[str, str], headers: Path) -> dict[str, Any]:
    """Here and now."""
    return Compiling(text, parameters, headers).content()


def _with_maps(instructions: bytes, maps: Sequence[int]) -> bytes:
    """With descriptors instead of maps' numbers; raises ``IndexError``."""
    program = bytearray(instructions)
    at = 0
    while at < len(program):
        code, registers, offset, number = INSTRUCTION.unpack_from(program, at)
        if code == _LOAD_CONSTANT:
            if registers >> 4 == _OF_A_MAP:
                if number < 0:
                    raise IndexError(number)
                INSTRUCTION.pack_into(program, at, code, registers, offset, maps[number])
            at += INSTRUCTION.size  # two halves
        at += INSTRUCTION.size
    return bytes(program)


def _unpacked(text: str) -> bytes:
    stream = zlib.decompressobj()
    program = stream.decompress(base64.b64decode(text, validate=True), _MOST_BYTES)
    if not stream.eof or len(program) % INSTRUCTION.size:
        raise ValueError("not a program")
    return program


def names() -> Any:
    """:mod:`zctrace.collect.names`, for those who want names of functions in programs.

    Raises :class:`MissingError` without BCC, as :func:`require_names` does early.
    """
    try:
        from zctrace.collect import names as found
    except ImportError as error:
        raise _no_bcc(str(error), _NAMES) from error
    return found


def require_names() -> None:
    if not importlib.util.find_spec("bcc"):
        raise _no_bcc("there is no such module", _NAMES)


def _no_bcc(said: str, purpose: str) -> MissingError:
    """The error where BCC cannot be imported, and what it is needed for."""
    return MissingError(
        f"BCC's Python module cannot be imported: {said}",
        f"{sys.executable} has no module bcc; {purpose}",
        packages.remedy("bcc"),
    )
