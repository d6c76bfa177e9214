"""What the documents promise is there, and what they show is what the program prints."""

import functools
import importlib.util
import os
import re
import shlex
import subprocess
import sys

import pytest
import typer

from tests import documents
from tests.conftest import HERE, or_skip
from zctrace import cli, errors
from zctrace.analysis import columns
from zctrace.analysis.rows import Row
from zctrace.evidence.origin import FACTS
from zctrace.reports import comparison_data, program_data
from zctrace.session.api import Session, Window

ROOT = HERE.parent
DOCS = ROOT / "docs"
DOCUMENTS = {str(path.relative_to(ROOT)): path.read_text() for path in documents.documents()}
README = DOCUMENTS["README.md"]
LINES = 180
"""The most that README has."""
ASKED = ("sendfile", "kTLS", "does nginx copy", "io_uring", "Kafka", "MSG_ZEROCOPY")
"""What people search for."""
_OUTPUT = re.compile(r"──|← |^(?:Not )?zero-copy for", re.I | re.M)
_MARKED = re.compile(r"<!-- output: |<!-- measured: Linux [\d.]+, \d{4}-\d\d")
_LINK = re.compile(r"\]\(([^()\s]+)\)")


def fences(text):
    """Code blocks: the line above, the language, the text."""
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [(text[: f.start()].rstrip("\n").rpartition("\n")[2], f[1], f[2]) for f in found]


def prose(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def section(text, heading):
    """What stands below a heading, up to the next of its level."""
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def first_cells(text):
    """Names in the first column of tables."""
    return [name for row in re.findall(r"^\| (`[^|]*) \|", text, re.M)
            for name in re.findall(r"`(\w+)`", row)]  # fmt: skip


def test_readme_is_short():
    assert len(README.splitlines()) <= LINES


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_documents_show_is_what_the_program_prints(name):
    assert documents.renewed(DOCUMENTS[name]) == DOCUMENTS[name], "python -m tests.documents"


@pytest.mark.parametrize("name", documents.IMAGES)
def test_drawings_are_those_of_saved_results(name):
    assert documents.IMAGES[name]() == (ROOT / name).read_text(), "python -m tests.documents"


def test_outputs_are_made_from_what_stands_between_the_marks():
    text = "a\n<!-- output: example cp | parts 1 -->\nold\n<!-- end -->\nb\n"
    new = documents.renewed(text)
    first = documents.printed("example cp").split("\n\n")[0]
    assert new.splitlines()[0] == "a"
    assert new.splitlines()[-1] == "b"
    assert first in new
    assert "old" not in new
    with pytest.raises(ValueError, match="parts 99"):
        documents.renewed(text.replace("parts 1", "parts 99"))
    with pytest.raises(ValueError, match="report no-such-file"):
        documents.renewed(text.replace("example cp", "report no-such-file"))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_output_is_typed(name):
    """Each is made from a saved result, or says on which kernel and when it was measured."""
    typed = [
        text
        for above, kind, text in fences(DOCUMENTS[name])
        if (kind == "text" or _OUTPUT.search(text)) and not _MARKED.match(above)
    ]
    assert typed == []


def test_every_exit_code_is_documented():
    table = DOCUMENTS["docs/reference/exit-codes.md"]
    documented = {int(n) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.M)
                  for n in row.split(",")}  # fmt: skip
    codes = {kind.exit_code for kind in errors.ZctraceError.__subclasses__()}
    signals = {errors.INTERRUPTED, errors.TERMINATED, errors.HUNG_UP, 141}
    assert documented == codes | {0, 1} | signals


CSV = {
    "zctrace run --csv": columns.COLUMNS,
    "zctrace run --evidence": Row._fields,
    "zctrace trace --csv": program_data.COLUMNS,
    "zctrace compare --csv": comparison_data.COLUMNS,
}


@pytest.mark.parametrize("heading", CSV)
def test_every_column_is_documented_where_it_stands(heading):
    text = DOCUMENTS["docs/reference/csv.md"]
    everywhere = first_cells(text.partition("\n## ")[0])
    assert tuple(everywhere) == FACTS
    below = section(text, heading)
    documented = first_cells(below)
    if heading.endswith("--evidence"):
        documented += re.findall(r"`(\w+)`", below.partition("\n| ")[0])
    wanted = [column for column in CSV[heading] if column not in everywhere]
    if heading.endswith("--evidence"):
        documented, wanted = sorted(documented), sorted(wanted)
    assert documented == wanted


