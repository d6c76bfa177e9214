"""In a guest, as root: run meter_release.py in the root file systems of other releases.

``releases_guest CODE ANSWER STEPS RELEASE=ROOT…``. The kernel is observed here, with the
machine's own Python, so that the other releases need no disassembler.
"""

import json
import subprocess
import sys
from pathlib import Path

CODE, ANSWER, STEPS = map(Path, sys.argv[1:4])
ROOTS = dict(argument.split("=", 1) for argument in sys.argv[4:])
sys.path.insert(0, str(CODE))

from zctrace.kernel import facts as kernel
from zctrace.probes.catalogue import CATALOGUE

HOST = Path("/run/zctrace-host")


def say(step):
    with STEPS.open("a") as file:
        file.write(json.dumps({"step": step}) + "\n")


def mount(option, what, where):
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", option, str(what), str(where)], check=True)


def enter(release, folder):
    """Where the release's root is mounted, with the guest's kernel and our files in it."""
    root = Path(f"/run/zctrace-{release}")
    mount("--bind", HOST / folder.lstrip("/"), root)
    for name in ("dev", "proc", "sys"):
        mount("--rbind", f"/{name}", root / name)
    mount("--bind", CODE.parent, root / "run")
    # The machine's root file system is read-only here.
    mount("--types=tmpfs", "tmpfs", root / "tmp")
    return root


def outcome(root):
    result = subprocess.run(
        ["chroot", root, "/usr/bin/python3", "-IB", "/run/code/meter_release.py"],
        capture_output=True,
        text=True,
        # Not ours: it names this machine's own libraries.
        env={"PATH": "/usr/bin:/usr/sbin"},
    )
    if not result.returncode:
        return {**json.loads(result.stdout), "complaints": result.stderr}
    last = [line for line in result.stderr.splitlines() if line.strip()][-1:]
    error = "".join(last) or f"exit code {result.returncode}"
    return {"error": error, "complaints": result.stderr}


say("looking at the kernel")
facts = kernel.observe(CATALOGUE)
(CODE / "facts.json").write_text(json.dumps(facts.to_json()))
# Empty folders are mounted over parts of the root file system, the cache among them;
# bound once more, without what is mounted on it, it has all of them.
mount("--bind", "/", HOST)
answer = {}
for release, folder in ROOTS.items():
    say(f"loading with the BCC of {release}")
    answer[release] = outcome(enter(release, folder))
partial = ANSWER.with_suffix(".partial")
partial.write_text(json.dumps(answer))
partial.rename(ANSWER)
