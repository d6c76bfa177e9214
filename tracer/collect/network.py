"""The cable between the two ends of a transfer: loopback, or a pair of network devices.

Except on loopback each end has a network namespace of its own. The namespaces have no
names: open descriptors keep them, and they vanish with this process however it ends. A
host's own devices are never touched; real ones are only taken in a machine of ours.

Sources: network_namespaces(7), ip-link(8), ethtool(8), veth(4).
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from zctrace import packages
from zctrace.errors import MissingError, UsageError, ZctraceError
from zctrace.evidence.devices import HARDWARE_ADDRESSES, LOOPBACK, Nic, NicFacts
from zctrace.workloads import libc, loopback

_SUBJECT_ADDRESS, _PEER_ADDRESS, _PREFIX_BITS = "192.0.2.1", "192.0.2.2", 24
"""TEST-NET-1 (RFC 5737), in namespaces that nothing else is in."""
_VETH = ("zctrace0", "zctrace1")
_LINK_SECONDS = 40.0
_POLL_SECONDS = 0.1
_DEVICES = Path("/sys/class/net")
_HERE = Path("/proc/self/ns/net")


@dataclass(frozen=True)
class Wire:
    """Both ends, while they are there.

    ``device`` is the network device on the subject's side and ``number`` its index there.
    ``bus_device`` is the device that its driver maps memory for, ``""`` where there is none.
    ``address`` is where the peer listens. ``ends`` has the inodes of the subject's and of the
    peer's network namespace, none on loopback. ``scatter_gather`` is what the kernel says of
    the device.
    """

    nic: Nic
    device: str
    number: int
    bus_device: str
    address: str
    ends: tuple[tuple[int, ...], tuple[int, ...]]
    scatter_gather: bool
    _namespaces: tuple[int, ...]

    @contextmanager
    def subject(self) -> Iterator[None]:
        """What this thread opens and starts is on the subject's side."""
        with _inside(self._namespaces[0] if self._namespaces else None):
            yield

    @contextmanager
    def peer(self) -> Iterator[None]:
        """What this thread opens and starts is on the peer's side."""
        with _inside(self._namespaces[1] if self._namespaces else None):
            yield

    def listen(self, make: Callable[[str], socket.socket]) -> socket.socket:
        """A listening socket on the peer's side, made for the peer's address."""
        with self.peer():
            return make(self.address)

    def facts(self) -> NicFacts:
        """For the evidence."""
        driver = self.nic.driver or self.nic.name.partition("-")[0]
        return NicFacts(self.device, self.number, driver, self.bus_device, self.scatter_gather)


@contextmanager
def wired(nic: Nic) -> Iterator[Wire]:
    """Lay the cable; raises ``ZctraceError`` where that is impossible here."""
    if nic.name == LOOPBACK:
        number = socket.if_nametoindex(LOOPBACK)
        # Of loopback nothing can be switched off: it always gathers.
        yield Wire(nic, LOOPBACK, number, "", loopback.ADDRESS, ((), ()), True, ())
        return
    with ExitStack() as stack:
        here = _open(_HERE, stack)
        subject, peer = (_new_namespace(here, stack) for _ in range(2))
        names, bus_device = _emulated(nic) if nic.driver else (_VETH, "")
        if not nic.driver:
            _veth(nic, here, subject, peer)
        else:
            for name, namespace in zip(names, (subject, peer), strict=True):
                _ip("link", "set", name, "netns", f"/proc/{os.getpid()}/fd/{namespace}")
        for name, namespace, address in zip(
            names, (subject, peer), (_SUBJECT_ADDRESS, _PEER_ADDRESS), strict=True
        ):
            with _inside(namespace):
                _configure(name, address, nic)
        for name, namespace in zip(names, (subject, peer), strict=True):
            with _inside(namespace):
                _await_link(name)
        with _inside(subject):
            number = socket.if_nametoindex(names[0])
            gathers = _gathers(names[0])
        inodes = tuple((os.fstat(n).st_ino,) for n in (subject, peer))
        wire = Wire(
            nic, names[0], number, bus_device, _PEER_ADDRESS, (inodes[0], inodes[1]),
            gathers, (subject, peer),
        )  # fmt: skip
        yield wire
        if nic.driver:
            # Back to where the next cable looks for them.
            for name, namespace in zip(names, (subject, peer), strict=True):
                with _inside(namespace):
                    _ip("link", "set", name, "netns", f"/proc/{os.getpid()}/fd/{here}")


def route(host: str) -> str:
    """The device of this machine that packets to a host leave through.

    Raises ``ZctraceError`` where there is no way, or no such host.
    """
    try:
        address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        raise UsageError(f"{host}: {error.strerror}", hint="its address") from error
    words = _ip("-oneline", "route", "get", str(address)).split()
    if "dev" not in words[:-1]:
        raise UsageError(f"no way leads to {host}", " ".join(words))
    return words[words.index("dev") + 1]


