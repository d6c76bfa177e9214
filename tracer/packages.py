"""What zctrace needs from a distribution, and the names of its packages there.

Names come from the distributions' package lists and spec files, from BCC's INSTALL.md, from
mkosi's lists of tools, and from installation guides of other projects; none is a guess.
``docs/install.md`` says on which distributions zctrace was tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

INSTALL = {
    "debian": "apt-get install",
    "fedora": "dnf install",
    "arch": "pacman -S",
    "opensuse": "zypper install",
}
"""How each family of distributions installs a package."""
_FAMILIES = {"ubuntu": "debian", "suse": "opensuse"}
"""Names in os-release that are not a family's own."""


@dataclass(frozen=True)
class Need:
    """Something that zctrace needs: the project it comes from, and its package by family.

    ``others`` has the packages of some distributions or releases, by what os-release calls
    them, where they differ from their family's.
    """

    project: str
    site: str
    debian: str
    fedora: str
    arch: str
    opensuse: str
    others: Mapping[str, str] | None = None


def _same(project: str, site: str, package: str) -> Need:
    return Need(project, site, package, package, package, package)


NEEDS = {
    "bcc": Need(
        *("BCC's Python module", "https://github.com/iovisor/bcc"),
        *("python3-bpfcc", "python3-bcc", "python-bcc", "python3-bcc"),
    ),
    "capstone": Need(
        *("Capstone's Python module", "https://www.capstone-engine.org"),
        *("python3-capstone", "python3-capstone", "python-capstone", "python3-capstone"),
    ),
    "elftools": Need(
        *("pyelftools", "https://github.com/eliben/pyelftools"),
        *("python3-pyelftools", "python3-pyelftools", "python-pyelftools"),
        "python3-pyelftools",
    ),
    "python": Need(
        *("Python", "https://www.python.org"),
        *("python3", "python3", "python", "python3"),
    ),
    "libbpf": Need(
        *("libbpf", "https://github.com/libbpf/libbpf"),
        *("libbpf1", "libbpf", "libbpf", "libbpf1"),
    ),
    "qemu": Need(
        *("QEMU", "https://www.qemu.org"),
        *("qemu-system-x86", "qemu-system-x86-core", "qemu-system-x86", "qemu-x86"),
    ),
    "kmod": _same("kmod", "https://github.com/kmod-project/kmod", "kmod"),
    "zstd": _same("Zstandard", "https://facebook.github.io/zstd", "zstd"),
    "ext4": _same("e2fsprogs", "https://e2fsprogs.sourceforge.net", "e2fsprogs"),
    "xfs": _same("xfsprogs", "https://xfs.wiki.kernel.org", "xfsprogs"),
    "btrfs": Need(
        *("btrfs-progs", "https://btrfs.readthedocs.io"),
        *("btrfs-progs", "btrfs-progs", "btrfs-progs", "btrfsprogs"),
    ),
    "ip": Need(
        *("iproute2", "https://wiki.linuxfoundation.org/networking/iproute2"),
        *("iproute2", "iproute", "iproute2", "iproute2"),
    ),
    "ethtool": _same(
        "ethtool", "https://www.kernel.org/pub/software/network/ethtool", "ethtool"
    ),
    # Debian 13 has no 17 any more, and Ubuntu has one in every release that is supported.
    "java": Need(
        *("a JDK, 17 or 22 and later", "https://openjdk.org"),
        *("openjdk-25-jdk-headless", "java-latest-openjdk-devel"),
        *("jdk17-openjdk", "java-17-openjdk-devel"),
        {"bookworm": "openjdk-17-jdk-headless", "ubuntu": "openjdk-17-jdk-headless"},
    ),
    "prometheus": Need(
        *("prometheus_client for Python", "https://prometheus.github.io/client_python"),
        *("python3-prometheus-client", "python3-prometheus_client"),
        *("python-prometheus_client", "python3-prometheus_client"),
    ),
    "maven": _same("Maven", "https://maven.apache.org", "maven"),
}
"""By what the rest of zctrace calls them."""


def remedy(need: str) -> str:
    """How to install what is missing here: a command, or which project it comes from."""
    about, wanted = _os_release(), NEEDS[need]
    named = [about.get("VERSION_CODENAME", ""), about.get("ID", "")]
    for family in _families(about):
        others = wanted.others or {}
        package = next((others[name] for name in named if name in others), None)
        return f"{INSTALL[family]} {package or getattr(wanted, family)}"
    distribution = about.get("NAME") or about.get("ID") or "this distribution"
    return (
        f"install {wanted.project} ({wanted.site}); "
        f"zctrace does not know its package in {distribution}"
    )


def _families(about: Mapping[str, str]) -> list[str]:
    """Those that a distribution belongs to, the closest first."""
    names = [about.get("ID", ""), *about.get("ID_LIKE", "").split()]
    return [family for name in names if (family := _FAMILIES.get(name, name)) in INSTALL]


def _os_release() -> Mapping[str, str]:
    """See os-release(5)."""
    import platform  # only where something is missing

    with suppress(OSError, ValueError):  # it may be in any encoding
        return platform.freedesktop_os_release()
    return {}
