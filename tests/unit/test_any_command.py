"""Whatever root types: one message with what to try, before anything is booted or measured."""

import errno
import json
import os
import subprocess
import sys

import pytest

from tests.unit.test_any_input import status_of
from tests.unit.test_any_saved import RECORDED
from tests.unit.test_commands import fake_collector, install
from zctrace import cli, errors, output_files
from zctrace.analysis import saved

HUGE = "9" * 5000
WORDS = ("", "\udcff\x1b[31m\n", HUGE, "-1", "./folder")
COMMANDS = {
    "run": ("sendfile",), "trace": ("true",), "check": ("true",), "serve": ("true",),
    "plan": (), "compare": ("run.json", "run.json"), "report": ("run.json",),
}  # fmt: skip
OPTIONS = {
    "run": "--to --module --cpus --size --chunk --pipe-size --user-copies --repeat --nic "
    "--cache --file --fs --skip --mechanism",
    "trace": "--module --user --cpus -d -i",
    "check": "--max-copies --user",
    "serve": "--module --user --cpus",
    "plan": "--mechanism --boot-timeout",
}
KERNELS = ("", "\udcff", HUGE, f"./{HUGE}", "5", "v6.1", "host ", "HOST", "./folder", "./empty",
           "./fifo", "/dev/zero")  # fmt: skip
OUTPUTS = {"run": "evidence", "trace": "folded", "check": "json", "plan": "json",
           "compare": "csv", "report": "markdown"}  # fmt: skip
PLACES = ("", "folder", "absent/x", "circle", "report.html", "report.html/x", HUGE)
PROGRAMS = (
    *("", "\udcff", HUGE, "no-such-command", "./absent", "./folder", "./empty", "./circle"),
    *("./report.html", "./script", "./lost", "./dangling", "./fifo", "/dev/zero"),
)
TWICE = (
    ("run", "--json", "a", "--json", "b"), ("run", "--cpus=1", "--cpus=2"),
    ("trace", "-d", "1", "--duration", "2", "true"), ("plan", "--kernel", "a", "--kernel=b"),
    ("check", "--user", "root", "--user", "nobody", "true"),
    ("report", "run.json", "--html", "a", "--html", "a"),
)  # fmt: skip

ROWS = [
    *(
        (command, option, word, *COMMANDS[command])
        for command, options in OPTIONS.items()
        for option in options.split()
        for word in WORDS
    ),
    *(
        (command, "--kernel", word, *COMMANDS[command])
        for command, words in (("plan", KERNELS), ("trace", KERNELS[:4]), ("run", KERNELS[:4]))
        for word in words
    ),
    *(
        (command, f"--{form}", place, *COMMANDS[command])
        for command, form in OUTPUTS.items()
        for place in (PLACES if command in ("run", "compare") else PLACES[3:5])
    ),
    *(("trace", word) for word in PROGRAMS),
    *((command, word) for command in ("check", "serve") for word in PROGRAMS[-4:]),
    *(("trace", option, word) for option in ("-p", "--cgroup") for word in (*WORDS, "9" * 300)),
    *((command, word) for command in ("kernels fetch", "kernels rm") for word in WORDS),
    *TWICE,
    ("report", "/dev/zero"), ("compare", "/dev/zero", "run.json"), ("doctor", "all"),
    ("compare", "run.json", "run.json", "--csv", "/dev/full"),
    ("report", "run.json", "--html", "/dev/full"),
]  # fmt: skip


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """All that commands look for; the folder, and the collector. What is refused leaves it."""
    folder = tmp_path_factory.mktemp("any")
    with pytest.MonkeyPatch.context() as patch:
        collector = fake_collector(patch, folder)
        install(patch, folder)
        patch.setattr(saved, "_MOST_BYTES", 1 << 20)
        (folder / "run.json").write_text(json.dumps(RECORDED["linux-6.1"]))
        (folder / "folder").mkdir()
        (folder / "report.html").write_text("kept")
        os.mkfifo(folder / "fifo")
        for name, text in (("empty", ""), ("script", "echo\n"), ("lost", "#!/no/shell\n")):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        for link, to in (("dangling", "nowhere"), ("circle", "circle")):
            (folder / link).symlink_to(to)
        for name in ("kernels", "observed/host"):
            (folder / "cache" / name).mkdir(parents=True, exist_ok=True)
        (folder / "cache/lock").touch()
        yield folder, collector


