"""What Maven fetches: the archives that a project file names, once, into a cache.

Where from is up to Maven's settings: the user's, also where that user has called sudo.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from zctrace import packages
from zctrace.workloads.prepared import NotPreparedError, whole

_SECONDS = 900
_LAST_WORDS = 300
"""Characters of what Maven has said that are shown."""
_REMEDY = "connect to Maven Central, or name a mirror of it in ~/.m2/settings.xml"


def why_not(what: str) -> str:
    """Why ``what`` cannot be fetched here, as far as can be told without trying; else ""."""
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
        command = ["mvn", "--batch-mode", "--quiet", "--file", str(project), *_settings()]
        command += ["dependency:copy-dependencies", "-DincludeScope=runtime"]
        command += [f"-DoutputDirectory={filled}"]
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise NotPreparedError(
                f"Maven did not fetch {what} in {_SECONDS} s: {_REMEDY}"
            ) from error
        if result.returncode:
            said = [line for line in result.stdout.splitlines() if line.startswith("[ERROR]")]
            why = (said[0] if said else result.stdout + result.stderr).strip()[:_LAST_WORDS]
            raise NotPreparedError(f"Maven could not fetch {what}: {why}: {_REMEDY}")
        add(filled)

    whole(folder, fill)


def _settings() -> list[str]:
    """Those of whoever called sudo; otherwise Maven finds them by itself."""
    if not (name := os.environ.get("SUDO_USER")):
        return []
    file = Path(pwd.getpwnam(name).pw_dir) / ".m2" / "settings.xml"
    return ["--settings", str(file)] if file.exists() else []
