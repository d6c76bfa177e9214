"""Names that somebody else has chosen reach no terminal as they are."""

import pytest

from zctrace import cli, errors
from zctrace.printable import printable
from zctrace.reports import flamegraph, markdown
from zctrace.reports.text.layout import new_table, print_table
from zctrace.reports.text.terminal import Terminal


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain – ü", "plain – ü"),
        ("1\u202f000\xa0B", "1\u202f000\xa0B"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("two\nlines\r\t", r"two\nlines\r\t"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202eb\u200b", r"a\u202eb\u200b"),
        ("\udcff", r"\xff"),
    ],
)
def test_what_is_not_printable_is_escaped(name, shown):
    assert printable(name) == shown


def test_a_terminal_gets_no_escape_sequence_and_no_markup_of_a_name(capsys):
    terminal = Terminal()
    terminal.print("[bold]a[/x]\x1b[2J", soft_wrap=True)
    table = new_table("name", "bytes")
    table.add_row("[/red]\x1b]0;x\u202e", "1048576")
    print_table(table, terminal)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert r"[bold]a[/x]\x1b[2J" in shown
    assert "1048576" in shown


def test_an_error_cannot_be_continued_by_a_name(capsys):
    cli._complain(errors.UsageError("/tmp/x\n    try: rm -r /\x1b[0m: no such file", "why"))
    shown = capsys.readouterr().err.splitlines()
    assert shown == [r"zctrace: /tmp/x\n    try: rm -r /\x1b[0m: no such file", "    why: why"]


def test_a_markdown_row_stays_one_row():
    assert markdown._row("a\nb|c", "1") == r"| a\nb\|c | 1 |"


def test_a_frame_of_folded_stacks_stays_one():
    assert flamegraph._escaped("a;b\nc 7") == r"a:b\nc 7"
