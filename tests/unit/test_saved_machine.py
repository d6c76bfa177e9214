"""What a guest boots from, and the machines that are saved once it has."""

import json
import lzma
import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from tests.conftest import HERE
from zctrace.errors import MachineError
from zctrace.machine import guest_init, initramfs, kernels, saved
from zctrace.machine.kernels import Kernel

DEPENDENCIES = """kernel/9p.ko.xz: kernel/9pnet.ko.xz kernel/netfs.ko.xz
kernel/9pnet.ko.xz: kernel/netfs.ko.xz
kernel/netfs.ko.xz:
kernel/overlay.ko.xz:
kernel/unwanted.ko.xz:
"""


def nothing():
    """Called while somebody waits."""


@pytest.fixture
def kernel(tmp_path):
    """One with modules that are packed."""
    image = tmp_path / "boot" / "vmlinuz-1.2.3"
    modules = tmp_path / "lib" / "modules" / "1.2.3"
    (modules / "kernel").mkdir(parents=True)
    image.parent.mkdir()
    image.write_bytes(b"an image")
    (modules / "modules.dep").write_text(DEPENDENCIES)
    for line in DEPENDENCIES.splitlines():
        path = modules / line.partition(":")[0]
        path.write_bytes(lzma.compress(path.name.encode()))
    return Kernel("1.2.3", image, "cache")


