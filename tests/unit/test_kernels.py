"""The cache of kernels, and what --kernel means."""

import json
import os

import pytest

from zctrace.commands import doctor
from zctrace.errors import KernelError, MissingError, OutputError, ResourceError
from zctrace.machine import kernels, kvm
from zctrace.machine.debian_archive import StockKernel


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZCTRACE_CACHE", str(tmp_path))
    monkeypatch.setattr(kernels, "installed", list)
    return tmp_path


def put(cache, release, version, *, stock=False):
    home = cache / "kernels" / release
    (home / "boot").mkdir(parents=True)
    (home / "lib" / "modules" / release).mkdir(parents=True)
    (home / "boot" / f"vmlinuz-{release}").write_bytes(b"")
    (home / "kernel.json").write_text(
        json.dumps({"release": release, "version": version, "stock": stock})
    )


class FakeArchive:
    def __init__(self, *offered, fail=False):
        self.offered = list(offered)
        self.fail = fail

    def kernels(self, say):
        return self.offered

    def default(self, say):
        return self.offered[0]

    def size(self, kernel):
        return kernel.size

    def download(self, kernel, folder, say):
        package = folder / "a.deb"
        package.write_bytes(b"")
        if self.fail:
            raise KernelError("the network went away")
        return [package]


@pytest.fixture
def offer(monkeypatch):
    def set_up(*offered, **options):
        fake = FakeArchive(*offered, **options)
        monkeypatch.setattr(kernels, "own_release", lambda folder: fake)
        monkeypatch.setattr(kernels, "all_releases", lambda folder: fake)

    return set_up


@pytest.fixture
def unpack(monkeypatch):
    def files(package, folder):
        (folder / "boot").mkdir(parents=True)
        (folder / "boot" / "vmlinuz-6.1.0-56-amd64").write_bytes(b"image")
        modules = folder / "usr" / "lib" / "modules" / "6.1.0-56-amd64"
        modules.mkdir(parents=True)
        (modules / "modules.builtin").write_text("kernel/fs/overlay.ko\n")

    monkeypatch.setattr(kernels, "_unpack", files)


NEW = StockKernel("6.1.0-56-amd64", "6.1.192-2", ("linux-image-6.1.0-56-amd64",), 1000)


