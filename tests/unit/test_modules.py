"""Modules that are to be loaded before anything is measured."""

import os

import pytest

from tests.conftest import recorded_evidence
from zctrace.collect import modules as loading
from zctrace.errors import MissingError, UsageError
from zctrace.evidence.schema import Evidence
from zctrace.kernel import remembered
from zctrace.machine import modules
from zctrace.machine.kernels import Kernel
from zctrace.machine.places import Place

RELEASE = "6.1.0-56-amd64"
LISTS = {
    "modules.dep": "kernel/net/tls/tls.ko.xz:\nkernel/fs/xfs/xfs.ko: kernel/lib/libcrc32c.ko\n"
    "kernel/net/vmw_vsock/vmw_vsock-vmci.ko.zst: kernel/net/vmw_vsock/vsock.ko\n",
    "modules.builtin": "kernel/fs/fuse/fuse.ko\n",
}


def listed(folder, **lists):
    """A folder of a kernel's modules, with the lists."""
    folder.mkdir(parents=True)
    for name, text in (lists or LISTS).items():
        (folder / name).write_text(text)


@pytest.fixture
def guest(monkeypatch, tmp_path):
    """A virtual machine's kernel, with its modules."""
    listed(tmp_path / "lib" / "modules" / RELEASE)
    program = tmp_path / "modprobe"
    program.touch(mode=0o755)
    monkeypatch.setattr(modules, "MODPROBE", str(program))
    return Place(Kernel(RELEASE, tmp_path / "boot" / f"vmlinuz-{RELEASE}", "path"))


@pytest.fixture
def host(monkeypatch, tmp_path):
    """This machine: tls, vsock and what is built in are there, xfs could be loaded."""
    monkeypatch.setattr(modules, "_INSTALLED", tmp_path)
    monkeypatch.setattr(remembered, "SYS_MODULES", tmp_path / "sys")
    for name in ("tls", "vsock"):
        (tmp_path / "sys" / name).mkdir(parents=True)
    listed(tmp_path / os.uname().release)
    return Place(None)


def test_names_are_the_kernel_s_each_once():
    assert modules.chosen(["vmw-vsock", "tls", "vmw_vsock"]) == ("vmw_vsock", "tls")


@pytest.mark.parametrize("name", ["tls", "xfs", "vmw_vsock_vmci", "fuse"])
def test_what_a_kernel_has_can_be_loaded_in_a_guest(guest, name):
    modules.check([name], [guest])


@pytest.mark.parametrize(
    ("name", "why", "hint"),
    [
        ("tsl", "", "--module tls"),
        ("fus", "", "--module fuse or --module xfs"),
        ("vmw_vsock", "", "--module vmw_vsock_vmci"),
        ("", "it has 4, and none has a name like that", ""),
        ("../tls", "", "--module tls"),
        ("nothing", "it has 4, and none has a name like that", ""),
    ],
)
def test_an_unknown_name_is_refused_with_what_is_like_it(guest, name, why, hint):
    with pytest.raises(UsageError) as caught:
        modules.check(["tls", name], [guest])
    assert caught.value.what == f"--module {name}: Linux {RELEASE} has no such module"
    assert (caught.value.why, caught.value.hint) == (why, hint)


def test_every_place_must_have_it(guest, host):
    with pytest.raises(UsageError, match="xfs: it is not loaded in this machine's own"):
        modules.check(["xfs"], [guest, host])


@pytest.mark.parametrize("missing", LISTS)
def test_without_a_list_the_guest_says_so_itself(guest, missing):
    (guest.kernel.modules / missing).unlink()
    modules.check(["nothing"], [guest])


def test_a_kernel_without_modules_loads_none(tmp_path):
    image = tmp_path / "boot" / "vmlinuz"
    with pytest.raises(UsageError, match="has an image, but no modules"):
        modules.check(["tls"], [Place(Kernel("vmlinuz", image, "path"))])


def test_a_machine_without_modprobe_is_told_what_is_missing(guest, monkeypatch, tmp_path):
    monkeypatch.setattr(modules, "MODPROBE", str(tmp_path / "none"))
    with pytest.raises(MissingError) as caught:
        modules.check(["tls"], [guest])
    assert caught.value.hint == "apt-get install kmod"
    modules.check([], [guest])


@pytest.mark.parametrize("name", ["tls", "vsock", "fuse"])
def test_on_this_machine_what_is_there_is_fine(host, name):
    modules.check([name], [host])


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        (
            "xfs",
            "--module xfs: it is not loaded in this machine's own kernel",
            "modprobe xfs; or a virtual machine: --kernel 6.1",
        ),
        (
            "xsf",
            f"--module xsf: Linux {os.uname().release} has no such module",
            "--module xfs",
        ),
    ],
)
def test_on_this_machine_none_is_loaded(host, name, what, hint):
    with pytest.raises(UsageError) as caught:
        modules.check([name], [host])
    assert (caught.value.what, caught.value.hint) == (what, hint)


@pytest.fixture
def modprobe(monkeypatch, tmp_path):
    """Stands for the program; returns what it was called with."""
    monkeypatch.setattr(loading, "SYS_MODULES", tmp_path / "sys")
    (tmp_path / "sys" / "vsock").mkdir(parents=True)
    called = tmp_path / "called"
    called.touch()
    program = tmp_path / "modprobe"
    program.write_text(
        f'#!/bin/sh\necho "$@" >>{called}\n[ "$2" != bad ] || '
        '{ echo "modprobe: ERROR: could not insert" >&2; exit 1; }\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(loading, "MODPROBE", str(program))
    return lambda: called.read_text().splitlines()


def test_what_is_not_there_is_loaded_in_order(modprobe):
    loading.load(("xfs", "vsock", "tls"))
    assert modprobe() == ["-- xfs", "-- tls"]


def test_what_the_kernel_does_not_load_is_an_error_with_its_words(modprobe):
    with pytest.raises(UsageError) as caught:
        loading.load(("bad", "tls"))
    assert caught.value.what == "--module bad: the kernel does not load it"
    assert caught.value.why == "modprobe: ERROR: could not insert"
    assert modprobe() == ["-- bad"]


def test_a_result_that_was_saved_before_there_were_modules_is_read():
    saved = recorded_evidence("6.1").to_json()
    saved["request"].pop("modules", None)
    assert Evidence.from_json(saved).request.modules == ()


def test_modules_survive_being_written_and_read():
    saved = recorded_evidence("6.1").to_json()
    saved["request"]["modules"] = ["tls", "xfs"]
    again = Evidence.from_json(Evidence.from_json(saved).to_json())
    assert again.request.modules == ("tls", "xfs")
