"""Whether the package that ``make deb`` builds works on a Debian that has nothing.

``python -m tests.fresh.check_deb [RELEASE…]``, as root; Debian 12 and 13 unless named. Each has
a root file system of its own, minimal. There Containerfile's RUN installs the package, as it
would in a container; then the commands that need neither a kernel nor a virtual machine are
tried, and a wheel in an environment of its own. What is said stays in ``build/fresh``.

Prints a line per command with its seconds. The exit code is 1 if anything failed.
"""

import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import recorded_evidence
from tests.fresh.check_fresh import LOGS, ROOT, Step, _run, enter, faults, furnish, say
from tests.roots import root_of
from zctrace._version import version
from zctrace.analysis import runs
from zctrace.errors import TERMINATED, ZctraceError
from zctrace.reports import machine_readable

RELEASES = ("bookworm", "trixie")
INSTALLED = (
    "/usr/lib/python3/dist-packages/zctrace", "/usr/lib/zctrace",
    "/usr/share/man/man1/zctrace.1.gz", "/usr/share/bash-completion/completions/zctrace",
)  # fmt: skip


def container_s():
    """What Containerfile does to its file system after it has copied the package."""
    text = (ROOT / "Containerfile").read_text().replace("\\\n", " ")
    return re.findall(r"^RUN (.*)", text, re.M)


def steps():
    works = [
        Step("zctrace --version", 1, (f"zctrace {version()}",)),
        Step("zctrace --help", 1, ("Usage:", "compare")),
        Step("zctrace strategies", 1, ("sendfile(socket, file)",)),
        Step("zctrace report /root/old.json", 1, ("read-write", "holds")),
        Step("zctrace report /root/old.json --html /tmp/page.html --force", 1),
        Step("zctrace compare /root/old.json /root/new.json", 1, ("bytes of metadata",)),
    ]
    loads = "import zctrace; print(zctrace.load('/root/old.json').runs.shape)"
    return [
        *(Step(command, 15) for command in container_s()),
        Step("cd /; " + " && ".join(f"test -e {place}" for place in INSTALLED), 1),
        *works,
        Step(f"python3 -c {shlex.quote(loads)}", 1),
        Step("zctrace doctor", 1, ("zctrace run works here, on a virtual machine",)),
        # A root file system has no probes of its own, and no virtual machine is wanted here.
        Step("zctrace plan --kernel /nowhere 2>&1 | tee /tmp/plan; grep -q try: /tmp/plan", 1),
        Step("apt-get purge --yes zctrace", 5),
        Step(" && ".join(f"! test -e {place}" for place in INSTALLED), 1),
        Step(
            "apt-get update && apt-get install --yes python3-venv && "
            "python3 -m venv --system-site-packages /opt/zctrace && "
            "/opt/zctrace/bin/pip install --quiet /root/zctrace-*.whl && "
            "ln -s /opt/zctrace/bin/zctrace /usr/local/bin/",
            15,
        ),
        *works,
    ]


def check(release):
    """All steps in one new root; returns whether all went well."""
    LOGS.mkdir(parents=True, exist_ok=True)
    minimal = root_of(release, "fresh", (), say)
    folder = Path(tempfile.mkdtemp(prefix=".deb-", dir=minimal.parent))
    folder.chmod(0o755)
    try:
        root = folder / "root"
        _run("cp", "--archive", "--reflink=auto", minimal, root)
        furnish(root, "root")
        for built, place in (("*.deb", "tmp"), ("*.whl", "root")):
            (file,) = (ROOT / "build" / "deb").glob(built)
            shutil.copy(file, root / place)
        for name, kernel in (("old", "6.1"), ("new", "7.3")):
            judged = runs.judge([recorded_evidence(kernel)])
            (root / "root" / f"{name}.json").write_text(machine_readable.result_json(judged))
        log = LOGS / f"{release}-deb.log"
        log.unlink(missing_ok=True)
        taken = [_takes(step, root, release, log) for step in steps()]
        return all(taken)
    finally:
        shutil.rmtree(folder)


def _takes(step, root, release, log):
    began = time.monotonic()
    code, said = enter(root, "root", f"cd /root; {step.command}", step.minutes, log)
    wrong = list(faults(step, code, said))
    seconds = f"{time.monotonic() - began:4.0f} s"
    print(f"{release}: {seconds}  {step.command}: {'; '.join(wrong) or 'ok'}", flush=True)
    if wrong:
        say("\n  ".join(said.splitlines()[-30:]))
    return not wrong


def main():
    if os.geteuid():
        return "check_deb makes root file systems: sudo make test-deb"
    asked = sys.argv[1:]
    if unknown := set(asked) - {*RELEASES}:
        return f"{', '.join(unknown)}: none of {RELEASES}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    good = True
    for release in asked or RELEASES:
        try:
            good = check(release) and good
        except ZctraceError as error:
            good = False
            print(f"{release}: {error.what}: {error.why}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
