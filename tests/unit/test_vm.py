"""Virtual machines, without booting one."""

import itertools
import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import HERE
from zctrace import packages
from zctrace.errors import MachineError, MissingError, ResourceError, TraceError
from zctrace.evidence.devices import NICS
from zctrace.machine import emulator, images, job, kvm, qemu
from zctrace.machine import progress as machine_progress
from zctrace.machine.guardian import RunFolder
from zctrace.machine.kernels import Kernel

INSTALL = (HERE.parent / "docs" / "install.md").read_text()
DISKS = (Path("/run-folder/ext4"), Path("/run-folder/xfs"))
KERNEL = Kernel("6.1.0-56-amd64", Path("/cache/boot/vmlinuz-6.1.0-56-amd64"), "cache")


def following(command, word):
    return [after for before, after in itertools.pairwise(command) if before == word]


def test_command_when_emulated():
    guest = qemu.Guest(KERNEL, False, 2 << 30, Path("/run-folder"), DISKS)
    command = qemu.command(guest)
    assert following(command, "-kernel") == [str(KERNEL.image)]
    assert following(command, "-m") == ["2048M"]
    assert following(command, "-smp") == ["1"]
    assert following(command, "-accel") == ["tcg"]
    drives = [re.match("file=(.+),if=none,id=(.+),", a) for a in following(command, "-drive")]
    assert [drive[1] for drive in drives] == list(map(str, DISKS))
    devices = [a for a in following(command, "-device") if a.startswith("nvme,")]
    assert devices == [
        f"nvme,drive={drive[2]},serial={qemu.disk_name(number)},bus=port{number}"
        for number, drive in enumerate(drives)
    ]


def test_command_with_kvm():
    guest = qemu.Guest(KERNEL, True, 1 << 30, Path("/run-folder"))
    command = qemu.command(guest)
    assert following(command, "-accel") == ["kvm"]
    assert not any("nvme" in argument for argument in command)


def test_the_guest_s_first_program_comes_last_on_the_kernel_s_command_line():
    """The kernel hands words that are not its own to the program before which they stand."""
    guest = qemu.Guest(KERNEL, False, 1 << 30, Path("/run"), boot_options=("setcpuid=fsrm",))
    (options,) = following(qemu.command(guest), "-append")
    before, _, after = options.partition(" rdinit=")
    assert "setcpuid=fsrm" in before.split()
    assert after == f"{qemu.PYTHON} -- -I /guest_init.py"


def test_what_a_machine_is_saved_by_says_nothing_of_the_run():
    machines = [
        emulator.machine(qemu.Guest(KERNEL, False, 2 << 30, folder, disks), Path("/image"))
        for folder, disks in ((Path("/one"), DISKS), (Path("/two"), ()))
    ]
    assert machines[0] == machines[1]


def test_disks_are_no_devices_of_a_machine_that_is_to_go_on():
    guest = qemu.Guest(KERNEL, False, 2 << 30, Path("/run-folder"), DISKS)
    arguments = emulator.run_devices(guest, plugged=False)
    assert len(following(arguments, "-drive")) == len(DISKS)
    assert not [a for a in following(arguments, "-device") if a.startswith("nvme")]


def test_a_comma_in_a_path_ends_no_option():
    guest = qemu.Guest(KERNEL, False, 2 << 30, Path("/a,b"), (Path("/a,b/disk"),))
    command = qemu.command(guest)
    (share,) = [a for a in following(command, "-fsdev") if "id=zctrace_run," in a]
    assert ",path=/a,,b," in share
    (drive,) = following(command, "-drive")
    assert drive.startswith("file=/a,,b/disk,if=none,")


@pytest.mark.parametrize("program", ["qemu-system-x86_64", "modprobe"])
def test_a_program_that_booting_takes_is_missed_by_name(monkeypatch, program):
    def which(name, path=None):
        return None if name == program else f"/usr/bin/{name}"

    monkeypatch.setattr(qemu.shutil, "which", which)
    ((what, remedy),) = qemu.missing()
    assert program in what
    assert remedy in (packages.remedy("qemu"), packages.remedy("kmod"))
    with pytest.raises(MissingError, match=re.escape(f"{what} is not installed")) as caught:
        qemu.require()
    assert caught.value.hint == remedy


def test_make_and_its_document_install_what_booting_takes():
    """A minimal Debian has none of these."""
    root = HERE.parent
    makefile = (root / "Makefile").read_text().replace("\\\n", " ")
    (installed,) = re.findall(r"^PACKAGES := (.+)$", makefile, re.M)
    (listed,) = re.findall(r"installs from the distribution (.+?), puts", INSTALL, re.S)
    for _, _, need in qemu.PROGRAMS:
        package = packages.NEEDS[need].debian
        assert package in installed.split()
        assert package.removesuffix("-static").partition("-")[0] in listed.lower()


def test_memory_grows_with_the_payload():
    assert qemu.memory_for(0) == 1 << 30
    assert qemu.memory_for(1 << 30) == (1 << 30) * 7 // 2


def test_an_image_holds_the_payload_and_a_copy_of_it():
    assert images.image_size(1 << 30, "ext4") == (1 << 30) * 9 // 4 + (64 << 20)


