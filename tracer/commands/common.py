"""What several commands need: outputs, rights, the place to measure at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from zctrace import output_files
from zctrace.commands.progress import notice
from zctrace.errors import ControlError, RightsError, UsageError
from zctrace.machine import places as machine_places
from zctrace.machine.places import Place

if TYPE_CHECKING:
    from zctrace.analysis.program import Answer
    from zctrace.analysis.runs import Judged

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Outputs:
    """Where results go, ``None`` for nowhere."""

    csv: Path | None = None
    evidence: Path | None = None
    json: Path | None = None
    force: bool = False
    html: Path | None = None
    markdown: Path | None = None
    folded: Path | None = None
    speedscope: Path | None = None

    def chosen(self) -> list[tuple[str, Path]]:
        every = (
            ("--csv", self.csv),
            ("--evidence", self.evidence),
            ("--json", self.json),
            ("--html", self.html),
            ("--markdown", self.markdown),
            ("--folded", self.folded),
            ("--speedscope", self.speedscope),
        )
        return [(option, path) for option, path in every if path is not None]

    @property
    def on_stdout(self) -> bool:
        """Whether one of them goes there: then the report does not."""
        return any(output_files.is_stdout(path) for _, path in self.chosen())

    def check(self) -> None:
        """Raise :class:`OutputError` for what could not be written later."""
        output_files.check_distinct(self.chosen())
        for option, path in self.chosen():
            output_files.check(path, option, force=self.force)

    def write(self, forms: Mapping[str, Callable[[_Found], str]], found: _Found) -> None:
        """Every form that was asked for, by its option; raises :class:`OutputError`."""
        for option, path in self.chosen():
            output_files.write(path, forms[option](found))


def require_collector() -> None:
    """Raise ``ZctraceError`` for the first thing without which nothing can be counted."""
    require_root("only root may attach probes to a kernel")
    machine_places.require_architecture()
    machine_places.require_modules()


def require_command(command: Sequence[str]) -> None:
    """Raise :class:`UsageError` where a command to start is not there."""
    if command and not shutil.which(command[0]):
        raise UsageError(f"{command[0]}: there is no such command")


def require_root(why: str) -> None:
    if os.geteuid() != 0:
        raise RightsError(
            "zctrace needs root for this",
            why,
            "sudo zctrace …; the strategies themselves run as you, not as root",
        )


def require_controls(results: Sequence[Judged] | Sequence[Answer]) -> None:
    """Raise :class:`ControlError` where one failed."""
    if any(result.failed for result in results):
        raise ControlError(
            "controls failed: the numbers are not to be trusted",
            "a probe that should have counted known bytes did not count exactly those",
            "zctrace doctor; then report it with the --json file",
        )


def find(name: str, say: machine_places.Say) -> Place:
    """The place for ``--kernel name``, with a notice where it is not the first choice."""
    place = machine_places.find_place(name, say)
    if place.kernel and place.instead:
        notice(
            f"this machine's kernel {os.uname().release} cannot be measured: {place.instead}"
        )
        notice(f"using the stock kernel {place.kernel.release} in a virtual machine instead")
    return place


def write(judged: Sequence[Judged], outputs: Outputs) -> None:
    """Every form that was asked for; raises :class:`OutputError`."""
    from zctrace.reports import machine_readable, markdown

    forms = {
        "--csv": machine_readable.summary_csv,
        "--evidence": machine_readable.evidence_csv,
        "--json": machine_readable.result_json,
        "--html": _page,
        "--markdown": markdown.document,
    }
    outputs.write(forms, judged)


def _page(judged: Sequence[Judged]) -> str:
    # Late: only this form needs what draws and what fills in templates.
    from zctrace.reports.html import page

    return page.page(judged, os.uname().release)
