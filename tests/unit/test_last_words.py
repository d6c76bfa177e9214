"""Why a guest ended, by consoles that were recorded, whole, of kernels that did not boot."""

import pytest

from tests.conftest import HERE
from zctrace.machine.last_words import last_words

CONSOLES = {
    "6.12-cloud-without-9p": "the guest's first program failed: [Errno 19] this kernel has no "
    "file system 9p: '/share'",
    "6.1-panic": "Kernel panic - not syncing: sysrq triggered crash",
}


@pytest.mark.parametrize(("name", "reason"), CONSOLES.items())
def test_a_console_has_its_kernel_s_reason(tmp_path, name, reason):
    assert last_words(tmp_path / "absent", HERE / "consoles" / f"{name}.txt") == reason


def said(tmp_path, console, log=""):
    for name, text in (("console", console), ("log", log)):
        (tmp_path / name).write_text(text)
    return last_words(tmp_path / "log", tmp_path / "console")


FAULT = "[    5.1] BUG: kernel NULL pointer dereference, address: 0000000000000010\n"
PANIC = "[    5.2] Kernel panic - not syncing: Fatal exception\n"


def test_a_fault_comes_before_the_panic_that_it_is_for(tmp_path):
    reason = said(tmp_path, f"{FAULT}[    5.1] RIP: 0010:f+0x1/0x2\n{PANIC}")
    assert reason == (
        "BUG: kernel NULL pointer dereference, address: 0000000000000010 | "
        "Kernel panic - not syncing: Fatal exception"
    )


def test_a_kernel_that_died_is_why_whatever_its_collector_has_said(tmp_path):
    assert said(tmp_path, FAULT, "compiling\n").startswith("BUG: kernel NULL pointer")


def test_without_a_reason_the_collector_s_log_is_nearer(tmp_path):
    assert said(tmp_path, "[    1.0] nvme: slow\n", "a\nb\nc\nd\n") == "b | c | d"


def test_registers_and_call_traces_are_no_words(tmp_path):
    console = (HERE / "consoles" / "6.1-panic.txt").read_text().replace("Kernel panic", "Panic")
    assert said(tmp_path, console) == (
        "sysrq: Trigger a crash | Panic - not syncing: sysrq triggered crash"
    )


def test_a_guest_that_said_nothing(tmp_path):
    assert last_words(tmp_path / "absent", tmp_path / "absent too") == ""
