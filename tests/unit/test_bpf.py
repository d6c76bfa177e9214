"""What is asked of bpf(2), and what its answers mean."""

import ctypes
import errno
import struct
from types import SimpleNamespace

import pytest

from zctrace.kernel import bpf_syscall

NUMBER, PROGRAM, CODE = 4711, 33, bytes(range(48))


@pytest.fixture
def kernel(monkeypatch):
    """A kernel that answers from a list, and what it was asked: command and attributes."""
    asked, answers = [], []

    def syscall(number, command, attributes, size):
        assert number == 321
        asked.append((command, bytes(attributes.raw[:size])))
        answer = answers.pop(0)
        if callable(answer):
            return answer(attributes)
        if answer < 0:
            ctypes.set_errno(-answer)
        return max(answer, -1)

    monkeypatch.setattr(bpf_syscall, "_libc", SimpleNamespace(syscall=syscall))
    monkeypatch.setattr(bpf_syscall, "_type_number", lambda function: NUMBER)
    return SimpleNamespace(asked=asked, answers=answers)


def refuse_with(words):
    """Refuse a program, and write why where the caller wants to read it."""

    def answer(attributes):
        size, address = struct.unpack_from("=IQ", attributes, 28)
        text = words.encode() + b"\0"
        assert len(text) <= size
        ctypes.memmove(address, text, len(text))
        ctypes.set_errno(errno.EACCES)
        return -1

    return answer


def test_a_program_is_loaded_for_the_function_s_number(kernel):
    kernel.answers.append(PROGRAM)
    assert bpf_syscall.load_at_entry("skb_copy_bits", CODE) == PROGRAM
    ((command, attributes),) = kernel.asked
    kind, count = struct.unpack_from("=II", attributes)
    assert (command, kind, count) == (5, 26, len(CODE) // 8)
    assert struct.unpack_from("=I", attributes, 24) == (0,)  # without a log
    assert struct.unpack_from("=I", attributes, 68) == (24,)  # BPF_TRACE_FENTRY
    assert struct.unpack_from("=I", attributes, 108) == (NUMBER,)


@pytest.mark.parametrize(
    "kind", [bpf_syscall.PROBE, bpf_syscall.TRACEPOINT, bpf_syscall.BREAKPOINT]
)
def test_a_program_that_no_function_calls_is_loaded_for_none(kernel, kind):
    kernel.answers.append(PROGRAM)
    assert bpf_syscall.load(kind, CODE) == PROGRAM
    ((command, attributes),) = kernel.asked
    assert (command, *struct.unpack_from("=II", attributes)) == (5, kind, len(CODE) // 8)
    assert struct.unpack_from("=I", attributes, 68) == struct.unpack_from("=I", attributes, 108)
    assert struct.unpack_from("=I", attributes, 108) == (0,)


def test_a_refusal_comes_with_the_verifier_s_last_words(kernel):
    said = "0: (bf) r6 = r1\nR1 invalid mem access 'scalar'\nprocessed 4 insns"
    kernel.answers += [-errno.EACCES, refuse_with(said)]
    with pytest.raises(OSError, match="invalid mem access") as caught:
        bpf_syscall.load_at_entry("skb_copy_bits", CODE)
    assert caught.value.errno == errno.EACCES
    assert "processed" not in str(caught.value)


def test_what_cannot_be_attached_is_given_back(kernel, monkeypatch):
    closed = []
    monkeypatch.setattr(bpf_syscall.os, "close", closed.append)
    kernel.answers += [PROGRAM, -errno.EBUSY]
    with pytest.raises(OSError, match="busy") as caught:
        bpf_syscall.try_at_entry("skb_copy_bits")
    assert caught.value.errno == errno.EBUSY
    assert closed == [PROGRAM]
    assert kernel.asked[1][0] == 17
    assert struct.unpack("=QI", kernel.asked[1][1][:12]) == (0, PROGRAM)


def tell(length, **values):
    """Fill struct bpf_prog_info in, as far as a kernel of some age knows it."""

    def answer(attributes):
        program, size, address = struct.unpack_from("=IIQ", attributes)
        assert program == PROGRAM
        info = bytearray(size)
        struct.pack_into("=Q", info, 208, values["misses"])
        ctypes.memmove(address, bytes(info[:length]), length)
        struct.pack_into("=I", attributes, 4, length)
        return 0

    return answer


@pytest.mark.parametrize(("length", "misses"), [(224, 9), (216, 9), (208, None), (0, None)])
def test_an_older_kernel_does_not_tell_of_skips(kernel, length, misses):
    kernel.answers += [tell(length, misses=9)]
    assert bpf_syscall.recursion_misses(PROGRAM) == misses
