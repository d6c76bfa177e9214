"""The extra instructions as bars: a panel for each operation, a bar for each tracer and kernel.

Each panel has a scale of its own: a read and a context switch differ by a factor of twenty.
"""

from tests.bench import figures, tracers
from tests.bench.tables import OPERATIONS, number
from zctrace.reports.html import canvas
from zctrace.reports.html.canvas import Canvas

WIDTH, NAMES, SHOWN = 860.0, 330.0, 90.0
"""Of the sheet, of the names left of the bars, of the number right of them."""
_BAR, _STEP, _TITLE, _SPACE = 9.0, 11.0, 26.0, 10.0
_SIZE, _SMALL = 14.0, 11.0
_COLOURS = (canvas.CPU, canvas.DMA, canvas.REFERENCE)
_STYLE = """
svg { font-family: "DejaVu Sans", sans-serif; background: var(--page);
  --page: #fff; --ink: #222; --muted: #666; --cpu: #c2410c; --dma: #1d6fa5; --reference: #777 }
@media (prefers-color-scheme: dark) {
  svg { --page: #16181c; --ink: #e6e6e6; --muted: #a0a4ab; --cpu: #f08a4b; --dma: #5fb0e6;
    --reference: #aaa } }
"""


def draw(kernels):
    """A complete SVG file; ``kernels`` are what was found, by kernel."""
    extra = {line: figures.extra(found, figures.TRACED) for line, found in kernels.items()}
    keys = [key for key in tracers.BY_KEY if any(key in of for of in extra.values())]
    group = len(kernels) * _STEP + _SPACE
    panel = _TITLE + len(keys) * group
    paper = Canvas(WIDTH, _TITLE + len(OPERATIONS) * panel)
    for index, line in enumerate(kernels):
        at = _SPACE + index * 110, _TITLE / 2
        paper.text(at, f"Linux {line}", _SIZE, _COLOURS[index], bold=True)
    for index, name in enumerate(OPERATIONS):
        top = _TITLE + index * panel
        paper.text((_SPACE, top + _TITLE / 2), OPERATIONS[name], _SIZE, canvas.INK, bold=True)
        most = max((of[key][name] for of in extra.values() for key in of), default=0)
        scale = (WIDTH - NAMES - SHOWN) / max(most, 1)
        for place, key in enumerate(keys):
            _bars(paper, top + _TITLE + place * group, key, extra, name, scale)
    title = "Extra instructions per operation, in the traced program"
    told = "The same figures are in the tables of the document that shows this picture."
    drawn = paper.written("cost", title, told)
    return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        "<title", f"<style>{_STYLE}</style><title", 1
    )


def _bars(paper, top, key, extra, name, scale):
    middle = top + len(extra) * _STEP / 2
    paper.text((NAMES - 8, middle), tracers.BY_KEY[key].name, _SMALL, canvas.INK, "end")
    for index, of in enumerate(extra.values()):
        y = top + index * _STEP
        value = of[key][name] if key in of else None
        length = max(value or 0, 0) * scale
        paper.bar((NAMES, y), (length, _BAR), _COLOURS[index])
        shown = (
            "not measured"
            if value is None
            else number(value).replace("\N{NO-BREAK SPACE}", " ")
        )
        paper.text((NAMES + length + 4, y + _BAR / 2), shown, _SMALL, canvas.MUTED)
