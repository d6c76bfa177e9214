import contextlib
import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import walked_by_everybody
from zctrace import output_files
from zctrace.analysis import saved
from zctrace.commands.example import FOLDER
from zctrace.errors import OutputError
from zctrace.reports import formats


def test_written_whole(tmp_path):
    output_files.write(tmp_path / "a", "text\n")
    assert (tmp_path / "a").read_text() == "text\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_name_that_is_not_utf_8_is_escaped(tmp_path, stream):
    path = tmp_path / "a"
    if stream:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        output_files.write(Path(f"/dev/fd/{descriptor}"), "caf\udce9\n")
        os.close(descriptor)
    else:
        output_files.write(path, "caf\udce9\n")
    assert path.read_bytes() == b"caf\\udce9\n"


def test_an_existing_file_is_not_overwritten(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(OutputError, match="exists already"):
        output_files.check(tmp_path / "a", "--csv", force=False)
    output_files.check(tmp_path / "a", "--csv", force=True)
    assert (tmp_path / "a").read_text() == "old"


def test_no_folder(tmp_path):
    with pytest.raises(OutputError, match="no folder"):
        output_files.check(tmp_path / "b" / "a", "--csv", force=False)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(OutputError, match="is a folder"):
        output_files.check(tmp_path, "--csv", force=True)


def test_checking_leaves_nothing(tmp_path):
    output_files.check(tmp_path / "a", "--csv", force=False)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        output_files.write(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_files_belong_to_whoever_called_sudo(tmp_path, monkeypatch):
    monkeypatch.setenv("SUDO_UID", "65534")
    monkeypatch.setenv("SUDO_GID", "65534")
    output_files.write(tmp_path / "a", "")
    status = (tmp_path / "a").stat()
    assert (status.st_uid, status.st_gid) == (65534, 65534)


def test_a_dash_is_standard_output(capsys):
    output_files.check(output_files.STDOUT, "--csv", force=False)
    output_files.write(output_files.STDOUT, "row\n")
    assert capsys.readouterr().out == "row\n"


def test_devices_are_written_to_and_never_replaced():
    full = Path("/dev/full")
    output_files.check(full, "--csv", force=True)
    with pytest.raises(OutputError, match="No space left"):
        output_files.write(full, "text")
    output_files.check(Path("/dev/null"), "--csv", force=False)
    output_files.write(Path("/dev/null"), "text")
    assert full.is_char_device()
    assert Path("/dev/null").is_char_device()


def test_a_link_stays_and_its_target_is_written(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    with pytest.raises(OutputError, match="exists already"):
        output_files.check(tmp_path / "link", "--csv", force=False)
    output_files.write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_a_link_to_nothing_yet(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/target")
    output_files.check(tmp_path / "link", "--csv", force=False)
    output_files.write(tmp_path / "link", "new")
    assert (tmp_path / "folder" / "target").read_text() == "new"


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output_by_another_name(tmp_path, capsys, name):
    """It is appended to, whatever is behind it, and the name stays what it was."""
    if name == "link":
        (tmp_path / "link").symlink_to("/dev/stdout")
        name = tmp_path / "link"
    before = Path("/dev/stdout").readlink()
    assert output_files.is_stdout(Path(name))
    output_files.check(Path(name), "--csv", force=False)
    output_files.write(Path(name), "row\n")
    assert capsys.readouterr().out == "row\n"
    assert Path("/dev/stdout").readlink() == before


def test_a_descriptor_of_a_file_is_written_where_it_stands(tmp_path):
    with (tmp_path / "a").open("w") as file:
        file.write("before\n")
        file.flush()
        output_files.write(Path(f"/dev/fd/{file.fileno()}"), "row\n")
    assert (tmp_path / "a").read_text() == "before\nrow\n"
    assert not output_files.is_stdout(tmp_path / "a")


def test_a_pipe_is_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    output_files.check(tmp_path / "pipe", "--csv", force=False)
    output_files.write(tmp_path / "pipe", "row\n")
    assert os.read(reader, 100) == b"row\n"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("same", "same"),
        ("same", "folder/../same"),
        ("same", "link"),
        ("-", "/dev/stdout"),
        ("/dev/fd/1", "-"),
    ],
)
def test_two_outputs_to_one_place(tmp_path, monkeypatch, one, other):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("same")
    with pytest.raises(OutputError, match="same place"):
        output_files.check_distinct([("--csv", Path(one)), ("--json", Path(other))])


def test_outputs_to_different_places(tmp_path):
    null = Path("/dev/null")
    output_files.check_distinct(
        [("--csv", tmp_path / "a"), ("--json", tmp_path / "b"), ("--html", null), ("--x", null)]
    )


def test_files_are_utf_8_whatever_the_locale(tmp_path):
    script = (
        "from pathlib import Path\nfrom zctrace import output_files\n"
        "output_files.write(Path('a'), '\\u2013')"
    )
    environment = {
        **os.environ,
        "LC_ALL": "POSIX",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "a").read_bytes() == "–".encode()


STRANGER, CALLER = 61234, 61235
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")


@pytest.fixture
def sudo(monkeypatch, tmp_path):
    """We are root, and CALLER has called sudo; folders above can be walked by everybody."""
    monkeypatch.setenv("SUDO_UID", str(CALLER))
    monkeypatch.setenv("SUDO_GID", str(CALLER))
    walked_by_everybody(tmp_path)
    return tmp_path


def given(folder, uid, mode=0o755):
    folder.mkdir()
    os.chown(folder, uid, uid)
    folder.chmod(mode)
    return folder


@as_root
@pytest.mark.parametrize("option", ["--csv"])
def test_root_writes_into_nobody_s_folder_where_the_caller_may_not(sudo, option):
    theirs = given(sudo / "theirs", STRANGER)
    with pytest.raises(OutputError, match="Permission denied") as refused:
        output_files.check(theirs / "a", option, force=True)
    assert f"user {CALLER}" in refused.value.why
    with pytest.raises(OutputError, match="Permission denied"):
        output_files.write(theirs / "a", "text")
    assert list(theirs.iterdir()) == []


@as_root
def test_a_path_that_the_kernel_refuses_is_one_error_under_sudo_too(sudo):
    path = sudo / ("a" * 5000)
    for refused in (
        lambda: output_files.check(path, "--csv", force=True),
        lambda: output_files.write(path, "text"),
    ):
        with pytest.raises(OutputError, match="File name too long"):
            refused()


@as_root
@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_link_cannot_lead_root_to_where_the_caller_may_not_write(sudo, mode):
    """A stranger has put it there before, or while the measurement was under way."""
    shared, secret = given(sudo / "shared", STRANGER, mode), sudo / "root's"
    (shared / "a").symlink_to(secret)
    os.lchown(shared / "a", STRANGER, STRANGER)
    for refused in (
        lambda: output_files.check(shared / "a", "--csv", force=True),
        lambda: output_files.write(shared / "a", "text"),
    ):
        with pytest.raises(OutputError):
            refused()
    assert not secret.exists()


@as_root
def test_a_stranger_s_link_is_not_followed_by_root_itself(tmp_path, monkeypatch):
    monkeypatch.delenv("SUDO_UID", raising=False)
    (tmp_path / "a").symlink_to("b")
    os.lchown(tmp_path / "a", STRANGER, STRANGER)
    with pytest.raises(OutputError, match="link"):
        output_files.check(tmp_path / "a", "--csv", force=True)
    with pytest.raises(OutputError, match="link"):
        output_files.write(tmp_path / "a", "text")
    assert not (tmp_path / "b").exists()


@as_root
@pytest.mark.parametrize("unnamed", [os.O_TMPFILE, os.O_DIRECTORY], ids=["unnamed", "named"])
def test_the_unfinished_file_cannot_be_swapped_for_a_link(sudo, monkeypatch, unnamed):
    """Whoever owns the folder has us give away what a link leads to, if we go by the path."""
    monkeypatch.setattr(os, "O_TMPFILE", unnamed)
    monkeypatch.setattr(output_files.trust, "why_not", lambda path, owners: "")
    folder, victim = given(sudo / "theirs", STRANGER), sudo / "victim"
    victim.write_text("secret")
    victim.chmod(0o600)
    sync = os.fsync

    def swap(file):
        sync(file)
        for path in folder.iterdir():
            path.unlink()
            path.symlink_to(victim)

    monkeypatch.setattr(os, "fsync", swap)
    output_files.write(folder / "a", "text")
    assert (victim.stat().st_mode & 0o777, victim.stat().st_uid) == (0o600, 0)
    assert victim.read_text() == "secret"


@as_root
def test_the_caller_s_own_folder_is_written_with_the_caller_s_rights(sudo):
    own = given(sudo / "own", CALLER, 0o700)
    (own / "a").write_text("old")
    output_files.check(own / "a", "--csv", force=True)
    output_files.write(own / "a", "new")
    about = (own / "a").stat()
    assert (about.st_uid, about.st_gid, (own / "a").read_text()) == (CALLER, CALLER, "new")
    assert os.geteuid() == 0
    with pytest.raises(OutputError):
        output_files.write(own / "no" / "b", "text")
    assert os.geteuid() == 0


def test_a_disk_is_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "is_block_device", lambda path: path.name == "disk")
    with pytest.raises(OutputError, match="is a disk"):
        output_files.check(tmp_path / "disk", "--csv", force=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("number", ["99999999999999999999", "²", "-5"])
def test_a_caller_that_sudo_never_names_is_none(tmp_path, monkeypatch, number):
    monkeypatch.setenv("SUDO_UID", number)
    monkeypatch.setenv("SUDO_GID", number)
    output_files.write(tmp_path / "a", "text")
    assert (tmp_path / "a").stat().st_uid == 0


@pytest.mark.parametrize("there", [False, True], ids=["new", "in place of another"])
def test_a_kill_while_it_writes_leaves_nothing(tmp_path, there):
    if there:
        (tmp_path / "a").write_text("old")
    killed = """
import os, sys
from pathlib import Path
from zctrace import output_files
os.fsync = lambda handle: os.kill(os.getpid(), 9)
output_files.write(Path(sys.argv[1]), "new")
"""
    ended = subprocess.run([sys.executable, "-c", killed, tmp_path / "a"])
    assert ended.returncode == -9
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"] * there


def test_a_file_system_without_unnamed_files_gets_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)
    for text in ("one", "two"):
        output_files.check(tmp_path / "a", "--csv", force=True)
        output_files.write(tmp_path / "a", text)
        assert [path.read_text() for path in tmp_path.iterdir()] == [text]


@pytest.fixture(params=[True, False], ids=["a file without a name", "a file with a name"])
def nameless(request, monkeypatch):
    """With and without ``O_TMPFILE``, which not every file system knows of."""
    if not request.param:
        opened = os.open

        def refusing(path, flags, *arguments, **options):
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            return opened(path, flags, *arguments, **options)

        monkeypatch.setattr(os, "open", refusing)


@pytest.mark.usefixtures("nameless")
def test_a_file_that_appears_during_the_measurement_stays(tmp_path):
    """Nothing is lost: the result gets another name, and the error tells it."""
    path = tmp_path / "a"
    output_files.check(path, "--json", force=False)
    path.write_text("theirs")
    for number in (2, 3):
        with pytest.raises(OutputError) as raised:
            output_files.write(path, f"ours {number}", force=False)
        assert f"a.{number}" in raised.value.why
        assert (tmp_path / f"a.{number}").read_text() == f"ours {number}"
    assert path.read_text() == "theirs"
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.usefixtures("nameless")
def test_of_many_writers_none_loses_its_text(tmp_path):
    path, many = tmp_path / "a", 8

    def write(number):
        with contextlib.suppress(OutputError):
            output_files.write(path, f"{number}", force=False)

    with ThreadPoolExecutor(many) as pool:
        list(pool.map(write, range(many)))
    assert sorted(one.read_text() for one in tmp_path.iterdir()) == [*map(str, range(many))]


def test_one_output_that_fails_does_not_cost_the_others(tmp_path):
    found = saved.read(FOLDER / "cp.json").programs
    paths = {"json": tmp_path / "gone" / "a", "csv": tmp_path / "b"}
    with pytest.raises(OutputError, match="gone"):
        formats.Outputs(paths).write(formats.Of.TRACE, found)
    assert (tmp_path / "b").read_text().startswith("kernel,")
