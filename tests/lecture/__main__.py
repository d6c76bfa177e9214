"""``python -m tests.lecture RESULT``: docs/lecture, from what ``zctrace run --json`` saved.

``index.md`` and ``zh.md`` here are the pages' texts, in English and in Chinese. Each names the
figures that it is right for. Where other figures were measured, nothing is written.
"""

import sys
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tests import drawings
from zctrace.analysis import saved
from zctrace.analysis.verdicts import Word
from zctrace.reports import machine_readable, wording

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "docs" / "lecture"
PAGES = ("index.md", "zh.md")
PAYLOAD = 1 << 20
"""Bytes of the file that the texts are about."""
_FIGURES = {
    "cpu_copies": ("claimed_cpu_copies", "verdict_copies"),
    "dma_copies": ("claimed_dma_copies", "verdict_dma"),
    "mode_switches": ("claimed_switches", "verdict_switches"),
}
"""Of each figure, what is claimed and whether the claim holds."""
_MARKS = {Word.HOLDS.value: "✓", Word.REFUTED.value: "✗"}
_DOES_NOT_GATHER = "e1000-nosg"


def files(judged):
    """Everything in docs/lecture, by name; raises ``ValueError`` where a text is not right."""
    made = {"figures.csv": machine_readable.summary_csv(judged)}

    def of(strategy, nic, figures):
        """Its runs, one for each kernel."""
        found = [j for j in judged if (j.run.strategy, j.run.nic) == (strategy, nic)]
        if not found:
            raise ValueError(f"no run of {strategy} over {nic}")
        for one in found:
            _require(one, figures)
        return found

    def measured(strategy, nic, figures, columns, title):
        runs = of(strategy, nic, dict(zip(_FIGURES, figures, strict=True)))
        image = f"{strategy}-{nic}.svg"
        # All kernels have the same figures, or there would be no text.
        made[image] = drawings.stacked(runs[-1:], (strategy,), nic)
        lines = [[wording.release(j), *(_cell(j, name) for name in _FIGURES)] for j in runs]
        return f"{_table(columns, lines)}\n\n[![{title}]({image})]({image})"

    def without(copies, columns):
        lines = [
            [f"`{strategy}`", wording.release(j), f"{j.figures['cpu_copies']:g}"]
            for strategy, right in copies.items()
            for j in of(strategy, _DOES_NOT_GATHER, {"cpu_copies": right})
        ]
        return _table(columns, lines)

    dates = {wording.made(j.evidence)["ended"][:10] for j in judged}
    environment = Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "measured": measured,
        "without": without,
        "kernels": len({wording.release(j) for j in judged}),
        "date": ", ".join(sorted(dates)),
    }
    pages = {name: environment.get_template(name).render() for name in PAGES}
    return {**made, **pages}


def _require(judged, figures):
    for name, right in figures.items():
        if judged.figures[name] != right or judged.run.payload_bytes != PAYLOAD:
            raise ValueError(
                f"{judged.run.strategy} over {judged.run.nic}, {wording.release(judged)}: "
                f"{name} is {judged.figures[name]}, and the text is about {right}"
            )


def _cell(judged, name):
    claimed, verdict = (judged.figures[other] for other in _FIGURES[name])
    return f"{judged.figures[name]:g} ({claimed}) {_MARKS.get(verdict, '')}"


def _table(columns, lines):
    alignment = " | ".join("--:" if "(" in one or "CPU" in one else ":--"
                           for one in columns.split(" | "))  # fmt: skip
    rows = [" | ".join(line) for line in lines]
    return "\n".join(f"| {row} |" for row in (columns, alignment, *rows))


def main():
    made = files(saved.read(Path(sys.argv[1])).runs)
    FOLDER.mkdir(exist_ok=True)
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"wrote docs/lecture/{name}")


if __name__ == "__main__":
    main()
