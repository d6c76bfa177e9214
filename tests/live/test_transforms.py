"""What the CPU transforms, on real kernels: kernel TLS, AF_ALG, dm-crypt; exact bytes."""

import json
import sys

import pytest

from tests.live.conftest import HERE, zctrace
from tests.live.transforms_guest import SIZE

KERNELS = ("6.1", "7.3")
RECORDS = SIZE // (16 << 10)
"""A record of TLS has 16 KiB at most."""
TAG, TYPE = 16, 1
"""Bytes beside a record's: of the tag, which is read to decrypt, and in TLS 1.3 the type."""
EXACT = {
    "plain send": {},
    "plain sendfile": {},
    "send, TLS 1.2": {"crypto_aead_encrypt": SIZE},
    "send, TLS 1.3": {"crypto_aead_encrypt": SIZE + RECORDS * TYPE},
    "sendfile, TLS 1.2": {"crypto_aead_encrypt": SIZE},
    "receive, TLS 1.2": {"crypto_aead_decrypt": SIZE + RECORDS * TAG},
    "receive, TLS 1.3": {"crypto_aead_decrypt": SIZE + RECORDS * (TAG + TYPE)},
    "cbc": {"crypto_skcipher_encrypt": SIZE},
    "ctr": {"crypto_skcipher_encrypt": SIZE},
}
"""Bytes by function of the crypto API: all that were transformed in a window."""

SENT = {"receive, TLS 1.2": SIZE, "receive, TLS 1.3": SIZE + RECORDS * TYPE}
"""What is encrypted for them meanwhile, in another thread."""


@pytest.fixture(scope="module", params=KERNELS)
def guest(request, live):
    result = zctrace(
        *("serve", "--kernel", request.param, "-q", "--"),
        *(sys.executable, HERE / "transforms_guest.py"),
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module", params=["in C", "of the processor"])
def served(request, guest):
    """Of the windows in a guest with these ciphers: what was found, by name."""
    return guest[request.param]


@pytest.fixture(params=EXACT)
def window(request, served):
    return request.param, served[request.param]


def test_every_byte_is_counted_once(window):
    name, found = window
    seen = {part["function"]: part["bytes"] for part in found["by"]}
    assert (seen, found["transformed_bytes"]) == (EXACT[name], sum(EXACT[name].values()))
    assert (found["blind"], found["doubts"]) == ([], [])
    # What another thread sends meanwhile, to be received here, is that one's.
    assert found["unassigned"] == (SENT.get(name, 0))


@pytest.mark.parametrize("name", [name for name in EXACT if "TLS" in name or "plain" in name])
def test_a_program_can_rely_on_it(served, name):
    found = served[name]
    assert found["failed"] == []
    if name in SENT:
        assert "perhaps more" in found["figure"]
    else:
        assert found["figure"] == sum(EXACT[name].values())


def test_it_is_no_copy(served):
    """send(2) over kernel TLS copies even less: it is encrypted from the program's pages."""
    for name in ("plain sendfile", "sendfile, TLS 1.2", "send, TLS 1.2", "send, TLS 1.3"):
        assert (served[name]["copied"], served[name]["delivered"]) == ({}, SIZE), name
    assert served["plain send"]["copied"] == {"u2k": SIZE}


def test_the_sentence_names_who_did_it_and_for_whom(served):
    sentence = served["sendfile, TLS 1.2"]["sentence"]
    said = (
        f"zero-copy: the CPU copied none of the {SIZE} B delivered; "
        "but 1.00 × encrypted by the CPU"
    )
    callers = ("tls_push_record", "bpf_exec_tx_verdict")  # into which 7.3 has inlined it
    assert sentence in [f"{said} (crypto_aead_encrypt, for {caller})" for caller in callers]
    assert "encrypted" not in served["plain sendfile"]["sentence"]


def test_a_hash_reads_every_byte(served):
    found = served["sha256"]
    assert found["transformed_bytes"] == SIZE
    assert {part["quantity"] for part in found["by"]} == {"checksum"}


def test_what_the_kernel_s_threads_encrypt_is_nobody_s(served):
    """kcryptd does, later: the window's own figure is an error, not zero."""
    found = served["dm-crypt"]
    assert (found["transformed_bytes"], found["unassigned"]) == (0, SIZE)
    assert "perhaps more" in found["figure"]
    assert "possibly 1.00 × transformed" in found["sentence"]


def test_a_socket_is_named_by_what_is_on_top_of_it(served):
    assert any(name.startswith("tcp+tls ") for name in served["send, TLS 1.2"]["things"])
    assert any(name.startswith("tcp ") for name in served["plain send"]["things"])
