"""Start a collector, here or in a guest, and read its answer."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from zctrace import errors, trust
from zctrace.collect.describe import ENVIRONMENT, MEMORY, SERVING, TRACING
from zctrace.evidence.schema import Evidence, Request
from zctrace.machine import observations, own_origin, qemu
from zctrace.machine import progress as machine_progress
from zctrace.machine.guardian import RunFolder, write_private
from zctrace.notices import Say

SHARE = "run"
"""The folder, in that of the run, in which the two halves talk to each other."""
_ORDERLY_SECONDS = 10
_QUICK = {"SETUPTOOLS_USE_DISTUTILS": "stdlib"}
"""Without it, importing capstone imports all of setuptools: 0.25 s and 20 MB."""


class Limits(Protocol):
    """How long a collector may take, and whether its logs are kept if it fails."""

    @property
    def work(self) -> int: ...
    @property
    def boot_seconds(self) -> float: ...
    @property
    def keep(self) -> bool: ...


def evidence_from(answer: dict[str, Any], booted_after: float) -> Evidence:
    """What :func:`answered` returns, of a collector that was asked for evidence."""
    evidence = Evidence.from_json(answer)
    return dataclasses.replace(
        evidence,
        timings={"boot": booted_after, **evidence.timings},
        origin=own_origin.here(),
    )


def answered(
    request: Request,
    guest: qemu.Guest | None,
    run_folder: RunFolder,
    code: Path,
    say: Say,
    limits: Limits,
    streams: Sequence[int] = (),
    meanwhile: Callable[[], None] = lambda: None,
    show: Callable[[dict[str, Any]], None] = lambda line: None,
) -> tuple[dict[str, Any], float]:
    """Have a collector do what is requested, in ``guest`` or here; raises ``ZctraceError``.

    Returns its answer, as JSON has it, and the seconds until it began. A collector here
    gets the descriptors ``streams`` for a program's command, and stays in our session for
    its sake. ``meanwhile`` is called again and again while it works, ``show`` with every
    look at what happens.
    """
    share = run_folder.path / SHARE
    files = {name: share / name for name in ("request.json", "evidence.json", "progress")}
    write_private(files["request.json"], json.dumps(dataclasses.asdict(request)))
    collector = [
        qemu.PYTHON,
        "-I",
        str(code / "zctrace" / "collect" / "isolated.py"),
        "zctrace.collect.main",
    ]
    collector += map(str, files.values())
    if streams:
        collector.append(",".join(map(str, streams)))
    progress = machine_progress.Progress(
        files["progress"],
        files["evidence.json"],
        say,
        limits.work,
        limits.boot_seconds,
        boots=guest is not None,
        endless=SERVING if request.subject and request.subject.marked else TRACING,
        meanwhile=meanwhile,
        show=show,
    )
    booted = guest.kernel if guest else None
    memory = run_folder.path / MEMORY
    observations.lend(booted, memory)
    try:
        if guest:
            how = "" if guest.kvm else ", emulated"
            say(f"booting Linux {guest.kernel.release} in a virtual machine{how}")
            qemu.run(guest, collector, run_folder, progress)
        else:
            _run_here(collector, run_folder, progress, streams)
        observations.take_back(booted, memory)
        answer: dict[str, Any] = json.loads(files["evidence.json"].read_text())
        if "error" in answer:
            raise errors.from_json(answer)
    except errors.ZctraceError:
        if limits.keep:
            say(f"logs kept in {_keep(run_folder.path, request.run_id)}")
        raise
    return answer, progress.booted_after


def _run_here(
    collector: list[str],
    run_folder: RunFolder,
    progress: machine_progress.Progress,
    streams: Sequence[int] = (),
) -> None:
    log = run_folder.path / "collector.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            collector,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **{"PATH": trust.SYSTEM_PATH, "LANG": "C.UTF-8"},
                **_QUICK,
                **run_folder.environment,
            },
            # A traced command may want the terminal.
            start_new_session=not streams,
            pass_fds=streams,
        )
    try:
        progress.wait(process, log, log)
        process.wait(timeout=_ORDERLY_SECONDS)
    finally:
        # It has a mount and a cgroup to give back; the guardian does so where it cannot.
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_ORDERLY_SECONDS)
        if streams:
            process.kill()
            process.wait()
        else:
            qemu.end(process)


def _keep(folder: Path, run_id: str) -> Path:
    """Copies of a run's logs for the caller, without the environment of a command."""
    kept = Path(tempfile.gettempdir()) / f"zctrace-kept-{run_id}"
    kept.mkdir(mode=0o700)
    for log in (*folder.glob("*.log"), *folder.glob(f"{SHARE}/*")):
        # What is no file, a guest may have put there, or is the socket of a session.
        if log.is_file() and not log.is_symlink() and log.name != ENVIRONMENT:
            shutil.copy(log, kept)
    if caller := trust.caller():
        for path in (*kept.iterdir(), kept):
            os.chown(path, caller.uid, caller.gid)
    return kept
