"""``python -m tests.documents``: what documents show of the program, made by the program.

In README.md and in docs/, these stand between a comment and ``<!-- end -->``:

* ``<!-- output: ARGUMENTS -->``: what ``zctrace ARGUMENTS`` prints at 80 columns. With
  ``| parts 1-3 6`` only these paragraphs; what is left out is shown as ``…``. Files are saved
  results, or recordings of the tests; of one with several results or kernels, ``FILE#NAME``.
* ``<!-- output: python -->``: what the page's Python code up to there gives.
* ``<!-- made: NAME -->``: a piece of Markdown, by a row of ``MADE``.

The drawings in docs/images are made of recordings, too. Outputs that only a measurement
gives have ``<!-- measured: KERNEL, DATE -->`` above them and are not touched.
"""

import contextlib
import functools
import json
import re
import shlex
import sys
import tempfile
from pathlib import Path

from typer.testing import CliRunner

from release import reference, tree
from tests import drawings
from zctrace import cli, output_files
from zctrace.commands import example

ROOT = Path(__file__).parents[1]
MADE = {"options": lambda: reference.text(tree.read())}
IMAGES = {
    "docs/images/read-write-and-sendfile.svg": lambda: drawings.of_evidence(
        evidence("tests/evidence/linux-6.1-e1000.json"), ("read-write", "sendfile"), "e1000"
    ),
}
_MARK = re.compile(r"^<!-- (output|made): (.+?) -->\n(.*?)^<!-- end -->$", re.M | re.S)
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
_LEFT_OUT = "…"


def documents():
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def renewed(text):
    """``text`` with everything between its marks made anew."""
    return _MARK.sub(_made, text)


def _made(mark):
    kind, what, _ = mark.groups()
    if kind == "made":
        content = f"\n{MADE[what]().strip()}\n\n"
    else:
        content = f"```text\n{_output(what, mark.string[: mark.start()])}\n```\n"
    return f"<!-- {kind}: {what} -->\n{content}<!-- end -->"


def _output(what, before):
    if what == "python":
        return _evaluated("\n".join(_PYTHON.findall(before)))
    command, _, chosen = (part.strip() for part in what.partition("|"))
    shown = printed(command)
    return _parts(shown, chosen.removeprefix("parts ")) if chosen else shown


@functools.cache
def printed(arguments):
    """What ``zctrace`` prints with these arguments; raises ``ValueError`` if it fails."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(ROOT):
        words = [_saved(word, Path(folder)) for word in shlex.split(arguments, posix=False)]
        result = CliRunner().invoke(
            cli.app,
            [word.strip("'\"") for word in words],
            env={"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"},
            prog_name="zctrace",
        )
    if result.exit_code:
        raise ValueError(f"zctrace {arguments}: {result.output}") from result.exception
    lines = "\n".join(line.rstrip() for line in result.stdout.splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines).strip("\n")


def evidence(word):
    """What a recorded file of the tests holds; or, of a file with several, what is named."""
    name, _, one = word.strip("'\"").partition("#")
    found = json.loads((ROOT / name).read_text())
    if "kafka" in found:
        return found["evidence"][found["kafka"]["cases"].index(one)]
    if "summary" in found:
        (part,) = (e for e in found["evidence"] if e["kernel"]["release"].startswith(f"{one}."))
        return part
    return found[one] if one else found


def _saved(word, folder):
    """A part of a saved result, or a recorded file of the tests, as a saved result."""
    if "#" not in word and not word.startswith("tests/evidence/"):
        return word
    path = folder / f"{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps({"summary": [], "evidence": [evidence(word)]}))
    return str(path)


def _parts(text, chosen):
    """Paragraphs by number, from 1: ``1-3 6``."""
    paragraphs = text.split("\n\n")
    wanted = set()
    for word in chosen.split():
        first, _, last = word.partition("-")
        wanted.update(range(int(first), int(last or first) + 1))
    if not wanted or min(wanted) < 1 or max(wanted) > len(paragraphs):
        raise ValueError(f"parts {chosen} of {len(paragraphs)}")
    shown = []
    for number, paragraph in enumerate(paragraphs, 1):
        if number in wanted:
            shown.append(paragraph)
        elif not shown or shown[-1] != _LEFT_OUT:
            shown.append(_LEFT_OUT)
    return "\n\n".join(shown)


def _evaluated(code):
    """The value of the last expression, as a prompt shows it."""
    *statements, last = re.split(r"\n(?=\S)", re.sub(r"\n(?=[)\]}])", " ", code.strip()))
    names = {}
    with contextlib.chdir(example.FOLDER):  # as behind zctrace example --json
        exec("\n".join(statements), names)
        return str(eval(last, names))


def main():
    for path in documents():
        text = path.read_text()
        if (new := renewed(text)) != text:
            output_files.write(path, new)
            print(f"renewed {path.relative_to(ROOT)}")
    for name, make in IMAGES.items():
        path, new = ROOT / name, make()
        if not path.exists() or path.read_text() != new:
            path.parent.mkdir(exist_ok=True)
            output_files.write(path, new)
            print(f"renewed {name}")


if __name__ == "__main__":
    sys.exit(main())
