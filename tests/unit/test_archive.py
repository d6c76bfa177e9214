"""Kernels in a package archive, with apt's answers made by hand."""

import random

import pytest

from zctrace.errors import KernelError
from zctrace.machine import debian_archive
from zctrace.machine.debian_archive import Archive, flavour, version_key

SEARCH = """\
linux-image-6.1.0-55-amd64 - Linux 6.1 for 64-bit PCs (signed)
linux-image-6.1.0-56-amd64 - Linux 6.1 for 64-bit PCs (signed)
linux-image-6.1.0-56-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)
linux-image-6.1.0-56-rt-amd64 - Linux 6.1 for 64-bit PCs, PREEMPT_RT (signed)
linux-image-6.12-amd64 - Linux for 64-bit PCs (meta-package)
linux-image-7.3-amd64 - Linux 7.3-rc7 for 64-bit PCs
linux-image-7.3.4+deb13-amd64 - Linux 7.3.4 for 64-bit PCs
linux-image-7.3.4+deb13-amd64-dbg - Linux 7.3.4 for 64-bit PCs (debug symbols)
linux-image-6.18.15+deb13-amd64 - Linux 6.18 for 64-bit PCs (signed)
linux-image-7.0.13+deb13-amd64 - Linux 7.0 for 64-bit PCs
linux-binary-7.0.13+deb13-amd64 - Linux 7.0 for 64-bit PCs
linux-base-7.2.13+deb14-amd64 - Linux 7.2 lists
linux-image-7.2.13+deb14-amd64 - Linux 7.2 for 64-bit PCs
linux-modules-7.2.13+deb14-amd64 - Linux 7.2 modules
linux-modules-7.3-amd64 - Linux 7.3-rc7 modules
linux-binary-7.3.4+deb13-amd64 - Linux 7.3.4 for 64-bit PCs
linux-modules-7.3.4+deb13-amd64 - Linux 7.3.4 modules
"""
PACKAGES = {
    "linux-image-6.1.0-55-amd64": ("6.1.187-1", "kmod, linux-base (>= 4.3~)"),
    "linux-image-6.1.0-56-amd64": ("6.1.192-2", "kmod, linux-base (>= 4.3~)"),
    "linux-image-7.3-amd64": ("7.3~rc7-1~exp1", "linux-modules-7.3-amd64 (= 7.3~rc7-1~exp1)"),
    "linux-image-7.3.4+deb13-amd64": (
        "7.3.4-1~bpo13+1",
        "dracut | initramfs-tools, linux-binary-7.3.4+deb13-amd64 (= 7.3.4-1~bpo13+1), "
        "linux-modules-7.3.4+deb13-amd64 (= 7.3.4-1~bpo13+1)",
    ),
    "linux-image-6.1.0-56-cloud-amd64": ("6.1.192-2", "kmod, linux-base (>= 4.3~)"),
    "linux-image-6.1.0-56-rt-amd64": ("6.1.192-2", "kmod, linux-base (>= 4.3~)"),
    # The image is whole, and what it depends on is gone.
    "linux-image-6.18.15+deb13-amd64": (
        "6.18.15-1~bpo13+1",
        "dracut, kmod, linux-base-6.18.15+deb13-amd64 (= 6.18.15-1~bpo13+1)",
    ),
    # The image is one package of three, and the modules are gone.
    "linux-image-7.0.13+deb13-amd64": (
        "7.0.13-1~bpo13+1",
        "linux-base-7.0.13+deb13-amd64 (= 7.0.13-1~bpo13+1), "
        "linux-binary-7.0.13+deb13-amd64 (= 7.0.13-1~bpo13+1), "
        "linux-modules-7.0.13+deb13-amd64 (= 7.0.13-1~bpo13+1)",
    ),
    "linux-binary-7.0.13+deb13-amd64": ("7.0.13-1~bpo13+1", ""),
    "linux-base-7.2.13+deb14-amd64": ("7.2.13-1", ""),
    "linux-image-7.2.13+deb14-amd64": (
        "7.2.13-1",
        "linux-base-7.2.13+deb14-amd64 (= 7.2.13-1), "
        "linux-modules-7.2.13+deb14-amd64 (= 7.2.13-1)",
    ),
    "linux-modules-7.2.13+deb14-amd64": ("7.2.13-1", "kmod"),
    "linux-modules-7.3-amd64": ("7.3~rc7-1~exp1", "kmod"),
    "linux-binary-7.3.4+deb13-amd64": ("7.3.4-1~bpo13+1", ""),
    "linux-modules-7.3.4+deb13-amd64": ("7.3.4-1~bpo13+1", "kmod"),
    "linux-image-amd64": ("6.1.192-2", "linux-image-6.1.0-56-amd64 (= 6.1.192-2)"),
}


class Apt:
    def __init__(self):
        self.calls = []
        self.search = SEARCH

    def __call__(self, *command, cwd=None, accept_failure=False):
        self.calls.append(command)
        if command[1] == "search":
            return self.search
        if command[1] == "show":
            return "\n\n".join(
                f"Package: {name}\nVersion: {PACKAGES[name][0]}\nDepends: {PACKAGES[name][1]}\n"
                f"Size: 1000"
                for name in command[2:]
            )
        return ""


@pytest.fixture
def apt():
    return Apt()


@pytest.fixture
def suites(tmp_path, apt, monkeypatch):
    suites = Archive(tmp_path, ["deb an-archive a-suite main"])
    monkeypatch.setattr(suites, "_apt", apt)
    return suites


