"""Where Java is, and the driver's classes, compiled for it.

The driver is compiled when it is first needed, and again when its sources or the JDK are
others.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zctrace import packages
from zctrace.workloads.prepared import NotPreparedError, Prepared, whole

_HERE = Path(__file__).resolve().parent
DEBIAN_HOME = Path("/usr/lib/jvm/java-17-openjdk-amd64")
_MAIN = "zctrace.Main"
_INCUBATOR = "jdk.incubator.foreign"
_COMPILE_SECONDS = 300
_MOST = 1 << 30
"""Bytes of the largest array that it makes; larger calls are cut."""


_CIPHERS = ("AESCrypt", "AES_Crypt", "GCTR", "GHASH")
"""What takes 95 of 100 parts of the time to encrypt, by AES-GCM, interpreted; the second is
what the first one is called in JDK 25."""
_INTERPRETED = (
    "-XX:TieredStopAtLevel=1",
    "-XX:CompileCommand=quiet",
    *(f"-XX:CompileCommand=compileonly,com.sun.crypto.provider.{c}::*" for c in _CIPHERS),
)
"""Everything else: like -Xint, which knows no exceptions."""


@dataclass(frozen=True)
class Jdk:
    """A Java development kit: its folder, and its version as ``17.0.15``."""

    home: Path
    version: str

    @property
    def java(self) -> Path:
        return self.home / "bin" / "java"

    @property
    def linker(self) -> str:
        """The folder of sources for the way in which it calls functions of C."""
        return "jdk17" if self.major == 17 else "jdk22"

    @property
    def major(self) -> int:
        return _major(self.version)

    @property
    def modules(self) -> list[str]:
        """Options of the compiler and the machine that make this way visible."""
        return ["--add-modules", _INCUBATOR] if self.major == 17 else []


@dataclass(frozen=True)
class Built:
    """The driver's classes, in a folder, for a JDK."""

    jdk: Jdk
    classes: Path

    @classmethod
    def of(cls, prepared: Prepared) -> Built:
        """The one among what was prepared for a performer."""
        jdk = Jdk(Path(prepared.facts["home"]), prepared.versions["java"])
        return cls(jdk, prepared.folders["driver"])

    @property
    def prepared(self) -> Prepared:
        return Prepared(
            {"driver": self.classes},
            {"home": str(self.jdk.home)},
            {"java": self.jdk.version},
        )

    def command(self, step: int) -> list[str]:
        """How to start it, for calls that move ``step`` bytes at most.

        Interpreted, with one collector's one thread: what is copied is then copied by
        functions of the C library and of libjvm, and never by code that was compiled into
        memory of no file; nothing is compiled, moved or profiled while a transfer runs.
        Only ciphers are compiled, which no transfer uses but by TLS.
        """
        memory = memory_bytes(step) >> 20
        return [
            str(self.jdk.java),
            *_INTERPRETED,
            "-XX:+UseSerialGC",
            "-Xshare:auto",
            # No stops without a reason: a thread that returns from a call would have to wait.
            "-XX:+UnlockDiagnosticVMOptions",
            "-XX:GuaranteedSafepointInterval=0",
            "-XX:-UsePerfData",
            "-XX:+DisableAttachMechanism",
            "-XX:ErrorFile=/dev/null",
            # Its output is for answers alone.
            "-XX:+DisplayVMOutputToStderr",
            "-Xlog:disable",
            "-Xlog:all=warning:stderr",
            "-XX:-CreateCoredumpOnCrash",
            "-Xms16m",
            f"-Xmx{memory}m",
            f"-XX:MaxDirectMemorySize={memory}m",
            *self.jdk.modules,
            "--enable-native-access=ALL-UNNAMED",
            "-cp",
            str(self.classes),
            _MAIN,
        ]


def memory_bytes(step: int) -> int:
    """Bytes that its heap may have, and so may its memory outside of that.

    A buffer for ``step`` bytes, one that was not collected yet, and room.
    """
    return (64 << 20) + 3 * min(step, _MOST)