DAMAGES = {
    "empty": b"",
    "half": b'{"release": "6.1.0-56-am',
    "binary": b"\xff\xfe\0",
    "no object": b"[]",
    "nothing in it": b"{}",
    "types": b'{"release": "6.1.0-56-amd64", "version": 6.1, "stock": false}',
    "another": b'{"release": "../6.1", "version": "6.1", "stock": false}',
    "no image": None,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_kernel_is_none_and_is_fetched_anew(cache, offer, unpack, damage):
    put(cache, "7.3.4+deb13-amd64", "7.3.4-1")
    put(cache, NEW.release, NEW.version)
    home = cache / "kernels" / NEW.release
    if damage is None:
        (home / "boot" / f"vmlinuz-{NEW.release}").unlink()
    else:
        (home / "kernel.json").write_bytes(damage)
    assert [k.release for k in kernels.cached()] == ["7.3.4+deb13-amd64"]
    assert kernels.at_hand("6.1") is None
    offer(NEW)
    assert kernels.resolve("6.1", print).image.read_bytes() == b"image"


def test_listing(cache):
    put(cache, "7.3.4+deb13-amd64", "7.3.4-1")
    put(cache, "6.1.0-56-amd64", "6.1.192-2")
    assert [k.release for k in kernels.cached()] == ["6.1.0-56-amd64", "7.3.4+deb13-amd64"]
    assert kernels.cached()[0].modules.name == "6.1.0-56-amd64"


@pytest.mark.parametrize("name", ["6.1", "6.1.192", "6.1.0-56-amd64", "6.1.0-56", "6.1.192-2"])
def test_names_of_a_kernel(cache, name):
    put(cache, "6.1.0-56-amd64", "6.1.192-2")
    put(cache, "6.12.117+deb13-amd64", "6.12.117-1")
    assert kernels.resolve(name, print).release == "6.1.0-56-amd64"


def test_the_newest_of_several(cache):
    put(cache, "6.1.0-55-amd64", "6.1.187-1")
    put(cache, "6.1.0-56-amd64", "6.1.192-2")
    assert kernels.resolve("6.1", print).release == "6.1.0-56-amd64"


RT, PLAIN = "6.1.0-56-rt-amd64", "6.1.0-56-amd64"


@pytest.mark.parametrize(
    ("name", "release"),
    [
        *((name, PLAIN) for name in ("6.1", "6.1.192-2", "6.1.0-56", PLAIN)),
        *((name, RT) for name in ("6.1-rt", "6.1.192-2-rt", "6.1.0-56-rt", RT)),
    ],
)
@pytest.mark.parametrize("order", [(PLAIN, RT), (RT, PLAIN)])
def test_another_flavour_must_be_named(cache, monkeypatch, order, name, release):
    for one in order:
        put(cache, one, "6.1.192-2")
    listed = sorted(kernels.cached(), key=lambda kernel: order.index(kernel.release))
    monkeypatch.setattr(kernels, "cached", lambda: listed)
    assert kernels.resolve(name, print).release == release


def test_removing_leaves_other_flavours(cache):
    put(cache, RT, "6.1.192-2")
    put(cache, PLAIN, "6.1.192-2")
    kernels.remove(PLAIN)
    assert [kernel.release for kernel in kernels.cached()] == [RT]


@pytest.mark.parametrize("name", ["nonsense", "6", "newest", ""])
def test_no_such_kernel(cache, name):
    with pytest.raises(KernelError):
        kernels.resolve(name, print)


def test_paths(tmp_path):
    with pytest.raises(KernelError, match="no such file"):
        kernels.resolve(str(tmp_path / "absent"), print)
    text = tmp_path / "vmlinuz-x"
    text.write_text("not a kernel")
    with pytest.raises(KernelError, match="not a Linux kernel image"):
        kernels.resolve(str(text), print)
    text.write_bytes(b"\0" * 0x202 + b"HdrS" + b"\0" * 100)
    assert kernels.resolve(str(text), print).release == "x"


def test_fetching_arranges_the_files(cache, offer, unpack):
    offer(NEW)
    kernel = kernels.fetch("6.1", print)
    assert kernel.image.read_bytes() == b"image"
    assert (kernel.modules / "modules.builtin").exists()
    assert not kernel.stock
    assert kernels.fetch("stock", print).stock
    assert kernels.stock(print).release == NEW.release


def test_fetching_lists_what_modules_need(cache, offer, unpack):
    """No package has that list: whoever installs them makes it."""
    offer(NEW)
    kernel = kernels.fetch("6.1", print)
    assert (kernel.modules / "modules.dep").read_text() == ""
    assert (kernel.modules / "modules.builtin.bin").stat().st_size


def test_without_depmod_nothing_is_fetched(cache, offer, unpack, monkeypatch):
    monkeypatch.setattr(kernels, "_INDEXER", "/absent/depmod")
    offer(NEW)
    with pytest.raises(MissingError) as caught:
        kernels.fetch("6.1", print)
    assert "kmod" in caught.value.hint
    assert kernels.cached() == []


def test_a_broken_download_leaves_no_half_kernel(cache, offer):
    offer(NEW, fail=True)
    with pytest.raises(KernelError, match="went away"):
        kernels.fetch("6.1", print)
    assert list((cache / "kernels").iterdir()) == []
    assert kernels.cached() == []


def test_what_a_killed_download_left_is_removed(cache, offer, unpack):
    (cache / "kernels" / ".partial-dead").mkdir(parents=True)
    offer(NEW)
    kernels.fetch("6.1", print)
    assert [path.name for path in (cache / "kernels").iterdir()] == [NEW.release]


def test_packages_without_modules_are_refused(cache, offer, monkeypatch):
    monkeypatch.setattr(kernels, "_unpack", lambda package, folder: folder.mkdir())
    offer(NEW)
    with pytest.raises(KernelError, match="no image or no modules"):
        kernels.fetch("6.1", print)
    assert kernels.cached() == []


def test_an_unknown_version_names_the_known_ones(cache, offer):
    offer(NEW)
    with pytest.raises(KernelError) as caught:
        kernels.fetch("6.99", print)
    assert "it has 6.1" in caught.value.why


OLDER = StockKernel("6.19.11+deb13-amd64", "6.19.11-1", ("linux-image-6.19.11+deb13-amd64",), 1)
PART = StockKernel(
    "6.19.14+deb13-amd64",
    "6.19.14-1",
    ("linux-image-6.19.14+deb13-amd64", "linux-modules-6.19.14+deb13-amd64"),
    1000,
    ("linux-modules-6.19.14+deb13-amd64",),
)


def test_what_the_archive_has_in_part_is_not_offered(cache, offer):
    offer(NEW, PART)
    for look in (kernels.fetch, kernels.fetched_first):
        with pytest.raises(KernelError, match=r"has kernel 6\.19 only in part") as caught:
            look("6.19", print)
        assert "needs linux-modules-6.19.14+deb13-amd64, which" in caught.value.why
        assert caught.value.why.endswith("it has 6.1")
    assert kernels.offered(print) == [NEW]


def test_the_newest_whole_one_is_fetched(cache, offer):
    offer(NEW, OLDER, PART)
    assert kernels.fetched_first("6.19", print) == OLDER


def test_an_unknown_flavour_names_the_known_ones(cache, offer):
    offer(NEW, StockKernel("6.12.118+deb13-rt-amd64", "6.12.118-1", (), 1))
    with pytest.raises(KernelError) as caught:
        kernels.fetch("6.99-rt", print)
    assert caught.value.why == "it has 6.12-rt"


def test_a_full_disk(cache, offer):
    offer(StockKernel("6.1.0-56-amd64", "6.1.192-2", (), 1 << 60))
    with pytest.raises(ResourceError, match="not enough disk"):
        kernels.fetch("6.1", print)


def test_removing(cache):
    put(cache, "6.1.0-56-amd64", "6.1.192-2")
    kernels.remove("6.1.192-2")
    assert kernels.cached() == []
    with pytest.raises(KernelError, match="not in the cache"):
        kernels.remove("6.1")


@pytest.mark.parametrize("name", ["6", "6.1", "", "6.1.0-56"])
def test_the_beginning_of_a_name_removes_nothing(cache, name):
    put(cache, "6.1.0-56-amd64", "6.1.192-2")
    with pytest.raises(KernelError):
        kernels.remove(name)
    assert [kernel.release for kernel in kernels.cached()] == ["6.1.0-56-amd64"]


def test_an_interrupted_removal_is_finished_by_the_next(cache, offer, unpack, monkeypatch):
    put(cache, NEW.release, NEW.version)

    def interrupted(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kernels.shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            kernels.remove(NEW.release)
    assert kernels.cached() == []
    offer(NEW)
    assert kernels.fetch("6.1", print).image.read_bytes() == b"image"
    assert [path.name for path in (cache / "kernels").iterdir()] == [NEW.release]


def test_an_unusable_cache(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZCTRACE_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="cannot be used"):
        kernels.fetch("6.1", print)


STRANGER = 61234
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")


def theirs(folder):
    os.chown(folder, STRANGER, STRANGER)


def shared(folder):
    folder.chmod(0o777)


@as_root
@pytest.mark.parametrize("spoil", [theirs, shared])
@pytest.mark.parametrize("name", [".", "kernels"])
def test_root_boots_no_kernel_that_others_can_replace(cache, offer, spoil, name):
    put(cache, "6.1.0-56-amd64", "6.1.192-2", stock=True)
    offer(NEW)
    spoil(cache / name)
    for use in (
        lambda: kernels.resolve("6.1", print),
        lambda: kernels.stock(print),
        lambda: kernels.fetch("6.1", print),
        lambda: kernels.remove("6.1.0-56-amd64"),
    ):
        with pytest.raises(OutputError, match="cannot be used") as refused:
            use()
        assert str(cache) in refused.value.what
        assert not (cache / "lock").exists()


@as_root
def test_a_saved_machine_that_others_can_replace_is_not_used(cache):
    image = cache / "image"
    image.write_text("")
    (cache / "machines").mkdir()
    shared(cache / "machines")
    with pytest.raises(OutputError, match="others can write"):
        kernels.machine_folder(kernels.Kernel("6.1", image, "path"))


@as_root
def test_what_is_known_of_kvm_is_not_written_through_a_stranger_s_link(cache, tmp_path_factory):
    victim = tmp_path_factory.mktemp("victim") / "file"
    (cache / "kvm.json").symlink_to(victim)
    theirs(cache)
    with pytest.raises(OutputError, match="cannot be used"):
        kvm._kvm_memory()


def test_a_cache_that_is_not_there_yet_is_made(tmp_path, monkeypatch, offer):
    monkeypatch.setenv("ZCTRACE_CACHE", str(tmp_path / "new" / "cache"))
    assert kernels.trusted_cache("kernels") == tmp_path / "new" / "cache" / "kernels"
    assert kernels.cached() == []


def test_the_doctor_tells_of_a_cache_that_others_can_change(cache):
    shared(cache)
    (found,) = doctor._kernels()
    assert (found.topic, found.fine) == ("cache", False)
    assert f"others can write to {cache}" in found.what