@pytest.mark.parametrize(("kind", "least"), [("ext4", 64), ("xfs", 320), ("btrfs", 128)])
def test_an_image_is_no_smaller_than_its_file_system_takes(kind, least):
    assert images.image_size(1, kind) >> 20 == least


def test_disks_are_told_apart_by_their_serial_numbers():
    assert len({qemu.disk_name(n) for n in range(3)}) == 3


def test_both_ends_of_a_cable_are_on_one_hub():
    nics = job.emulated([NICS[name] for name in ("lo", "e1000", "e1000-nosg", "virtio")])
    assert [model for model, _ in nics] == ["e1000", "virtio-net-pci"]
    guest = qemu.Guest(KERNEL, False, 2 << 30, Path("/run-folder"), nics=nics)
    command = qemu.command(guest)
    hubs = [a.split("hubid=")[1] for a in command if "hubport," in a]
    assert hubs[0] == hubs[1] != hubs[2] == hubs[3]
    devices = [a for a in command if ",mac=" in a]
    assert [device.partition(",")[0] for device in devices] == [
        "e1000", "e1000", "virtio-net-pci", "virtio-net-pci",
    ]  # fmt: skip
    assert len({device.split("mac=")[1] for device in devices}) == 2


@pytest.fixture
def progress(tmp_path):
    said = []
    progress = machine_progress.Progress(
        tmp_path / "progress", tmp_path / "answer", said.append, 1, boot_seconds=0.3
    )
    progress.said = said
    return progress


def start(*command):
    return subprocess.Popen(command, start_new_session=True)


def step(text):
    return json.dumps({"step": text, "at": 0}) + "\n"


def test_steps_are_told_once_each(progress, tmp_path):
    progress.file.write_text(step("one") + step("two") + '{"step": "unfin')
    progress.answer.write_text("{}")
    (tmp_path / "answer").rename(tmp_path / "later")
    script = f"sleep 0.2; mv {tmp_path}/later {tmp_path}/answer; sleep 5"
    process = start("sh", "-c", script)
    try:
        progress.wait(process, tmp_path / "console", tmp_path / "log")
    finally:
        qemu.end(process)
    assert progress.said == ["one", "two"]
    assert 0 < progress.booted_after < 5


def test_a_kernel_that_does_not_boot(progress, tmp_path):
    (tmp_path / "console").write_text("Kernel panic - not syncing\n")
    process = start("sleep", "30")
    try:
        with pytest.raises(MachineError, match="no progress") as caught:
            progress.wait(process, tmp_path / "console", tmp_path / "log")
    finally:
        qemu.end(process)
    assert "Kernel panic" in caught.value.why
    assert process.returncode is not None


def test_a_guest_that_ends_before_its_first_step(progress, tmp_path):
    process = start("false")
    with pytest.raises(MachineError, match="did not boot"):
        progress.wait(process, tmp_path / "console", tmp_path / "log")


def test_a_guest_that_dies_halfway(progress, tmp_path):
    progress.file.write_text(step("compiling the probes"))
    process = start("sleep", "0.2")
    with pytest.raises(MachineError, match="died at: compiling the probes"):
        progress.wait(process, tmp_path / "console", tmp_path / "log")


def test_a_collector_without_a_machine_has_messages_of_its_own(progress, tmp_path):
    progress.boots = False
    with pytest.raises(TraceError, match="the collector did not start"):
        progress.wait(start("false"), tmp_path / "console", tmp_path / "log")


def test_only_a_slow_boot_is_told_of_its_limit(progress, tmp_path, monkeypatch):
    monkeypatch.setattr(machine_progress, "_STEP_SECONDS", 0.2)
    progress.file.write_text(step("running"))
    process = start("sleep", "30")
    try:
        with pytest.raises(MachineError) as caught:
            progress.wait(process, tmp_path / "console", tmp_path / "log")
    finally:
        qemu.end(process)
    assert "--boot-timeout" not in caught.value.hint


def test_kvm_is_remembered_by_image_and_boot(tmp_path, monkeypatch):
    monkeypatch.setenv("ZCTRACE_CACHE", str(tmp_path))
    monkeypatch.setattr(kvm, "_kvm_answers", lambda: True)
    monkeypatch.setattr(kvm, "_kvm_boots", lambda kernel, folder: True)
    assert kvm.kvm_known(KERNEL) is None
    assert kvm.kvm_works(KERNEL, RunFolder(tmp_path, "test"), print)
    assert kvm.kvm_known(KERNEL) is True
    other = Kernel("x", Path("/x"), "path")
    assert kvm.kvm_known(other) is None
    monkeypatch.setattr(kvm, "_boot_id", lambda: "another boot")
    assert kvm.kvm_known(KERNEL) is None
    monkeypatch.setattr(kvm, "_kvm_answers", lambda: False)
    assert kvm.kvm_known(KERNEL) is False


def test_a_full_disk_is_why_a_collector_left_no_message(progress, tmp_path, monkeypatch):
    monkeypatch.setattr(
        machine_progress.shutil, "disk_usage", lambda _: SimpleNamespace(free=4096)
    )
    progress.file.write_text(step("attaching"))
    with pytest.raises(ResourceError, match="died at: attaching") as caught:
        progress.wait(start("false"), tmp_path / "console", tmp_path / "log")
    assert "No space left on device" in caught.value.why
    assert "TMPDIR=" in caught.value.hint
