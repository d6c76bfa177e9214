"""What Maven fetches: the archives that a project file names, once, into a cache.

Maven's settings decide where from. Maven runs code that it fetches. So under sudo the user who
called sudo runs it, with the settings of that user, and not root.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from zctrace import packages, trust
from zctrace.workloads.prepared import NotPreparedError, whole

_SECONDS = 900
_PROJECT, _FETCHED = "pom.xml", "fetched"
_LAST_WORDS = 300
"""Characters of what Maven has said that are shown."""
_REMEDY = "connect to Maven Central, or name a mirror of it in ~/.m2/settings.xml"


def why_not(what: str) -> str:
    """Why ``what`` cannot be fetched here, as far as is known without trying; else ""."""
    if shutil.which("mvn"):
        return ""
    return f"{what} is not here, nor is Maven, which fetches it: {packages.remedy('maven')}"


def version(project: Path) -> str:
    """The one that a project file names first, in a property or of a dependency."""
    text = project.read_text()
    found = re.search(r"<\w+\.version>(.+)</\w+\.version>", text) or re.search(
        r"<dependency>.*?<version>(.+?)</version>", text, re.DOTALL
    )
    assert found
    return found[1]


def archives(project: Path, name: str, cache: Path) -> Path:
    """The folder in ``cache`` for them, by what is asked for: other versions, other folder."""
    digest = hashlib.sha256(project.read_bytes()).hexdigest()
    return cache / name / f"{version(project)}-{digest[:8]}"


def fetch(
    project: Path, folder: Path, what: str, add: Callable[[Path], None] = lambda folder: None
) -> None:
    """Put what ``project`` names into ``folder``, and what ``add`` makes of it, or nothing.

    Raises :class:`NotPreparedError`, and ``OSError`` where the cache cannot be written to.
    """
    if reason := why_not(what):
        raise NotPreparedError(reason)

    def fill(filled: Path) -> None:
        import tempfile  # late, as in whole()

        with tempfile.TemporaryDirectory(prefix="zctrace-maven-") as workshop:
            place = Path(workshop)
            run(place)
            caller = trust.caller()
            with caller.acting() if caller else nullcontext():
                archives = {a.name: _content(a) for a in (place / _FETCHED).iterdir()}
        filled.mkdir()
        for name, content in archives.items():
            (filled / name).write_bytes(content)
        add(filled)

    def run(place: Path) -> None:
        # The user may not be able to read the project where it is.
        shutil.copyfile(project, place / _PROJECT)
        as_caller: dict[str, Any] = {}
        if caller := trust.caller():
            ids = {"user": caller.uid, "group": caller.gid, "extra_groups": caller.groups}
            as_caller = {**ids, "env": caller.environment}
            os.chown(place / _PROJECT, caller.uid, caller.gid)
            os.chown(place, caller.uid, caller.gid)
        command = ["mvn", "--batch-mode", "--quiet", "--file", str(place / _PROJECT)]
        command += ["dependency:copy-dependencies", "-DincludeScope=runtime"]
        command += [f"-DoutputDirectory={place / _FETCHED}"]
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                cwd=place,
                **as_caller,
            )
        except subprocess.TimeoutExpired as error:
            raise NotPreparedError(
                f"Maven did not fetch {what} in {_SECONDS} s: {_REMEDY}"
            ) from error
        if result.returncode:
            said = [line for line in result.stdout.splitlines() if line.startswith("[ERROR]")]
            why = (said[0] if said else result.stdout + result.stderr).strip()[:_LAST_WORDS]
            raise NotPreparedError(f"Maven could not fetch {what}: {why}: {_REMEDY}")

    whole(folder, fill)


def _content(archive: Path) -> bytes:
    """Of a file itself, which ends: no link to another, no pipe."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    with open(os.open(archive, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{archive.name} is no file")
        return file.read()