def test_kernels_oldest_first(suites):
    releases = [kernel.release for kernel in suites.kernels(print)]
    assert [release for release in releases if not flavour(release)] == [
        "6.1.0-55-amd64", "6.1.0-56-amd64", "6.18.15+deb13-amd64", "7.0.13+deb13-amd64",
        "7.2.13+deb14-amd64", "7.3-amd64", "7.3.4+deb13-amd64",
    ]  # fmt: skip
    others = {release for release in releases if flavour(release)}
    assert others == {"6.1.0-56-cloud-amd64", "6.1.0-56-rt-amd64"}


@pytest.mark.parametrize(
    ("release", "packages", "lacking"),
    [
        # Lists are taken where they are there, and missed nowhere.
        ("6.18.15+deb13-amd64", ["image"], []),
        ("7.2.13+deb14-amd64", ["image", "base", "modules"], []),
        ("7.0.13+deb13-amd64", ["image", "binary", "modules"], ["modules"]),
        ("7.3-amd64", ["image", "modules"], []),
    ],
)
def test_what_an_archive_no_longer_has_is_lacking(suites, release, packages, lacking):
    (kernel,) = [kernel for kernel in suites.kernels(print) if kernel.release == release]
    assert kernel.packages == tuple(f"linux-{part}-{release}" for part in packages)
    assert kernel.lacking == tuple(f"linux-{part}-{release}" for part in lacking)


def test_the_size_is_of_the_version_that_is_fetched(suites, monkeypatch):
    newest = suites.kernels(print)[-1]
    described = [
        {"Package": name, "Version": version, "Size": size}
        for name in newest.packages
        for version, size in ((newest.version, "1000"), ("1-older", "5"))
    ]
    monkeypatch.setattr(suites, "_describe", lambda names: described)
    assert suites.size(newest) == 3000


def test_files_spread_over_packages(suites):
    newest = suites.kernels(print)[-1]
    assert newest.packages == (
        "linux-image-7.3.4+deb13-amd64",
        "linux-binary-7.3.4+deb13-amd64",
        "linux-modules-7.3.4+deb13-amd64",
    )


def test_the_default_is_what_the_metapackage_says(suites):
    assert suites.default(print).release == "6.1.0-56-amd64"


def test_lists_are_read_once_a_day(suites, apt):
    suites.kernels(print)
    suites.kernels(print)
    assert sum(call[1] == "update" for call in apt.calls) == 1


def test_a_download_tells_how_far_it_is(suites, apt, tmp_path, monkeypatch):
    monkeypatch.setattr(debian_archive, "_POLL_SECONDS", 0.01)
    folder, said = tmp_path / "packages", []
    folder.mkdir()
    newest = suites.kernels(print)[-1]

    def command(program, verb, *names):
        assert names == tuple(f"{name}=7.3.4-1~bpo13+1" for name in newest.packages)
        return ["sh", "-c", "head -c 1500 /dev/zero > a.deb; sleep 0.3"]

    monkeypatch.setattr(suites, "size", lambda kernel: 3000)
    monkeypatch.setattr(suites, "_command", command)
    assert suites.download(newest, folder, said.append) == [folder / "a.deb"]
    assert 1 <= len(said) <= 2  # once halfway, perhaps once before
    assert said[-1].startswith("fetching kernel 7.3.4-1~bpo13+1: 0 of 0 MiB")


def test_a_failed_download_says_why(suites, tmp_path, monkeypatch):
    monkeypatch.setattr(
        suites, "_command", lambda *_: ["sh", "-c", "echo E: no network >&2; exit 100"]
    )
    monkeypatch.setattr(suites, "size", lambda kernel: 3000)
    with pytest.raises(KernelError) as caught:
        suites.download(suites.kernels(print)[-1], tmp_path, print)
    assert caught.value.why == "E: no network"


def test_an_archive_without_kernels(suites, apt):
    apt.search = ""
    with pytest.raises(KernelError, match="offers no kernel"):
        suites.kernels(print)


def test_nothing_configured(tmp_path):
    with pytest.raises(KernelError, match="no Debian archive configured"):
        Archive(tmp_path, []).kernels(print)


def test_version_order():
    versions = [
        "5.10.223-1", "6.1.9-1", "6.1.192-1", "6.1.192-2", "6.12.3-1",
        "7.3~rc7-1~exp1", "7.3.4-1~bpo13+1", "7.3.4-1",
    ]  # fmt: skip
    shuffled = random.Random(1).sample(versions, len(versions))
    assert sorted(shuffled, key=version_key) == versions


def test_releases_without_debian_s_table(monkeypatch, tmp_path):
    monkeypatch.setattr(debian_archive, "_DISTRO_INFO", tmp_path / "absent")
    assert debian_archive._releases() == ["oldoldstable", "oldstable", "stable", "testing"]


def test_releases_by_name(monkeypatch, tmp_path):
    table = tmp_path / "debian.csv"
    table.write_text(
        "version,codename,series,created,release,eol\n"
        "1,Old,old,1990-01-01,1996-01-01,1998-01-01\n"
        "98,Recent,recent,2098-01-01,2099-01-01,\n"
        "99,Testing,testing-one,2099-01-01\n"
        ",Sid,sid,1993-08-16\n"
    )
    monkeypatch.setattr(debian_archive, "_DISTRO_INFO", table)
    assert debian_archive._releases() == ["recent", "testing-one"]
