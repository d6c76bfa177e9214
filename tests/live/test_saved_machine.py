"""Emulated guests go on from a machine that was saved: what is one run's own all the same.

On one kernel: which devices there are, and when, is QEMU's business.
"""

import time

import pytest

from zctrace.machine import images, kernels, saved
from zctrace.machine import kvm as machine_kvm
from zctrace.machine.guardian import RunFolder

LINE, SECONDS = "6.1", 30.0
FILE_SYSTEMS = ("ext4", "xfs")


@pytest.fixture(scope="module")
def folder(live, tmp_path_factory):
    """Where the kernel's machines are saved: apart, for other tests use and replace theirs."""
    kernel = kernels.resolve(LINE, print)
    if machine_kvm.kvm_works(kernel, RunFolder(tmp_path_factory.mktemp("kvm"), "kvm"), print):
        pytest.skip("with KVM a guest boots as fast as it goes on")
    apart = tmp_path_factory.mktemp("machines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "machine_folder", lambda kernel: apart)
        yield apart


@pytest.fixture(scope="module")
def two(folder, in_guest):
    """The answers of two guests, and when each was there."""
    answers = []
    for _ in range(2):
        found = in_guest(LINE, "resumed_guest.py", file_systems=FILE_SYSTEMS)
        answers.append((found, time.time()))
    return answers


def test_a_machine_is_saved(two, folder):
    assert len(list(folder.glob("*.saved"))) == 1


def test_randomness_is_each_guest_s_own(two):
    (one, _), (other, _) = two
    assert not set(one["random"]) & set(other["random"])


def test_time_goes_on_without_the_machine(two):
    for found, ended in two:
        assert 0 <= ended - found["now"] < SECONDS
        # It has not booted since.
        assert found["up"] < SECONDS


def test_disks_are_those_of_the_run(two):
    sizes = [images.image_size(1 << 20, kind) for kind in FILE_SYSTEMS]
    assert [found["disks"] for found, _ in two] == [sizes] * 2


def test_a_guest_has_nothing_of_whoever_started_it(two):
    for found, _ in two:
        assert set(found["environment"]) <= {"PATH", "HOME", "LANG", "LC_CTYPE"} | {
            "SETUPTOOLS_USE_DISTUTILS"
        }
        assert found["folder"].rpartition("/")[2].startswith("zctrace-test-")


def test_a_damaged_machine_is_made_anew(two, folder, in_guest):
    (machine,) = folder.glob("*.saved")
    whole = machine.stat().st_size
    with machine.open("r+b") as file:
        file.seek(whole // 2)
        file.write(b"damaged")
    damaged = machine.read_bytes()
    assert in_guest(LINE, "resumed_guest.py", file_systems=FILE_SYSTEMS)
    assert machine.read_bytes() != damaged


def test_one_that_does_not_go_on_is_made_anew(two, folder, in_guest):
    """Sound, as far as its checksum goes, and yet no machine."""
    (machine,) = folder.glob("*.saved")
    machine.write_bytes(b"no machine")
    saved._seal(machine)
    assert in_guest(LINE, "resumed_guest.py", file_systems=FILE_SYSTEMS)
    assert not machine.exists()
    # The one after has one again.
    in_guest(LINE, "resumed_guest.py", file_systems=FILE_SYSTEMS)
    assert machine.stat().st_size > 1 << 20