@pytest.mark.parametrize("arguments", ROWS, ids=lambda row: ascii(" ".join(row))[:90])
def test_bad_input_is_one_error(machine, monkeypatch, capsys, arguments):
    folder, collector = machine
    before = sorted(folder.rglob("*"))
    status = status_of(monkeypatch, [*arguments[0].split(), *arguments[1:]])
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert status in {kind.exit_code for kind in errors.ZctraceError.__subclasses__()}, shown
    assert [line.startswith("zctrace: ") for line in lines].count(True) == 1, shown
    assert any(line.startswith("    try: ") for line in lines[1:]), shown
    assert "Traceback" not in shown.err
    assert shown.err.replace("\n", "").isprintable()
    assert shown.out == ""
    assert collector.requests == []
    assert sorted(folder.rglob("*")) == before
    assert (folder / "report.html").read_text() == "kept"


@pytest.mark.parametrize("columns", ["50", "garbage", "-1", "0", "²", HUGE, None])
@pytest.mark.parametrize("term", ["", "no-such-terminal", None])
def test_no_terminal_is_too_small_for_a_word(machine, monkeypatch, capsys, columns, term):
    for name, value in (("COLUMNS", columns), ("TERM", term)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert status_of(monkeypatch, ["report", "absent"]) == errors.UsageError.exit_code
    shown = capsys.readouterr()
    assert (shown.out, shown.err.splitlines()) == (
        "",
        [
            "zctrace: absent: No such file or directory",
            "    why: the file cannot be read",
            "    try: the path of a file that zctrace run --json has written",
        ],
    )


@pytest.mark.parametrize("command", ["kernels", "kernels rm x", "kernels fetch 6.1", "doctor"])
@pytest.mark.parametrize("cache", [HUGE, "report.html", "/proc"])
def test_a_cache_that_is_none_is_one_error_or_empty(
    machine, monkeypatch, capsys, command, cache
):
    monkeypatch.setenv("ZCTRACE_CACHE", cache)
    status = status_of(monkeypatch, command.split())
    told = [line for line in capsys.readouterr().err.splitlines() if line[:9] == "zctrace: "]
    assert len(told) == (1 if status else 0)
    assert status or command in ("kernels", "doctor")


def test_two_names_of_one_file_as_outputs_are_two_files_then(machine, monkeypatch, tmp_path):
    """A file is replaced as a whole: what another name of it had stays with that name."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("before")
    second.hardlink_to(first)
    compare = ["compare", "run.json", "run.json", "--csv", str(first), "--json", str(second)]
    assert status_of(monkeypatch, compare) == errors.OutputError.exit_code
    assert first.read_text() == "before"
    assert status_of(monkeypatch, [*compare, "--force"]) in (0, None)
    assert first.read_text().startswith("compared,")
    assert "headline" in json.loads(second.read_text())


@pytest.mark.parametrize(
    "place", [(saved, "read"), (cli, "app"), (output_files, "_target"), (os, "fsync")]
)
def test_ctrl_c_is_a_word_and_a_status_and_leaves_nothing(machine, monkeypatch, capsys, place):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    folder, _ = machine
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(*place, interrupted)
    status = status_of(monkeypatch, ["report", "run.json", "--markdown", "page"])
    assert status == errors.INTERRUPTED
    assert capsys.readouterr().err == "zctrace: interrupted; everything was cleaned up\n"
    assert sorted(folder.rglob("*")) == before


def test_ctrl_c_while_everything_is_imported_is_a_word_and_a_status():
    """The first thing that the command line imports interrupts, as somebody may."""
    code = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # those in the background ignore it

class Interrupts:
    def find_spec(self, name, *_):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
from zctrace import __main__
__main__.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (errors.INTERRUPTED, "zctrace: interrupted\n")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOSPC])
def test_what_is_used_up_is_one_error(machine, monkeypatch, capsys, number):
    def used_up(*_):
        raise OSError(number, os.strerror(number), "page.html")

    monkeypatch.setattr(saved, "read", used_up)
    assert status_of(monkeypatch, ["report", "run.json"]) == errors.ResourceError.exit_code
    what, why, hint = capsys.readouterr().err.splitlines()
    assert what.startswith("zctrace: there is no ")
    assert why == f"    why: {os.strerror(number)}: page.html"
    assert hint.startswith("    try: ")
