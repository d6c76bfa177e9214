"""Pages of every kind, from what was recorded."""

import dataclasses
import json
from pathlib import Path

from tests.conftest import HERE, recorded_evidence
from zctrace.analysis import program, runs, saved
from zctrace.analysis.comparison import pairing
from zctrace.commands.example import FOLDER
from zctrace.evidence.account import Stack
from zctrace.evidence.schema import Evidence
from zctrace.reports.html import page, result_page

LINES = ("5.10", "6.1", "7.3", "6.1-e1000", "7.3-e1000")
JAVA = ("6.1-java", "6.1-netty")


def _runs(*lines):
    return page.page(runs.judge([recorded_evidence(line) for line in lines]))


def _example(name):
    return saved.read(FOLDER / f"{name}.json")


def _saved(line):
    return saved.Saved(Path(line), runs.judge([recorded_evidence(line)]), [])


def _recorded(line):
    text = (HERE / "evidence" / f"programs-{line}.json").read_text()
    return [program.answer(Evidence.from_json(one)) for one in json.loads(text).values()]


def with_stacks():
    """A trace with stacks: deep ones, narrow ones, and names of all lengths."""
    text = (HERE / "evidence" / "programs-6.1.json").read_text()
    evidence = Evidence.from_json(json.loads(text)["nginx, sendfile off"])
    deep = tuple(f"ngx_http_a_function_with_a_name_{n}" for n in range(25))
    rows = (
        ("nginx", "_copy_to_iter", "pread64", ("_copy_to_iter", "copy_page_to_iter"), deep, 16),
        (
            "nginx",
            "_copy_from_iter",
            "writev",
            ("_copy_from_iter", "tcp_sendmsg"),
            deep[5:],
            12,
        ),
        ("nginx", "_copy_from_iter", "writev", ("_copy_from_iter", "tcp_send"), deep[9:], 4),
        ("worker", "_copy_to_iter", "recvfrom", ("_copy_to_iter",), ("f", "main"), 1),
        ("", "skb_copy_bits", None, ("skb_copy_bits", "net_rx_action"), (), 1),
    )
    stacks = tuple(
        Stack(152 if name else 0, name, site, call, None, kernel, user, 9, size << 20)
        for name, site, call, kernel, user, size in rows
    )
    account = dataclasses.replace(evidence.trace.account, stacks=stacks)
    trace = dataclasses.replace(evidence.trace, account=account)
    return program.answer(dataclasses.replace(evidence, trace=trace))


PAGES = {
    "flames": lambda: result_page.of_programs([with_stacks()]),
    # Several kernels and devices; copies in user memory and long names.
    "run": lambda: _runs(*LINES),
    "java": lambda: _runs(*JAVA),
    "trace": lambda: result_page.of_programs(_example("cp").programs),
    # With stacks, bytes that are not explained, and ciphers.
    "traces": lambda: result_page.of_programs(_recorded("6.1")),
    "compared-traces": lambda: result_page.of_comparison(
        pairing.compare(_example("web-server"), _example("web-server-sendfile"))
    ),
    "compared-runs": lambda: result_page.of_comparison(
        pairing.compare(_saved("5.10"), _saved("7.3"))
    ),
}
"""A function each, which makes the page's text."""
