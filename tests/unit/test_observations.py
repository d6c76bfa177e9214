"""Where what was found in kernels is kept, and what of it goes to a guest and back."""

import os

import pytest

from tests.conftest import or_skip
from zctrace.kernel import remembered
from zctrace.machine import observations
from zctrace.machine.kernels import Kernel

NAMES = [f"{number:032x}.json" for number in range(20)]


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ZCTRACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ZCTRACE_OBSERVE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def image(tmp_path):
    def make(name="vmlinuz-6.1", content="an image"):
        path = tmp_path / name
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
        return Kernel("6.1", path, "path")

    return make


@pytest.fixture
def run_folder(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "observed"


def test_what_a_guest_adds_is_lent_to_the_next(cache, image, run_folder, tmp_path):
    observations.lend(image(), run_folder)
    remembered.write(run_folder / NAMES[0], {"found": 1})
    observations.take_back(image(), run_folder)
    observations.lend(image(), tmp_path / "next")
    assert remembered.read(tmp_path / "next" / NAMES[0]) == {"found": 1}


def test_what_a_guest_changes_is_changed(cache, image, run_folder):
    home = observations.home(image())
    remembered.write(home / NAMES[0], {"found": 1})
    observations.lend(image(), run_folder)
    remembered.write(run_folder / NAMES[0], {"found": 2})
    observations.take_back(image(), run_folder)
    assert remembered.read(home / NAMES[0]) == {"found": 2}


def test_kernels_have_nothing_to_do_with_each_other(cache, image):
    """One image has written nothing that another one reads, nor has an image of its name."""
    homes = [
        observations.home(None),
        observations.home(image()),
        observations.home(image("vmlinuz-other")),
        observations.home(image(content="another image")),
    ]
    assert len(set(homes)) == len(homes)


def test_nothing_is_remembered_if_that_is_wanted(cache, image, run_folder, monkeypatch):
    monkeypatch.setenv("ZCTRACE_OBSERVE", "anew")
    observations.lend(image(), run_folder)
    assert not run_folder.exists()
    assert observations.home(None) is None
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_none(cache, image, run_folder):
    cache.write_text("a file")
    observations.lend(image(), run_folder)
    observations.take_back(image(), run_folder)
    assert not run_folder.exists()


def test_only_what_has_the_right_name_and_is_whole_comes_back(
    cache, image, run_folder, tmp_path
):
    observations.lend(image(), run_folder)
    remembered.write(run_folder / "..json", {"found": 1})
    remembered.write(run_folder / "kernel.json", {"found": 1})
    (run_folder / NAMES[0]).write_text("not written by us")
    remembered.write(tmp_path / "secret", {"found": 1})
    (run_folder / NAMES[1]).symlink_to(tmp_path / "secret")
    os.mkfifo(run_folder / NAMES[2], 0o600)
    (run_folder / NAMES[3]).mkdir()
    observations.take_back(image(), run_folder)
    assert list(observations.home(image()).iterdir()) == []


def test_the_newest_are_kept(cache, image, run_folder):
    home = observations.home(image())
    observations.lend(image(), run_folder)
    for number, name in enumerate(NAMES):
        remembered.write(home / name, {"found": number})
        os.utime(home / name, (number, number))
    observations.take_back(image(), run_folder)
    assert sorted(path.name for path in home.iterdir()) == NAMES[-16:]


def test_what_is_compiled_does_not_push_out_what_was_found(cache, image, run_folder):
    compiled = [f"programs-{name}" for name in NAMES]
    home = observations.home(image())
    remembered.write(home / NAMES[0], {"found": 1})
    run_folder.mkdir()
    for name in compiled:
        remembered.write(run_folder / name, {"compiled": 1})
    observations.take_back(image(), run_folder)
    names = {path.name for path in home.iterdir()}
    assert NAMES[0] in names
    assert len(names & set(compiled)) == 16


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_a_folder_is_ours_whatever_the_umask(cache, image, umask):
    before = os.umask(umask)
    try:
        assert observations.home(None)
        assert observations.home(image())
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    "change", ["writable", "observed writable", "cache writable", "foreign"]
)
def test_a_folder_that_others_can_write_in_is_not_used(cache, image, run_folder, change):
    home = observations.home(None)
    remembered.write(home / NAMES[0], {"found": 1})
    assert home.stat().st_mode & 0o777 == 0o700
    if change == "foreign":
        if os.geteuid():
            or_skip("only root can give a folder away")
        os.chown(home, 12345, 12345)
    else:
        changed = {"observed writable": home.parent, "cache writable": cache}
        changed.get(change, home).chmod(0o777)
    assert observations.home(None) is None
    observations.lend(None, run_folder)
    assert not run_folder.exists()