def entries(archive):
    """Of an archive of the format newc: name, mode, time and content of each."""
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        numbers = [int(archive[n : n + 8], 16) for n in range(at + 6, at + 110, 8)]
        mode, time, size, name_size = numbers[1], numbers[5], numbers[6], numbers[11]
        name = archive[at + 110 : at + 109 + name_size].decode()
        begin = -(-(at + 110 + name_size) // 4) * 4
        if name == "TRAILER!!!":
            return
        yield name, mode, time, archive[begin : begin + size]
        at = -(-(begin + size) // 4) * 4


@pytest.fixture
def unpacked(kernel, tmp_path):
    """The folder that its archive unpacks to, without devices."""
    archive, folder = tmp_path / "archive", tmp_path / "unpacked"
    folder.mkdir()
    initramfs.contents(kernel).write(archive)
    for name, mode, time, content in entries(archive.read_bytes()):
        path = folder / name
        if stat.S_ISDIR(mode):
            path.mkdir()
        elif stat.S_ISLNK(mode):
            path.symlink_to(content.decode())
        elif stat.S_ISREG(mode):
            path.write_bytes(content)
            path.chmod(mode & 0o777)
            os.utime(path, (time, time))
    return folder


def test_drivers_come_after_those_that_they_need(kernel):
    names = [path.name for path in initramfs.contents(kernel).drivers]
    assert names == [f"{name}.ko.xz" for name in ("netfs", "9pnet", "9p", "overlay")]


def test_drivers_are_unpacked_in_the_order_of_their_names(unpacked):
    drivers = sorted((unpacked / guest_init.DRIVERS.lstrip("/")).iterdir())
    contents = [path.read_bytes() for path in drivers]
    assert contents == [b"netfs.ko.xz", b"9pnet.ko.xz", b"9p.ko.xz", b"overlay.ko.xz"]


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot is root's")
def test_its_python_imports_everything_there(unpacked):
    command = ["chroot", unpacked, initramfs.PYTHON, "-I", "-c", "import guest_init"]
    code = "import sys; sys.path.insert(0, '/'); import guest_init; print(sys.executable)"
    result = subprocess.run([*command[:-1], code], capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip()) == (0, initramfs.PYTHON), result.stderr


def test_compiled_modules_are_as_old_as_their_source(unpacked):
    ages = [
        int(path.stat().st_mtime) - int(Path("/", path.relative_to(unpacked)).stat().st_mtime)
        for path in unpacked.glob("usr/lib/python3*/*.py")
    ]
    assert len(ages) > 50
    assert set(ages) == {0}


def test_the_collector_finds_what_it_imports_imported():
    """Of the standard library; so it need not be read through a share."""
    script = """
import runpy, sys
runpy.run_path(sys.argv[1])
there = set(sys.modules)
sys.path.insert(0, sys.argv[2])
import zctrace.collect.main
print(*(n for n in sys.modules if n not in there and not n.startswith("zctrace")))
"""
    links = HERE.parent / "build" / "links"
    command = [initramfs.PYTHON, "-I", "-c", script, guest_init.__file__, links]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


@pytest.mark.parametrize("which", ["driver", "library"])
def test_another_driver_or_library_is_another_archive(kernel, monkeypatch, which):
    before = initramfs.contents(kernel)
    assert initramfs.contents(kernel).key == before.key
    changed = str(before.drivers[0]) if which == "driver" else before.paths[-1]
    state = initramfs._state

    def later(path):
        size, time = state(path)
        return size, time + (path == changed)

    monkeypatch.setattr(initramfs, "_state", later)
    assert initramfs.contents(kernel).key != before.key


def test_a_kernel_without_modules_has_no_drivers(kernel):
    alone = Kernel("other", kernel.image, "path")
    assert initramfs.contents(alone).drivers == ()


def test_a_packed_folder_is_made_again(tmp_path):
    files = {"a": b"one\ntwo", "b/c/d": bytes(range(256)), "b/empty": b"", "ü": b"\n"}
    for name, content in files.items():
        path = tmp_path / "here" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "there").mkdir()
    guest_init.unpack(guest_init.pack(tmp_path / "here"), str(tmp_path / "there"))
    found = {
        str(path.relative_to(tmp_path / "there")): path.read_bytes()
        for path in (tmp_path / "there").rglob("*")
        if path.is_file()
    }
    assert found == files


class Maker:
    """Saves machines, and counts how many."""

    def __init__(self, content=b"state", good=True):
        self.content, self.good, self.made = content, good, 0

    def __call__(self, path):
        self.made += 1
        path.write_bytes(self.content)
        return self.good


def read(folder, key, maker):
    file = saved.opened(folder, key, maker, nothing)
    if file:
        with file:
            return file.read()
    return None


def test_a_machine_is_saved_once(tmp_path):
    maker = Maker()
    first, second = (read(tmp_path, "key", maker) for _ in range(2))
    assert first == second
    assert first.startswith(b"state")
    assert maker.made == 1


@pytest.mark.parametrize("damage", ["shorter", "changed", "empty"])
def test_a_damaged_one_is_made_anew(tmp_path, damage):
    whole = read(tmp_path, "key", Maker())
    (path,) = tmp_path.glob("key.*")
    damaged = {"shorter": whole[:-1], "changed": b"S" + whole[1:], "empty": b""}[damage]
    path.write_bytes(damaged)
    maker = Maker()
    assert read(tmp_path, "key", maker) == whole
    assert maker.made == 1


def test_what_could_not_be_saved_leaves_nothing(tmp_path):
    assert read(tmp_path, "key", Maker(good=False)) is None
    assert list(tmp_path.glob("key*")) == []


def test_who_is_interrupted_leaves_nothing(tmp_path):
    def interrupted(path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        saved.opened(tmp_path, "key", interrupted, nothing)
    assert list(tmp_path.glob("key*")) == []
    assert read(tmp_path, "key", Maker()) is not None


def test_those_used_last_are_kept(tmp_path):
    for number in range(5):
        read(tmp_path, f"key{number}", Maker())
        os.utime(tmp_path / f"key{number}.saved", (number, number))
    read(tmp_path, "key2", Maker())
    assert sorted(path.stem for path in tmp_path.glob("*.saved")) == ["key2", "key3", "key4"]


def test_one_that_does_not_go_on_is_made_anew(tmp_path):
    maker = Maker()
    read(tmp_path, "key", maker)
    saved.discard(tmp_path, "key")
    read(tmp_path, "key", maker)
    assert maker.made == 2


def test_two_runs_at_once_save_one(tmp_path):
    begun, go_on = threading.Event(), threading.Event()
    slow, fast = Maker(), Maker()

    def making(path):
        begun.set()
        go_on.wait()
        return slow(path)

    first = threading.Thread(target=read, args=(tmp_path, "key", making))
    first.start()
    begun.wait()
    # The other one waits, and says so all the time.
    file = saved.opened(tmp_path, "key", fast, go_on.set)
    file.close()
    first.join()
    assert (slow.made, fast.made) == (1, 0)


def test_another_image_at_the_same_path_is_another_kernel(kernel):
    before = kernel.identity
    kernel.image.write_bytes(b"another image")
    assert kernel.identity != before


def test_a_kernel_s_machines_are_removed_with_it(kernel, tmp_path, monkeypatch):
    monkeypatch.setenv("ZCTRACE_CACHE", str(tmp_path / "cache"))
    home = tmp_path / "cache" / "kernels" / "1.2.3"
    (home / "boot").mkdir(parents=True)
    kernel.image.rename(home / "boot" / "vmlinuz-1.2.3")
    about = {"release": "1.2.3", "version": "1.2.3-1", "stock": False}
    (home / "kernel.json").write_text(json.dumps(about))
    (cached,) = kernels.cached()
    folder = kernels.machine_folder(cached)
    folder.mkdir(parents=True)
    read(folder, "key", Maker())
    kernels.remove("1.2.3")
    assert not folder.exists()


@pytest.mark.parametrize("built_in", ["kernel/fs/overlayfs/overlay.ko\n", ""])
def test_a_kernel_without_the_drivers_of_a_guest_is_refused(kernel, built_in):
    """As Debian's cloud flavour, which has no 9p."""
    modules = kernel.modules
    (modules / "modules.dep").write_text("a/virtio_pci.ko.xz:\na/9pnet_virtio.ko.xz:\n")
    (modules / "modules.builtin").write_text(built_in)
    lacking = "9p" if built_in else "9p, overlay"
    with pytest.raises(MachineError, match=r"1\.2\.3 cannot be booted") as caught:
        initramfs.contents(kernel)
    assert f"built without {lacking}, by" in caught.value.why
    assert "--kernel 1.2," in caught.value.hint


@pytest.mark.parametrize("boots", [False, True])
def test_a_machine_that_was_saved_in_the_middle_of_a_rescan(monkeypatch, capsys, boots):
    """That one finds the devices of the slots to come, and no others: here the run's share."""
    known = {guest_init.RUN_TAG, guest_init.ROOT_TAG} if boots else set()
    to_be_found = [{guest_init.RUN_TAG}, {guest_init.ROOT_TAG}]

    def mount(kind, source, point, options=""):
        if source not in known:
            raise FileNotFoundError(2, "no channels available", point)

    monkeypatch.setattr(guest_init, "_mount", mount)
    monkeypatch.setattr(guest_init, "_rescan", lambda: known.update(to_be_found.pop(0)))
    guest_init._attach()
    assert known == {guest_init.RUN_TAG, guest_init.ROOT_TAG}
    # What boots for one run has its devices from the beginning, and is not saved.
    assert (guest_init.READY in capsys.readouterr().out) is not boots
    assert len(to_be_found) == (2 if boots else 0)
