"""Documents use plain words, in sentences that can be read once."""

import ast
import io
import re
import tokenize

import pytest

from tests import documents
from tests.unit.test_imports import MODULES

ROOT = documents.ROOT
NOT_PLAIN = re.compile(
    r"\b(nobody|of which|told|beside|all the same|meanwhile|whoever|lies|vouch\w*)\b", re.I
)
ALLOWED = "<!-- words: allowed -->"
MOST_WORDS = 25
"""Of a sentence."""
ELSEWHERE = {f"docs/{name}.md" for name in ("results", "reach", "cost", "reliability")}
"""The program's own sentences, which make's targets write."""
LONG = ELSEWHERE | {
    f"docs/{name}.md"
    for name in (
        "install", "paths", "transformed",
        "kernel-findings", "java-findings", "netty-findings", "kafka-findings",
    )
}  # fmt: skip
"""Older documents, with sentences that are longer."""
DOCUMENTS = {str(path.relative_to(ROOT)): path for path in documents.documents()}


def prose(text):
    """What a person wrote: no code, no comments, nothing that the program made."""
    text = "\n".join(line for line in text.splitlines() if ALLOWED not in line)
    text = re.sub(r"^<!-- made: .*?^<!-- end -->$", "", text, flags=re.M | re.S)
    text = re.sub(r"^```.*?^```$|<!--.*?-->", "", text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "`", text)


def sentences(text):
    """Of paragraphs, of points of lists, and of cells of tables."""
    text = re.sub(r"\]\([^)]*\)", "]", prose(text))
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:\* |\d+\. |\||#))|(?<!\\)\|", text):
        words = re.sub(r"^\s*(?:\* |\d+\. |#+ )|\*\*|[*_]", "", " ".join(block.split()))
        yield from re.split(r"(?<=[.:;?!])\s+(?=\S)", words)


def words(sentence):
    return [word for word in sentence.split() if re.search(r"[\w`]", word)]


@pytest.mark.parametrize("name", sorted(DOCUMENTS.keys() - ELSEWHERE))
def test_words_are_plain(name):
    found = [
        line for line in prose(DOCUMENTS[name].read_text()).splitlines()
        if NOT_PLAIN.search(line)
    ]  # fmt: skip
    assert found == []


@pytest.mark.parametrize("name", sorted(DOCUMENTS.keys() - LONG))
def test_sentences_are_short(name):
    found = sentences(DOCUMENTS[name].read_text())
    assert [one for one in found if len(words(one)) > MOST_WORDS] == []


def test_a_line_can_be_allowed_and_code_is_not_looked_at():
    text = f"As `nobody` runs.\n\n```\nmeanwhile\n```\n\nHe told her. {ALLOWED}\nHe lies.\n"
    assert NOT_PLAIN.findall(prose(text)) == ["lies"]
    found = sentences("One two. Three\nfour five: six.\n\n* a b\n")
    assert [len(words(one)) for one in found] == [2, 3, 1, 2]


def spoken(tree):
    """Texts of a module that have a blank: its messages. Not its docstrings."""
    bodies = [
        node.body for node in ast.walk(tree) if isinstance(getattr(node, "body", 0), list)
    ]
    silent = {id(one.value) for body in bodies for one in body if isinstance(one, ast.Expr)}
    for node in ast.walk(tree):
        said = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if said and id(node) not in silent and " " in node.value:
            yield node.value


def test_what_the_program_says_is_plain():
    found = {
        name: texts
        for name, path in MODULES.items()
        if (texts := [t for t in spoken(ast.parse(path.read_text())) if NOT_PLAIN.search(t)])
    }
    assert found == {}


def written(path):
    """Comments and docstrings of a module, a line each, with its number."""
    source = path.read_text()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield from enumerate(str(node.value.value).splitlines(), node.lineno)


def test_what_the_code_says_is_plain():
    found = [
        f"{name}:{number}: {line.strip()}"
        for name, path in MODULES.items()
        for number, line in written(path)
        if NOT_PLAIN.search(re.sub(r"``[^`]*``|:\w+:`[^`]*`", "", line))
    ]
    assert found == []


@pytest.mark.parametrize(
    "path", sorted((ROOT / "probes" / "bpf").iterdir()), ids=lambda p: p.name
)
def test_what_the_meter_says_is_plain(path):
    comments = re.findall(r"/\*.*?\*/", path.read_text(), re.S)
    assert comments
    assert [one for one in comments if NOT_PLAIN.search(one)] == []


def test_comments_and_docstrings_are_seen(tmp_path):
    path = tmp_path / "a.py"
    path.write_text('"""One.\n\nTwo."""\nX = "no"  # three\n"""Four."""\n')
    assert sorted(written(path)) == [
        (1, "One."), (2, ""), (3, "Two."), (4, "# three"), (5, "Four."),
    ]  # fmt: skip