def process_bytes(step: int) -> int:
    """Bytes of memory that the whole process takes: itself, and its buffers.

    Two arrays or direct buffers, and what is between them and the kernel.
    """
    return (128 << 20) + 6 * min(step, _MOST)


def find() -> Jdk:
    """The JDK of ``$JAVA_HOME``, Debian's 17, or that of the ``java`` on the PATH.

    The first of them that there is; raises :class:`NotPreparedError` if that will not do.
    """
    for home in _homes():
        if (home / "bin" / "java").exists():
            return jdk_in(home)
    raise NotPreparedError(f"there is no Java: {packages.remedy('java')}")


def _homes() -> list[Path]:
    homes = [Path(home)] if (home := os.environ.get("JAVA_HOME")) else []
    homes.append(DEBIAN_HOME)
    if program := shutil.which("java"):
        homes.append(Path(program).resolve().parent.parent)
    return homes


def jdk_in(home: Path) -> Jdk:
    """The one in a folder, if it will do; else raises :class:`NotPreparedError`.

    From the file in which it tells of itself: starting it takes a second.
    """
    try:
        text = (home / "release").read_text()
    except OSError as error:
        raise NotPreparedError(f"{home} does not say its version: {error.strerror}") from error
    found = re.search(r'^JAVA_VERSION="([^"]+)"', text, re.MULTILINE)
    version = found[1] if found else "unknown"
    if _major(version) != 17 and _major(version) < 22:
        raise NotPreparedError(
            f"Java {version} in {home} cannot call the marker; 17 can, and 22 and later: "
            f"{packages.remedy('java')}"
        )
    if not (home / "bin" / "javac").exists():
        raise NotPreparedError(
            f"{home} runs Java {version} and compiles none: {packages.remedy('java')}"
        )
    return Jdk(home, version)


def _major(version: str) -> int:
    digits = re.match(r"\d+", version)
    return int(digits[0]) if digits else 0


def build(cache: Path) -> Built:
    """The driver compiled for the JDK that is found, in ``cache`` or from there.

    Raises :class:`NotPreparedError`, and ``OSError`` where ``cache`` cannot be written to.
    """
    jdk = find()
    sources = sorted([*(_HERE / "src").glob("*.java"), *(_HERE / jdk.linker).glob("*.java")])
    folder = cache / "java" / digest(sources, str(jdk.home), jdk.version)
    if not folder.is_dir():
        compile_into(folder, jdk, sources, jdk.modules)
    return Built(jdk, folder)


def digest(sources: Sequence[Path], *words: str) -> str:
    """By which to find again what was compiled of them, with the tools that words tell of."""
    found = hashlib.sha256("\0".join(words).encode())
    for source in sources:
        found.update(b"\0" + source.name.encode() + b"\0" + source.read_bytes())
    return found.hexdigest()[:16]


def compile_into(folder: Path, jdk: Jdk, sources: list[Path], options: list[str]) -> None:
    """Classes, into a folder that is there afterwards, whole or not at all.

    Raises :class:`NotPreparedError` and ``OSError``.
    """
    command = [str(jdk.home / "bin" / "javac"), "-J-XX:-UsePerfData", "-nowarn"]
    # Root compiles: fetched code must not run during that.
    command += ["-proc:none"]
    # Concatenating strings by a call that is linked when it first runs loads 100 classes.
    command += [*options, "-XDstringConcat=inline", "-d"]

    def compile_there(classes: Path) -> None:
        result = subprocess.run(
            [*command, str(classes), *map(str, sources)],
            capture_output=True,
            text=True,
            timeout=_COMPILE_SECONDS,
            env=ENVIRONMENT,
        )
        if result.returncode:
            raise NotPreparedError(
                f"javac of {jdk.home} failed: {result.stderr.strip()[-500:]}"
            )

    whole(folder, compile_there)


ENVIRONMENT = {"PATH": os.defpath, "LANG": "C.UTF-8"}
"""Without the variables by which Java takes options from anybody."""
