"""Netty, and the classes of ours that transfer by it, compiled for it.

What is Netty's is fetched when it is first needed, by Maven, so from where the user's settings
say; ``netty/pom.xml`` says what. From then on it is in the cache, and no network is needed.
"""

from __future__ import annotations

import os
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

from zctrace.notices import Say
from zctrace.workloads.jvm import java, maven
from zctrace.workloads.prepared import NotPreparedError, Prepared, whole

_HERE = Path(__file__).resolve().parent
_SOURCES = _HERE / "netty"
_POM = _SOURCES / "pom.xml"
_MAIN = "zctrace.netty.Netty"
_CERTIFICATE = "certificate.pem"
_WRITE_CERTIFICATE = "zctrace.netty.Certificate"
_PASSWORD = "zctrace"
_KEY_SECONDS = 60
_EPOLL = "libnetty_transport_native_epoll_x86_64.so"
_LAST_WORDS = 300
"""Characters of what a program has said that are shown."""


@dataclass(frozen=True)
class Library:
    """Archives of Netty, and classes that use them, in folders of their own."""

    archives: Path
    classes: Path

    @classmethod
    def of(cls, prepared: Prepared) -> Library:
        """The one among what was prepared for a performer."""
        return cls(prepared.folders["archives"], prepared.folders["classes"])

    def prepared(self, driver: java.Built) -> Prepared:
        """With the driver that it is loaded into."""
        there = driver.prepared
        return Prepared(
            {**there.folders, "archives": self.archives, "classes": self.classes},
            there.facts,
            {**there.versions, "netty": version()},
        )

    @property
    def certificate(self) -> Path:
        """A key and its certificate, for the receiver of TLS.

        The key is no secret: it protects what is sent to a process of zctrace's own.
        """
        return self.classes / _CERTIFICATE

    def words(self) -> list[str]:
        """What :class:`zctrace.workloads.jvm.process.Jvm` is asked, to load it."""
        places = [self.classes, self.archives, *sorted(self.archives.glob("*.jar"))]
        return ["library", _MAIN, *(_address(place) for place in places)]


def _address(place: Path) -> str:
    """Without blanks in it; a folder's must end like one."""
    return place.resolve().as_uri() + ("/" if place.is_dir() else "")


def version() -> str:
    """The one that is taken, as ``4.2.18.Final``."""
    return maven.version(_POM)


def is_in(cache: Path) -> bool:
    """Whether it was fetched into there."""
    return os.path.isdir(_archives(cache))


def why_not(cache: Path) -> str:
    """Why there is none in ``cache``, and none to be fetched either; else ""."""
    return "" if is_in(cache) else maven.why_not(f"Netty {version()}")


def build(driver: java.Built, cache: Path, say: Say) -> Library:
    """Netty in ``cache``, fetched if it is not there; and compiled for it, what uses it.

    Raises :class:`NotPreparedError`, and ``OSError`` where ``cache`` cannot be written to.
    """
    archives = _archives(cache)
    if not is_in(cache):
        say(f"fetching Netty {version()} (3 MB) by Maven, once")
        maven.fetch(_POM, archives, f"Netty {version()}", _unpack)
    sources = sorted(_SOURCES.glob("*.java"))
    digest = java.digest(sources, str(driver.classes), str(archives))
    folder = cache / "java" / f"netty-{digest}"
    if not folder.is_dir():
        path = os.pathsep.join(map(str, [driver.classes, *archives.glob("*.jar")]))

        def fill(filled: Path) -> None:
            java.compile_into(filled, driver.jdk, sources, ["-cp", path])
            _certify(driver.jdk, filled)

        whole(folder, fill)
    return Library(archives, folder)


def _certify(jdk: java.Jdk, classes: Path) -> None:
    """Make a key and a certificate in the classes' folder."""
    programs = jdk.home / "bin"
    store = classes / "keys"
    make = [programs / "keytool", "-genkeypair", "-keystore", store, "-storetype", "PKCS12"]
    make += ["-storepass", _PASSWORD, "-alias", _PASSWORD, "-dname", "CN=zctrace"]
    make += ["-keyalg", "RSA", "-keysize", "2048", "-validity", "3650"]
    write = [jdk.java, "-XX:-UsePerfData", "-cp", classes, _WRITE_CERTIFICATE]
    write += [store, _PASSWORD, _PASSWORD]
    for command in (make, write):
        result = subprocess.run(
            [*map(str, command)],
            capture_output=True,
            text=True,
            timeout=_KEY_SECONDS,
            env=java.ENVIRONMENT,
        )
        if result.returncode:
            said = (result.stdout + result.stderr).strip()[-_LAST_WORDS:]
            raise NotPreparedError(f"no certificate for TLS: {command[0]}: {said}")
    store.unlink()
    (classes / _CERTIFICATE).write_text(result.stdout)


def _archives(cache: Path) -> Path:
    return maven.archives(_POM, "netty", cache)


def _unpack(folder: Path) -> None:
    """The library for epoll, out of its archive."""
    (archive,) = folder.glob("netty-transport-native-epoll-*.jar")
    with zipfile.ZipFile(archive) as unpacked:
        (folder / _EPOLL).write_bytes(unpacked.read(f"META-INF/native/{_EPOLL}"))
