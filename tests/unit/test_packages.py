"""What to install, by the distribution that zctrace runs on."""

import dataclasses
import platform
import re

import pytest

from tests.conftest import HERE
from zctrace import packages
from zctrace.machine import images, places, qemu
from zctrace.packages import INSTALL, NEEDS

ROOT = HERE.parent
FEDORA = {"ID": "fedora", "NAME": "Fedora Linux"}
ARCH = {"ID": "arch", "NAME": "Arch Linux"}
DISTRIBUTIONS = [
    ({"ID": "debian", "VERSION_CODENAME": "bookworm"}, "bcc", "apt-get install python3-bpfcc"),
    ({"ID": "ubuntu", "ID_LIKE": "debian"}, "qemu", "apt-get install qemu-system-x86"),
    ({"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}, "ip", "apt-get install iproute2"),
    (FEDORA, "bcc", "dnf install python3-bcc"),
    (FEDORA, "ip", "dnf install iproute"),
    (FEDORA, "qemu", "dnf install qemu-system-x86-core"),
    ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "kmod", "dnf install kmod"),
    (ARCH, "capstone", "pacman -S python-capstone"),
    ({"ID": "manjaro", "ID_LIKE": "arch"}, "libbpf", "pacman -S libbpf"),
    ({"ID": "opensuse-leap", "ID_LIKE": "suse opensuse"}, "btrfs", "zypper install btrfsprogs"),
    ({"ID": "opensuse-tumbleweed", "ID_LIKE": "opensuse suse"}, "qemu",
     "zypper install qemu-x86"),
    ({"ID": "debian", "VERSION_CODENAME": "bookworm"}, "java",
     "apt-get install openjdk-17-jdk-headless"),
    ({"ID": "debian", "VERSION_CODENAME": "trixie"}, "java",
     "apt-get install openjdk-25-jdk-headless"),
    ({"ID": "debian"}, "java", "apt-get install openjdk-25-jdk-headless"),
    ({"ID": "ubuntu", "ID_LIKE": "debian", "VERSION_CODENAME": "noble"}, "java",
     "apt-get install openjdk-17-jdk-headless"),
]  # fmt: skip


@pytest.fixture
def on(monkeypatch):
    return lambda about: monkeypatch.setattr(platform, "freedesktop_os_release", lambda: about)


@pytest.mark.parametrize(("about", "need", "command"), DISTRIBUTIONS)
def test_the_package_is_the_distributions_own(on, about, need, command):
    on(about)
    assert packages.remedy(need) == command


@pytest.mark.parametrize("need", NEEDS)
@pytest.mark.parametrize("family", INSTALL)
def test_every_need_has_a_package_in_every_family(on, need, family):
    on({"ID": family})
    assert re.fullmatch(rf"{INSTALL[family]} [a-z0-9][a-z0-9.+_-]+", packages.remedy(need))


def test_of_an_unknown_distribution_the_project_is_named(on):
    on({"ID": "void", "NAME": "Void"})
    remedy = packages.remedy("bcc")
    assert "https://github.com/iovisor/bcc" in remedy
    assert "does not know its package in Void" in remedy
    assert "install python3" not in remedy


def test_without_os_release_the_project_is_named(monkeypatch):
    def absent():
        raise OSError

    monkeypatch.setattr(platform, "freedesktop_os_release", absent)
    assert "https://www.qemu.org" in packages.remedy("qemu")
    assert "in this distribution" in packages.remedy("qemu")


def test_whatever_can_be_missing_is_in_the_table(monkeypatch):
    monkeypatch.setattr(qemu.shutil, "which", lambda *_, **__: None)
    assert len(qemu.missing()) == len(qemu.PROGRAMS)
    assert {*places.MODULES, *(set(images.FILE_SYSTEMS) - {"tmpfs"})} <= NEEDS.keys()


def test_no_package_is_named_anywhere_else():
    """One table: what the user reads is right on every distribution, or on none."""
    sources = [
        p for folder in ("tracer", "workloads", "probes") for p in (ROOT / folder).rglob("*.py")
    ]
    install = re.compile("|".join(f"{command} " for command in INSTALL.values()))
    assert [p.name for p in sources if install.search(p.read_text())] == []
    assert len(sources) > 100


def test_make_installs_what_the_table_says_of_debian():
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    (installed,) = re.findall(r"^PACKAGES := (.+)$", makefile, re.M)
    later = {"java", "maven", "prometheus", "python", "libbpf"}
    wanted = {need.debian for name, need in NEEDS.items() if name not in later}
    assert wanted <= set(installed.split())


def test_the_document_has_every_package():
    """docs/install.md: a table with a column for each family."""
    text = (ROOT / "docs" / "install.md").read_text()
    rows = re.findall(
        r"^\| [^|]+ \| `([^|]+)` \| `([^|]+)` \| `([^|]+)` \| `([^|]+)` \|$", text, re.M
    )
    of = [tuple(getattr(need, family) for family in INSTALL) for need in NEEDS.values()]
    assert sorted(rows) == sorted(of)
    others = [dataclasses.asdict(need)["others"] or {} for need in NEEDS.values()]
    assert all(f"`{name}`" in text for names in others for name in names.values())
