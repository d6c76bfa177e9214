"""Whether README's commands work on a Debian that has nothing.

``python -m tests.fresh.check_fresh [RELEASE…] [root|user…]``, as root; every release, as root
and as a user with sudo, unless named. Each has a root file system of its own, minimal, with a
copy of this folder. Its commands are README's, one after the other, in a chroot with a mount
namespace of its own: packages, kernels and virtual machines are the release's. What is said
stays in ``build/fresh``.

Prints a line per command with its seconds. The exit code is 1 if anything failed.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.roots import RELEASES, root_of
from zctrace.errors import TERMINATED, ZctraceError

ROOT = Path(__file__).parents[2]
LOGS = ROOT / "build" / "fresh"
USERS = ("root", "user")
_SETTINGS = re.compile(
    r"(https?|ftp|no|all)_proxy|PIP_(INDEX|EXTRA|PROXY|CERT|TRUSTED|DEFAULT)", re.IGNORECASE
)
"""Variables that tell how this machine reaches package archives."""
_HANDED_ON = ("etc/hosts", "etc/pip.conf", "etc/resolv.conf", "usr/local/share/ca-certificates")
"""Files that tell the same."""
_ENTER = """
mount --bind "$1" "$1"
mount --rbind /dev "$1/dev"
mount --rbind /sys "$1/sys"
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/run"
exec chroot "$1" /usr/bin/su --login "$2" --session-command "$3"
"""
_INSTALLS = "installing "
_LAST_LINES = 30
_GRACE_SECONDS, _TIMEOUT = 60, 124


@dataclass(frozen=True)
class Step:
    """A command; what it has to say, and whether it has to say what it installs, or nothing."""

    command: str
    minutes: int
    says: tuple[str, ...] = ()
    installs: bool | None = None


def prepare():
    """README's own words for what comes first."""
    found = re.search(r"^apt-get install (make .*)$", (ROOT / "README.md").read_text(), re.M)
    assert found, "README does not say which packages come before make"
    return f"apt-get update --quiet && apt-get install --yes {found[1]}"


def steps(sudo):
    zctrace = f"{sudo}zctrace"
    return (
        Step("make run", 20, ("read-write", _INSTALLS + "from the distribution:"), True),
        Step("make run", 8, ("read-write",), False),
        # What is hidden there is systemd's, which comes with what is installed on sid.
        Step('test -z "$(ls /tmp)"', 1),
        Step("head --bytes 1048576 /dev/zero >../from", 1),
        Step(f"{zctrace} trace --kernel 6.1 -- cp ../from ../to", 10, ("1048576",)),
        Step("! test -e ../to", 1),
        Step(f"{zctrace} doctor", 2, ("zctrace run works here",)),
        Step("make check", 40, ("passed", _INSTALLS + "into .venv"), True),
        Step("make .venv/.installed", 1, (), False),
        Step("make uninstall", 1),
        Step("! command -v zctrace && ! test -e /usr/local/lib/zctrace", 1),
        Step("make uninstall", 1),
    )


def furnish(root, user):
    """The machine's settings, a user, and a copy of what git would commit."""
    for name in _HANDED_ON:
        source, target = Path("/", name), root / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.exists():
            target.write_bytes(source.read_bytes())
    with (root / "etc/environment").open("a") as file:
        settings = [f"{k}={v}\n" for k, v in os.environ.items() if _SETTINGS.match(k)]
        file.writelines(settings)
    home = root / "root"
    if user != "root":
        _run("chroot", root, "useradd", "--create-home", "--shell", "/bin/bash", user)
        (root / "etc/sudoers.d").mkdir(mode=0o750)
        (root / "etc/sudoers.d" / user).write_text(f"{user} ALL=(ALL) NOPASSWD: ALL\n")
        home = root / "home" / user
    folder = home / "zctrace"
    folder.mkdir()
    names = _run("git", "-C", ROOT, "ls-files", "-z", "-co", "--exclude-standard")
    _run("tar", "-C", ROOT, "-c", "-f", root / "source.tar", "--null", "-T", "-", text=names)
    _run("tar", "-C", folder, "-x", "--no-same-owner", "-f", root / "source.tar")
    _run("chroot", root, "chown", "--recursive", f"{user}:", Path("/", home.relative_to(root)))


def enter(root, user, command, minutes, log):
    """Run a command there; returns its exit code and what it said."""
    began = log.stat().st_size if log.exists() else 0
    with log.open("ab") as file:
        # In one process group, so that all of it ends when the time is up.
        process = subprocess.Popen(
            [
                *("timeout", f"--kill-after={_GRACE_SECONDS}", f"{minutes}m"),
                *("unshare", "--mount", "sh", "-ec", _ENTER, "sh", root, user, command),
            ],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        code = process.wait()
    finally:
        process.terminate()
        process.wait()
    return code, log.read_bytes()[began:].decode(errors="replace")


def faults(step, code, said):
    """What is wrong with a step's outcome."""
    if code:
        yield f"not done after {step.minutes} min" if code == _TIMEOUT else f"exit code {code}"
    yield from (f"did not say {words!r}" for words in step.says if words not in said)
    if step.installs is not None and step.installs is not (_INSTALLS in said):
        yield f"installed {'nothing' if step.installs else 'something'}"


def check(release, user):
    """All steps in one new root; returns whether all went well."""
    LOGS.mkdir(parents=True, exist_ok=True)
    minimal = root_of(release, "fresh", (), say)
    folder = Path(tempfile.mkdtemp(prefix=".run-", dir=minimal.parent))
    folder.chmod(0o755)
    try:
        root = folder / "root"
        _run("cp", "--archive", "--reflink=auto", minimal, root)
        furnish(root, user)
        log = LOGS / f"{release}-{user}.log"
        log.unlink(missing_ok=True)
        return _take(root, user, release, log)
    finally:
        shutil.rmtree(folder)


def _take(root, user, release, log):
    sudo = "" if user == "root" else "sudo "
    first = Step(prepare() + " " + sudo, 10)
    good = True
    for step in (first, *steps(sudo)):
        began = time.monotonic()
        who, folder = ("root", "/") if step is first else (user, "zctrace")
        code, said = enter(root, who, f"cd {folder}; {step.command}", step.minutes, log)
        wrong = list(faults(step, code, said))
        seconds = f"{time.monotonic() - began:4.0f} s"
        what = "; ".join(wrong) or "ok"
        print(f"{release}, {user}: {seconds}  {step.command}: {what}", flush=True)
        if wrong:
            good = False
            say("\n  ".join(said.splitlines()[-_LAST_LINES:]))
            if step is first:
                break
    return good


def say(text):
    print(f"  {text}", file=sys.stderr, flush=True)


def _run(*command, text=None):
    result = subprocess.run(command, input=text, capture_output=True, text=True)
    if result.returncode:
        raise ZctraceError(f"{command[0]} failed", result.stderr.strip())
    return result.stdout


def main():
    if os.geteuid():
        return "check_fresh makes root file systems: sudo make test-fresh"
    asked = sys.argv[1:]
    if unknown := set(asked) - {*RELEASES, *USERS}:
        return f"{', '.join(unknown)}: neither of {RELEASES} nor of {USERS}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    good = True
    for release in [r for r in RELEASES if r in asked] or RELEASES:
        for user in [u for u in USERS if u in asked] or USERS:
            try:
                good = check(release, user) and good
            except ZctraceError as error:
                good = False
                print(f"{release}, {user}: {error.what}: {error.why}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
