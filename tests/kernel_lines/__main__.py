"""``python -m tests.kernel_lines [NAME…]``: ``make test-kernels``, as root.

On every line of kernels that the archive offers, and on kernels and machines that are not as
usual, ``zctrace run`` and ``zctrace trace`` meet known transfers. What they say is written to
docs/reach.md; figures that are wrong without a doubt are an error. NAMEs, as the table has
them, are measured alone: the others' rows stay as they are.
"""

import datetime
import json
import re
import sys
import tempfile
from pathlib import Path

from tests.kernel_lines import document, judge, workload
from tests.kernel_lines.judge import Word
from tests.live.altered import ALTERED
from tests.live.conftest import zctrace
from zctrace.analysis.program import answer
from zctrace.errors import KernelError
from zctrace.evidence.schema import Evidence
from zctrace.machine import kernels, qemu
from zctrace.machine.debian_archive import flavour

OTHERS = ("6.1-rt", "6.12-rt", "7.3-rt", "6.12-cloud", "7.3-amd64")
"""Of the other flavours, and what Debian tries before it is released, in experimental."""
ALTERED_ON = ("6.1",)
ON = {
    "fsrm": ("7.3",),
    "no-erms": ("6.1", "7.3"),
    # Since Linux kernel commit 5d8213864ade ("x86/retbleed: Add SKL return thunk") (in v6.2).
    "retbleed-stuff": ("7.3",),
}
"""Where the code for it differs, or is at all."""


def everything():
    """Names of all that can be measured, in the order of the table."""
    offered = [k for k in kernels.offered(print) if not flavour(k.release)]
    lines = dict.fromkeys(kernels.line_of(kernel.version) for kernel in offered)
    altered = [f"{line}, {name}" for name in ALTERED for line in ON.get(name, ALTERED_ON)]
    return [*lines, *OTHERS, *altered]


def measured(name):
    """A row of the table."""
    kernel, _, altered = name.partition(", ")
    try:
        release = kernels.resolve(kernel, print).release
    except KernelError as error:
        refused = judge.Finding(Word.REFUSED, f"{error.what}: {error.why}")
        return _row("", refused, refused)
    return _row(release, ran(release, altered), traced(release, altered))


def ran(release, altered=None):
    """What ``zctrace run`` makes of its strategies."""
    result, said, _ = _said(altered, "run", "--kernel", release)
    return judge.of_run(json.loads(result)["summary"]) if result else judge.of_message(said)


def traced(release, altered=None):
    """What ``zctrace trace`` makes of the workload."""
    program = Path(workload.__file__).read_text()
    command = (qemu.PYTHON, "-I", "-S", "-c", program, "/dev/shm")
    result, said, output = _said(altered, "trace", "--kernel", release, then=("--", *command))
    if not result:
        return judge.of_message(said)
    (evidence,) = json.loads(result)["evidence"]
    again = int(re.search(workload.AGAIN.format(r"(\d+)"), output)[1])
    return judge.of_trace(answer(Evidence.from_json(evidence)), again)


def _said(altered, *words, then=()):
    """The result, if there is one, what was said, and the program's output."""
    with tempfile.TemporaryDirectory(prefix="zctrace-lines-") as folder:
        result = Path(folder) / "result.json"
        ended = zctrace(*words, "--json", result, "--quiet", *then, altered=altered)
        return result.read_text() if result.exists() else "", ended.stderr, ended.stdout


def _row(release, ran, traced):
    found = {"run": ran, "trace": traced}
    reasons = [f"{what}: {one.why}" for what, one in found.items() if one.why]
    if ran == traced:
        reasons = [ran.why]
    return {
        "release": release,
        **{what: str(one.word) for what, one in found.items()},
        "measured": datetime.date.today().isoformat(),
        document.REASON: "; ".join(reasons),
    }


def main(names):
    """Returns what is wrong, empty if nothing is."""
    known = everything()
    if unknown := [name for name in names if name not in known]:
        return f"{unknown[0]!r} is none of: {'; '.join(known)}"
    wrong = []
    for name in names or known:
        print(f"{name} …", flush=True)
        row = measured(name)
        said = document.table({name: row}).rpartition("\n")[2]
        print(said, flush=True)
        if Word.WRONG in (row["run"], row["trace"]):
            wrong.append(said)
        rows = document.read() | {name: row}
        document.write({one: rows[one] for one in known if one in rows})
    return "\n".join(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) or 0)
