"""Kafka from Maven Central, and what a broker of it did in a guest.

``python -m tests.systems.gather FILE``, as root: traces the broker and writes the evidence,
which ``zctrace report FILE`` shows, and :mod:`tests.systems.report` judges.
"""

import json
import os
import pwd
import re
import secrets
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from tests.live.conftest import run_in_guest
from tracer import kernels, output
from tracer.guardian import guarded
from workloads.jvm import java

HERE = Path(__file__).parent
POM = HERE / "kafka" / "pom.xml"
KERNEL = "6.1"
_ROOM_BYTES = 256 << 20
_FETCH_SECONDS = 900
_NAMESPACE = {"maven": "http://maven.apache.org/POM/4.0.0"}
_REMEDIES = {
    "mvn": "apt-get install maven",
    str(java.DEBIAN_HOME / "bin" / "javac"): "apt-get install openjdk-17-jdk-headless",
}


class NotAvailableError(Exception):
    """Something is missing; says what, and the command that mends it."""


def version():
    """Which Kafka the pom names."""
    (found,) = ElementTree.parse(POM).iterfind(
        "maven:dependencies/maven:dependency[maven:artifactId='kafka_2.13']/maven:version",
        _NAMESPACE,
    )
    return found.text


def jars(scratch):
    """The folder of Kafka's jars, fetched through ``scratch`` if it is not at hand.

    As Maven is set up here: its settings say where from. Raises :class:`NotAvailableError`.
    """
    for program, remedy in _REMEDIES.items():
        if not shutil.which(program):
            raise NotAvailableError(f"Kafka needs {program}: {remedy}")
    folder = kernels.cache_folder() / "kafka" / version()
    if folder.is_dir() and (folder / "pom.xml").read_bytes() == POM.read_bytes():
        return folder / "libs"
    fetched = scratch / "fetched"
    fetched.mkdir()
    shutil.copy(POM, fetched / "pom.xml")
    result = subprocess.run(
        [
            *("mvn", "--batch-mode", "--quiet", "--file", fetched / "pom.xml", *_settings()),
            *("dependency:copy-dependencies", "-DincludeScope=runtime"),
            f"-DoutputDirectory={fetched / 'libs'}",
        ],
        capture_output=True,
        text=True,
        timeout=_FETCH_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    if result.returncode:
        said = " ".join((result.stdout + result.stderr).split())[:400]
        raise NotAvailableError(
            f"Kafka {version()} could not be fetched: {said}: connect to Maven Central, or "
            "name a mirror of it in ~/.m2/settings.xml"
        )
    # Whole or not at all, and a part that was left by whoever was killed is nobody's.
    part = folder.with_name(f".{folder.name}")
    for former in (part, folder):
        shutil.rmtree(former, ignore_errors=True)
    shutil.copytree(fetched, part)
    part.rename(folder)
    return folder / "libs"


def _settings():
    """Those of whoever called sudo; otherwise Maven finds them by itself."""
    if not (name := os.environ.get("SUDO_USER")):
        return []
    file = Path(pwd.getpwnam(name).pw_dir) / ".m2" / "settings.xml"
    return ["--settings", file] if file.exists() else []


def kafka_home(folder):
    """Put together, in ``folder``, everything that a guest needs for a broker and a client."""
    libs, home = jars(folder), folder / "kafka"
    shutil.copytree(HERE / "kafka", home, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(libs, home / "libs")
    compiler = java.DEBIAN_HOME / "bin" / "javac"
    subprocess.run(
        [
            *(compiler, "-J-XX:-UsePerfData", "-d", home / "classes", "-cp", f"{libs}/*"),
            home / "Client.java",
        ],
        check=True,
    )
    (home / "java").write_text(str(java.DEBIAN_HOME))
    return home


def gather():
    """Trace the broker in a guest; returns what :func:`save` writes."""
    with guarded(f"kafka-{secrets.token_hex(4)}") as scratch:
        answer = run_in_guest(
            KERNEL,
            "tracing_guest.py",
            "kafka_suite",
            file_systems=("ext4", "xfs"),
            folders=(kafka_home(scratch.path),),
            modules=(HERE / "kafka_suite.py",),
            room_bytes=_ROOM_BYTES,
        )
    if answer["failures"]:
        raise RuntimeError("\n".join(f"{k}: {v}" for k, v in answer["failures"].items()))
    return {
        "evidence": list(answer["evidence"].values()),
        "kafka": {
            "version": version(),
            "java": _java_version(),
            "cases": list(answer["evidence"]),
            "seconds": {k: round(s, 1) for k, s in answer["seconds"].items()},
            **answer["found"]["kafka"],
        },
    }


def _java_version():
    text = (java.DEBIAN_HOME / "release").read_text()
    return re.search(r'^JAVA_VERSION="([^"]+)"', text, re.MULTILINE)[1]


def save(gathered, path):
    """For ``zctrace report`` and :mod:`tests.systems.report`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    output.write(path, json.dumps(gathered) + "\n")


def main():
    if len(sys.argv) != 2:
        return "which file? python -m tests.systems.gather FILE"
    try:
        save(gather(), Path(sys.argv[1]))
    except NotAvailableError as missing:
        return str(missing)
    return 0


if __name__ == "__main__":
    sys.exit(main())
