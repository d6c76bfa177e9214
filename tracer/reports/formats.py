"""The forms in which results are written to files: a row each, found by all commands.

Options, the check for what could not be written, and writing follow from ``FORMATS``. A
writer imports late: pandas and what draws take longer than everything else.
"""

from __future__ import annotations

import enum
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zctrace import output_files
from zctrace.errors import OutputError, UsageError

if TYPE_CHECKING:
    from zctrace.analysis.comparison.model import Result
    from zctrace.analysis.program import Answer
    from zctrace.analysis.runs import Judged
    from zctrace.evidence.schema import Evidence


class Of(enum.Enum):
    """The command whose results a format shows."""

    RUN = "zctrace run"
    TRACE = "zctrace trace"
    COMPARE = "zctrace compare"
    PLAN = "zctrace plan"


@dataclass(frozen=True)
class Format:
    """``again`` formats can be written of saved results; ``stacks`` ones need stacks.

    ``files`` makes those of a folder, by their paths in it, in place of ``text``. ``needs`` is
    a Python package that is not everybody's.
    """

    name: str
    of: Of
    help: str
    text: Callable[[Any], str] = lambda results: ""
    again: bool = False
    stacks: bool = False
    files: Callable[[Any], Mapping[str, str | bytes]] | None = None
    needs: str = ""

    @property
    def option(self) -> str:
        return f"--{self.name}"

    def check(self) -> None:
        """Raise :class:`UsageError` where what it needs is not there."""
        if self.needs and importlib.util.find_spec(self.needs) is None:
            raise UsageError(
                f"{self.option} needs the Python package {self.needs}",
                "it is not installed",
                f"pip install {self.needs}",
            )


def _summary_csv(judged: Sequence[Judged]) -> str:
    from zctrace.reports import machine_readable

    return machine_readable.summary_csv(judged)


def _evidence_csv(judged: Sequence[Judged]) -> str:
    from zctrace.reports import machine_readable

    return machine_readable.evidence_csv(judged)


def _result_json(judged: Sequence[Judged]) -> str:
    from zctrace.reports import machine_readable

    return machine_readable.result_json(judged)


def _page(judged: Sequence[Judged]) -> str:
    from zctrace.reports.html import page

    return page.page(judged)


def _markdown(judged: Sequence[Judged]) -> str:
    from zctrace.reports import markdown

    return markdown.document(judged)


def _program_markdown(answers: Sequence[Answer]) -> str:
    from zctrace.reports import markdown

    return markdown.of_programs(answers)


def _differences_markdown(result: Result) -> str:
    from zctrace.reports import markdown

    return markdown.of_comparison(result)


def _program_page(answers: Sequence[Answer]) -> str:
    from zctrace.reports.html import result_page

    return result_page.of_programs(answers)


def _differences_page(result: Result) -> str:
    from zctrace.reports.html import result_page

    return result_page.of_comparison(result)


def _flows_csv(answers: Sequence[Answer]) -> str:
    from zctrace.reports import program_data

    return program_data.flows_csv(answers)


def _program_json(answers: Sequence[Answer]) -> str:
    from zctrace.reports import program_data

    return program_data.result_json(answers)


def _folded(answers: Sequence[Answer]) -> str:
    from zctrace.reports import flamegraph

    return flamegraph.folded(answers)


def _speedscope(answers: Sequence[Answer]) -> str:
    from zctrace.reports import flamegraph

    return flamegraph.speedscope(answers)


def _differences_csv(result: Result) -> str:
    from zctrace.reports import comparison_data

    return comparison_data.differences_csv(result)


def _differences_json(result: Result) -> str:
    from zctrace.reports import comparison_data

    return comparison_data.differences_json(result)


def _parquet_of_runs(judged: Sequence[Judged]) -> Mapping[str, bytes]:
    from zctrace.reports import parquet

    return parquet.of_runs(judged)


def _parquet_of_programs(answers: Sequence[Answer]) -> Mapping[str, bytes]:
    from zctrace.reports import parquet

    return parquet.of_programs(answers)


def _drawings_of_runs(judged: Sequence[Judged]) -> Mapping[str, str]:
    from zctrace.reports.html import drawing, page

    return drawing.files(page.drawings(judged))


def _drawings_of_programs(answers: Sequence[Answer]) -> Mapping[str, str]:
    from zctrace.reports.html import drawing, result_page

    return drawing.files(result_page.drawings_of_programs(answers))


def _drawings_of_differences(result: Result) -> Mapping[str, str]:
    from zctrace.reports.html import drawing, result_page

    return drawing.files(result_page.drawings_of_comparison(result))


def _plan_json(evidence: Evidence) -> str:
    return json.dumps(evidence.to_json(), indent=1) + "\n"


