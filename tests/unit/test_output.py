import os
from pathlib import Path

import pytest

from zctrace import output_files
from zctrace.errors import OutputError


def test_written_whole(tmp_path):
    output_files.write(tmp_path / "a", "text\n")
    assert (tmp_path / "a").read_text() == "text\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


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
