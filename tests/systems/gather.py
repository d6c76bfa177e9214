"""Kafka from Maven Central, and what a broker of it did in a guest.

``python -m tests.systems.gather FILE``, as root: traces the broker and writes the evidence,
which ``zctrace report FILE`` shows, and :mod:`tests.systems.report` judges.
"""

import json
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

from tests.live.conftest import run_in_guest
from zctrace import output_files, packages
from zctrace.machine import kernels
from zctrace.machine.guardian import guarded
from zctrace.workloads.jvm import java, maven
from zctrace.workloads.prepared import NotPreparedError

HERE = Path(__file__).parent
POM = HERE / "kafka" / "pom.xml"
KERNEL = "6.1"
_ROOM_BYTES = 256 << 20
_COMPILER = java.DEBIAN_HOME / "bin" / "javac"


class NotAvailableError(Exception):
    """Something is missing; says what, and the command that mends it."""


def version():
    """Which Kafka the pom names."""
    return maven.version(POM)


def jars():
    """The folder of Kafka's jars, fetched if it is not at hand.

    Raises :class:`NotAvailableError`.
    """
    if not _COMPILER.exists():
        raise NotAvailableError(f"Kafka needs {_COMPILER}: {packages.remedy('java')}")
    folder = maven.archives(POM, "kafka", kernels.cache_folder())
    if not folder.is_dir():
        try:
            maven.fetch(POM, folder, f"Kafka {version()}")
        except NotPreparedError as error:
            raise NotAvailableError(str(error)) from error
    return folder


def kafka_home(folder):
    """Put together, in ``folder``, everything that a guest needs for a broker and a client."""
    libs, home = jars(), folder / "kafka"
    shutil.copytree(HERE / "kafka", home, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(libs, home / "libs")
    subprocess.run(
        [
            *(_COMPILER, "-J-XX:-UsePerfData", "-d", home / "classes", "-cp", f"{libs}/*"),
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
            "java": java.jdk_in(java.DEBIAN_HOME).version,
            "cases": list(answer["evidence"]),
            "seconds": {k: round(s, 1) for k, s in answer["seconds"].items()},
            **answer["found"]["kafka"],
        },
    }


def save(gathered, path):
    """For ``zctrace report`` and :mod:`tests.systems.report`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    output_files.write(path, json.dumps(gathered) + "\n")


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
