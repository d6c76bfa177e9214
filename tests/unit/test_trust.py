"""What root believes: folders that nobody else can change, and who called sudo."""

import os

import pytest

from zctrace import trust

STRANGER, CALLER = 61234, 61235
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")


@pytest.mark.parametrize(
    ("uid", "gid"),
    [("", ""), ("1000", ""), ("²", "1"), ("-1", "0"), ("99999999999", "1"), ("0", "0"),
     ("4294967295", "4294967295"), ("1000x", "1000")],
)  # fmt: skip
def test_what_is_no_user_has_not_called_sudo(monkeypatch, uid, gid):
    monkeypatch.setenv("SUDO_UID", uid)
    monkeypatch.setenv("SUDO_GID", gid)
    assert trust.caller() is None


@as_root
def test_the_caller_acts_without_the_rights_of_root_and_gives_them_back(monkeypatch, tmp_path):
    monkeypatch.setenv("SUDO_UID", str(CALLER))
    monkeypatch.setenv("SUDO_GID", str(CALLER))
    before = os.geteuid(), os.getegid(), os.getgroups()
    tmp_path.chmod(0o700)
    with trust.caller().acting():
        assert (os.geteuid(), os.getegid(), os.getgroups()) == (CALLER, CALLER, [CALLER])
        with pytest.raises(PermissionError):
            list(tmp_path.iterdir())
    assert (os.geteuid(), os.getegid(), os.getgroups()) == before


def test_a_folder_of_ours_is_ours(tmp_path):
    (tmp_path / "link").symlink_to("a/../b")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in ("a", "link", "link/new", "a/../new", "no/such"):
        assert trust.why_not(tmp_path / name, trust.owners()) == ""


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_a_folder_that_others_can_write_to_is_not(tmp_path, mode):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(mode)
    (folder / "ours").mkdir()
    said = f"others can write to {folder}"
    assert trust.why_not(folder, trust.owners()) == said
    assert trust.why_not(folder / "new", trust.owners()) == said
    # With the sticky bit nobody can replace what is ours.
    sticky = mode & 0o1000
    assert trust.why_not(folder / "ours", trust.owners()) == ("" if sticky else said)
    assert trust.why_not(folder, trust.owners(), sticky=True) == ("" if sticky else said)


@as_root
def test_a_stranger_on_the_way_is_found_whichever_way_it_is(tmp_path):
    theirs = tmp_path / "theirs"
    (theirs / "ours").mkdir(parents=True)
    os.chown(theirs, STRANGER, STRANGER)
    (tmp_path / "link").symlink_to(theirs)
    for name in ("theirs", "theirs/ours", "link", "link/ours/new", "theirs/.."):
        found = trust.why_not(tmp_path / name, trust.owners())
        assert found == f"{theirs} belongs to user {STRANGER}"
    assert trust.why_not(theirs, {*trust.owners(), STRANGER}) == ""


@as_root
def test_a_stranger_s_link_in_a_shared_folder_leads_nowhere(tmp_path):
    tmp_path.chmod(0o1777)
    (tmp_path / "link").symlink_to("/etc")
    os.lchown(tmp_path / "link", STRANGER, STRANGER)
    found = trust.why_not(tmp_path / "link" / "x", trust.owners())
    assert found == f"{tmp_path / 'link'} belongs to user {STRANGER}"


def test_a_circle_of_links_ends(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "too many links" in trust.why_not(tmp_path / "a", trust.owners())


def test_a_caller_without_a_name_has_no_home_of_root_s(monkeypatch):
    monkeypatch.setenv("HOME", "/root")
    assert trust.Caller(CALLER, 7).groups == [7]
    assert trust.Caller(CALLER, 7).environment["HOME"] == "/"


def test_a_whole_path_is_judged_where_the_working_folder_is_gone(monkeypatch, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert trust.why_not(tmp_path, {0, os.getuid()}, sticky=True) == ""