def outward(device: str) -> Wire:
    """A device that this machine has, in this network namespace; nothing is changed."""
    if device == LOOPBACK:
        gathers, bus = True, ""
    else:
        gathers, bus = _gathers(device), bus_device((_DEVICES / device).resolve())
    number = socket.if_nametoindex(device)
    nic = Nic(device, _driver(device), scatter_gather=gathers)
    return Wire(nic, device, number, bus, loopback.ADDRESS, ((), ()), gathers, ())


def _driver(device: str) -> str:
    link = _DEVICES / device / "device" / "driver"
    return link.resolve().name if link.exists() else ""


def _veth(nic: Nic, here: int, subject: int, peer: int) -> None:
    with _inside(subject):
        other = ("peer", "name", _VETH[1], "netns", f"/proc/{os.getpid()}/fd/{peer}")
        try:
            _ip("link", "add", _VETH[0], "type", "veth", *other)
        except ZctraceError as error:
            raise ZctraceError(
                f"--nic {nic.name}: this kernel makes no pair of virtual devices",
                error.why,
                "modprobe veth",
            ) from error


def _emulated(nic: Nic) -> tuple[tuple[str, str], str]:
    """Names of the two devices of this machine, and the first one's on its bus."""
    subprocess.run(["modprobe", "-q", nic.driver], check=False)
    deadline = time.monotonic() + _LINK_SECONDS
    while True:
        found = {}
        for device in _DEVICES.iterdir():
            address = (device / "address").read_text().strip()
            driver = (device / "device" / "driver").resolve().name
            if driver == nic.driver and address in HARDWARE_ADDRESSES:
                found[address] = device
        if len(found) == len(HARDWARE_ADDRESSES):
            one, other = (found[address] for address in HARDWARE_ADDRESSES)
            return (one.name, other.name), bus_device(one.resolve())
        if time.monotonic() > deadline:
            raise ZctraceError(
                f"--nic {nic.name}: there are no such devices",
                f"two with the driver {nic.driver} were expected, {len(found)} found",
            )
        time.sleep(_POLL_SECONDS)


def on_bus(device: Path) -> Path | None:
    """The nearest device above on a PCI bus: the one whose driver maps memory."""
    for above in device.parents:
        if (above / "subsystem").resolve().name == "pci":
            return above
    return None


def bus_device(device: Path) -> str:
    """The name of :func:`on_bus`; ``""`` where there is none."""
    found = on_bus(device)
    return found.name if found else ""


def _configure(name: str, address: str, nic: Nic) -> None:
    _ip("link", "set", LOOPBACK, "up")
    if not nic.scatter_gather:
        _ethtool("-K", name, "sg", "off")
        if _gathers(name):
            raise ZctraceError(
                f"--nic {nic.name}: scatter/gather cannot be switched off", f"of {name}"
            )
    elif nic.driver:
        # A cable before this one may have had it off; some devices do not have it at all.
        with suppress(ZctraceError):
            _ethtool("-K", name, "sg", "on", "gso", "on")
    _ip("address", "add", f"{address}/{_PREFIX_BITS}", "dev", name)
    _ip("link", "set", name, "up")


def _gathers(name: str) -> bool:
    return "\nscatter-gather: on" in _ethtool("-k", name)


def _ethtool(*arguments: str) -> str:
    return _run("ethtool", *arguments, need="ethtool")


def _await_link(name: str) -> None:
    deadline = time.monotonic() + _LINK_SECONDS
    while "LOWER_UP" not in _ip("-oneline", "link", "show", name):
        if time.monotonic() > deadline:
            raise ZctraceError(f"the device {name} has no link after {_LINK_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments, need="ip")


def _run(program: str, *arguments: str, need: str) -> str:
    try:
        result = subprocess.run([program, *arguments], capture_output=True, text=True)
    except FileNotFoundError as error:
        raise MissingError(
            f"{program} is not installed",
            "it sets up network devices",
            packages.remedy(need),
        ) from error
    if result.returncode:
        raise ZctraceError(f"{program} {' '.join(arguments)} failed", result.stderr.strip())
    return result.stdout


def _open(path: Path, stack: ExitStack) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor


def _new_namespace(here: int, stack: ExitStack) -> int:
    """A network namespace that lives as long as the descriptor returned."""
    libc.unshare(libc.CLONE_NEWNET)
    try:
        return _open(_HERE, stack)
    finally:
        libc.setns(here, libc.CLONE_NEWNET)


@contextmanager
def _inside(namespace: int | None) -> Iterator[None]:
    """This thread in another network namespace; the same where it is ``None``."""
    if namespace is None:
        yield
        return
    with ExitStack() as stack:
        here = _open(_HERE, stack)
        libc.setns(namespace, libc.CLONE_NEWNET)
        try:
            yield
        finally:
            libc.setns(here, libc.CLONE_NEWNET)
