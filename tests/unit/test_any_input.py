"""Whatever is typed: one message with what and what to try, the exit code, nothing left."""

import functools
import os

import pytest
import typer.main

from zctrace import cli, errors

WORDS = ("", "-1", "0x10", "nan", "inf", "1e999", "9" * 30 + "x", "\x1b[31m", "\udcff")
NO_NUMBERS = ("1_0", "٣", "１", " 1", "1 ", "1s", "1,5", "²")
NUMBERS = ("run --size", "run --chunk", "run --runs", "run --user-copies", "trace -p")
TIMES = ("run --boot-timeout", "trace -d", "trace -i", "trace --boot-timeout", "check -d")
NAMES = ("run --nic", "run --cache", "run --fs", "run --skip", "run --mechanism", "run --cpus")
COMMANDS = ("run", "strategies", "kernels", "kernels rm", "report", "compare", "")
FILES = ("absent", "folder", "empty", "broken", "binary", "dangling", "circle", "/dev/null")
OUTPUTS = ("folder", "absent/x", "circle", "empty/x", "report.html")

CACHE = {"cache", "cache/kernels", "cache/lock"}
"""What a cache has although nothing is in it."""

ROWS = [
    *((*option.split(), word) for option in (*NUMBERS, *TIMES, *NAMES) for word in WORDS),
    *((*"check --max-copies".split(), word, "--", "true") for word in WORDS),
    *(
        (*option.split(), word)
        for option in (*NUMBERS[2:3], *NUMBERS[4:], *TIMES)
        for word in NO_NUMBERS
    ),
    *((*"check --max-copies".split(), word, "--", "true") for word in NO_NUMBERS),
    *((*command.split(), f"no-{word}") for command in COMMANDS for word in WORDS),
    *((*command.split(), f"--no-{word}") for command in COMMANDS for word in WORDS),
    *(("report", name) for name in FILES),
    *(("compare", name, name) for name in FILES),
    *(("run", "--file", name) for name in FILES),
    *(("run", "--kernel", f"./{name}") for name in FILES[:1]),
    *(
        ("report", "empty", f"--{form}", name)
        for form in ("html", "markdown")
        for name in (*OUTPUTS, "/dev/fd/²", "/dev/fd/" + "9" * 30)
    ),
    *(
        ("report", "empty", "--html", "same", "--markdown", other)
        for other in ("same", "./same", "folder/../same", "link")
    ),
    ("report", "empty", "--html", "-", "--markdown", "/dev/stdout"),
]


COMMAND = functools.cache(typer.main.get_command)
"""Made once of the parameters, and not for every row."""


@pytest.fixture
def surroundings(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "broken").write_text("{")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    (tmp_path / "report.html").write_text("kept")
    for link, to in (("dangling", "nowhere"), ("circle", "circle"), ("link", "same")):
        (tmp_path / link).symlink_to(to)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZCTRACE_CACHE", str(tmp_path / "cache"))
    # Where a row gets further than it should, it must not measure.
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return tmp_path


def status_of(monkeypatch, arguments):
    monkeypatch.setattr("sys.argv", ["zctrace", *arguments])
    monkeypatch.setattr(typer.main, "get_command", COMMAND)
    return cli._status()


@pytest.mark.parametrize("arguments", ROWS, ids=lambda row: ascii(" ".join(row)))
def test_bad_input_is_one_error(surroundings, monkeypatch, capsys, arguments):
    monkeypatch.setenv("COLUMNS", "10")
    before = sorted(surroundings.rglob("*"))
    status = status_of(monkeypatch, arguments)
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert status in {kind.exit_code for kind in errors.ZctraceError.__subclasses__()}, shown
    assert [line.startswith("zctrace: ") for line in lines].count(True) == 1, shown
    assert lines[0].startswith("zctrace: ")
    assert any(line.startswith(("    why: ", "    try: ")) for line in lines[1:]), shown
    assert "Traceback" not in shown.err
    assert "\x1b" not in shown.err
    assert shown.out == ""
    left = {
        str(p.relative_to(surroundings)) for p in surroundings.rglob("*") if p not in before
    }
    assert left <= CACHE
    assert (surroundings / "report.html").read_text() == "kept"