def test_every_member_of_a_saved_trace_is_documented():
    source = (ROOT / "tracer" / "reports" / "program_data.py").read_text()
    summary = source.partition("def _summary")[2].partition("\ndef ")[0]
    members = re.findall(r'^        "(\w+)": ', summary, re.M)
    assert len(members) > 15
    assert set(members) <= set(first_cells(DOCUMENTS["docs/reference/json.md"]))


def test_every_public_name_of_a_window_is_documented():
    text = DOCUMENTS["docs/reference/python.md"]
    names = [name for name in vars(Window) if not name.startswith("_")]
    assert sorted(first_cells(section(text, "Window"))) == sorted(names)
    of_session = re.findall(r"`session\.(\w+)\(", section(text, "Session"))
    assert sorted(of_session) == sorted(n for n in vars(Session) if not n.startswith("_"))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_named_files_exist(name):
    folders = "docs|probes|workloads|tracer|tests|release"
    named = re.findall(rf"(?<![\w/])((?:{folders})/[\w./-]*\w)", DOCUMENTS[name])
    assert [path for path in named if not (ROOT / path).exists()] == []


def anchor(heading):
    """As GitHub makes it, and the site too."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    broken = []
    for link in _LINK.findall(prose(DOCUMENTS[name])):
        if "://" in link:
            continue
        file, _, part = link.partition("#")
        target = ((ROOT / name).parent / file).resolve() if file else ROOT / name
        if not target.exists():
            broken.append(link)
        elif part:
            headings = re.findall(r"^#+ (.+)$", prose(target.read_text()), re.M)
            if part not in map(anchor, headings):
                broken.append(link)
    assert broken == []


def test_every_page_is_in_the_navigation_once():
    pages = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
    navigation = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(navigation) == pages


def commands(text):
    """Command lines of zctrace in code blocks, and in code within a line."""
    lines = [line for _, kind, block in fences(text) if kind != "text"
             for line in block.splitlines()]  # fmt: skip
    lines += re.findall(r"`([^`\n]+)`", prose(text))
    for line in lines:
        found = re.search(r"(?:^|(?:^|run: |\| )sudo )zctrace( .+)?$", line)
        if found and found[1]:
            yield found[1].strip()


@functools.cache
def program():
    return typer.main.get_command(cli.app)


def parsed(line):
    """Raise what the command line raises for these arguments; nothing is run."""
    words = shlex.split(re.sub(r'"?\$\([^)]*\)"?', "1", line), comments=True)
    command, name = program(), "zctrace"
    while words and words[0] in getattr(command, "commands", ()):
        name, words = words[0], words[1:]
        command = command.commands[name]
    if name == "zctrace":
        raise ValueError(f"no such command: {line}")
    try:
        command.make_context(name, words)
    except Exception as error:
        # `zctrace report` in a sentence is the command's name.
        if type(error).__name__ != "MissingParameter" or words:
            raise


@pytest.mark.parametrize("name", DOCUMENTS)
def test_command_lines_are_the_program_s(name):
    for line in commands(DOCUMENTS[name]):
        if not re.match(r"[A-Z…]|--(help|version)|\S+ --help", line):
            parsed(line)


def test_command_lines_are_found_and_refused():
    text = "`sudo zctrace run --nic lo`\n\n```\nzctrace run --bogus\n```\n"
    assert sorted(commands(text)) == ["run --bogus", "run --nic lo"]
    parsed("run --nic lo")
    for wrong in ("run --bogus", "trace -p nginx", "report --html", "fly"):
        with pytest.raises(Exception, match=r"bogus|whole number|fly|requires an argument"):
            parsed(wrong)
    assert len(list(commands(README))) > 10


@pytest.mark.parametrize("asked", ASKED)
def test_what_people_ask_is_a_heading(asked):
    headings = re.findall(r"^## (.+)$", DOCUMENTS["docs/questions.md"], re.M)
    assert any(asked.lower() in heading.lower() for heading in headings)


def build_site(folder):
    """The exit code of mkdocs, and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout


def test_the_site_is_built_without_a_warning(tmp_path):
    if not importlib.util.find_spec("mkdocs"):
        or_skip("mkdocs is not installed: make docs")
    assert build_site(tmp_path / "site") == (0, "")
    found = (tmp_path / "site" / "search" / "search_index.json").read_text()
    assert all(asked.lower() in found.lower() for asked in ASKED)


def test_the_changelog_knows_the_version():
    from zctrace._version import RELEASE

    assert f"## {RELEASE}" in (ROOT / "CHANGELOG.md").read_text()