_PAGE = "A page with drawings that needs no network."
_PARQUET = "Tables as Parquet, by host, kernel and date, for DuckDB, pandas and Spark."
_SVG = "The page's drawings, each an SVG file."
_MARKDOWN = "Tables and reasons, as GitHub shows them."
_EVERYTHING = "Everything; zctrace report reads it."
FORMATS = (
    Format("csv", Of.RUN, "Summary, a row per run; - for stdout.", _summary_csv),
    Format(
        "evidence", Of.RUN, "Tidy rows, one per run, role and site, as CSV.", _evidence_csv
    ),
    Format("json", Of.RUN, _EVERYTHING, _result_json),
    Format("html", Of.RUN, _PAGE, _page, again=True),
    Format("markdown", Of.RUN, _MARKDOWN, _markdown, again=True),
    Format("svg", Of.RUN, _SVG, files=_drawings_of_runs, again=True),
    Format(
        "parquet", Of.RUN, _PARQUET, files=_parquet_of_runs, again=True, needs="pyarrow"
    ),
    Format(
        "csv",
        Of.TRACE,
        "A row for each descriptor and call, and for what was copied.",
        _flows_csv,
    ),
    Format("json", Of.TRACE, _EVERYTHING, _program_json),
    Format("html", Of.TRACE, _PAGE, _program_page, again=True),
    Format("markdown", Of.TRACE, _MARKDOWN, _program_markdown, again=True),
    Format("svg", Of.TRACE, _SVG, files=_drawings_of_programs, again=True),
    Format(
        "parquet", Of.TRACE, _PARQUET, files=_parquet_of_programs, again=True, needs="pyarrow"
    ),
    Format(
        "folded",
        Of.TRACE,
        "Stacks and bytes for flamegraph.pl; implies --stacks.",
        _folded,
        again=True,
        stacks=True,
    ),
    Format(
        "speedscope",
        Of.TRACE,
        "Stacks and bytes for speedscope.app; implies --stacks.",
        _speedscope,
        again=True,
        stacks=True,
    ),
    Format("csv", Of.COMPARE, "A row for each figure that differs; - for stdout.",
           _differences_csv),
    Format("json", Of.COMPARE, "The same, with the sentences; - for stdout.",
           _differences_json),
    Format("html", Of.COMPARE, _PAGE, _differences_page),
    Format("markdown", Of.COMPARE, _MARKDOWN, _differences_markdown),
    Format("svg", Of.COMPARE, _SVG, files=_drawings_of_differences),
    Format("json", Of.PLAN, "Plan and kernel facts, for programs; - for stdout.", _plan_json),
)  # fmt: skip


def of(command: Of) -> tuple[Format, ...]:
    """The formats of one command's results."""
    return tuple(one for one in FORMATS if one.of is command)


def named(name: str, command: Of) -> Format:
    """One of them; raises ``KeyError`` where ``command`` has none of that name."""
    return {one.name: one for one in of(command)}[name]


@dataclass(frozen=True)
class Outputs:
    """Where results go, by the names of formats."""

    paths: Mapping[str, Path] = field(default_factory=dict)
    force: bool = False

    @property
    def on_stdout(self) -> bool:
        """Whether one of them goes there: then the report does not."""
        return any(map(output_files.is_stdout, self.paths.values()))

    @property
    def stacks(self) -> bool:
        """Whether a format needs stacks."""
        return any(one.stacks and one.name in self.paths for one in FORMATS)

    def check(self) -> None:
        """Raise :class:`OutputError` for what could not be written later."""
        output_files.check_distinct((f"--{n}", path) for n, path in self.paths.items())
        for name, path in self.paths.items():
            one = next(form for form in FORMATS if form.name == name)
            one.check()
            if one.files:
                output_files.check_folder(path, one.option)
            else:
                output_files.check(path, one.option, force=self.force)

    def write(self, command: Of, results: Any) -> None:
        """Write ``command``'s results in every chosen format.

        Raises the first :class:`OutputError` when all others are written.
        """
        failed = []
        for name, path in self.paths.items():
            try:
                one = named(name, command)
                if one.files:
                    output_files.write_into(path, _some(one, results), force=self.force)
                else:
                    output_files.write(path, one.text(results), force=self.force)
            except OutputError as error:
                failed.append(error)
        if failed:
            raise failed[0]


def _some(one: Format, results: Any) -> Mapping[str, str | bytes]:
    """The files of a folder; raises :class:`OutputError` where there are none."""
    assert one.files is not None
    files = one.files(results)
    if not files:
        raise OutputError(
            f"{one.option}: there is nothing to write",
            "this result has no drawings, or no rows",
            f"without {one.option}",
        )
    return files
