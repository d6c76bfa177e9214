"""Windows of programs in C and Go, built from the examples of the documents: exact bytes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.live.conftest import ROOT, zctrace
from zctrace.analysis import saved

EXAMPLES = ROOT / "docs" / "examples"
SIZE = 1_000_003
GO = shutil.which("go") or "/usr/local/go/bin/go"
CASES = {"c-sendfile": 0, "c-copy": 2 * SIZE, "go": 2 * SIZE}


@pytest.fixture(scope="module")
def windows(live, tmp_path_factory):
    """By case: what was counted, and what the command line says of it with a limit."""
    folder = tmp_path_factory.mktemp("windows", numbered=True)
    files = {name: folder / f"{name}.json" for name in CASES}
    # Where a guest has a /tmp of its own, this is not.
    built = ROOT / "build" / f"windows-{os.getpid()}"
    built.mkdir(parents=True)
    payload = built / "payload"
    payload.write_bytes(os.urandom(SIZE))
    try:
        strict = "-Wall", "-Wextra", "-Werror", "-std=gnu99"
        source = EXAMPLES / "window.c"
        subprocess.run(["cc", *strict, "-o", built / "c", source], check=True)
        lines = [
            f"cp {payload} /tmp/payload",
            f"{built}/c sendfile /tmp/payload {files['c-sendfile']}",
            f"{built}/c copy /tmp/payload {files['c-copy']}",
        ]
        if Path(GO).exists():
            go = {**os.environ, "GOCACHE": str(built / "cache"), "GOFLAGS": "-mod=mod"}
            subprocess.run(
                [GO, "build", "-o", built / "go", EXAMPLES / "window.go"],
                env={"HOME": str(built), **go}, check=True,
            )  # fmt: skip
            lines.append(f"{built}/go /tmp/payload /tmp/copy {files['go']}")
        else:
            del files["go"]
        script = " && ".join([f"mkdir -p {folder}", *lines])
        outs = [word for file in files.values() for word in ("--copy-out", file)]
        result = zctrace(
            *("serve", "--kernel", "6.1", "--user", "root", *outs, "--", "sh", "-c", script)
        )
        assert result.returncode == 0, result.stdout + result.stderr
    finally:
        shutil.rmtree(built)
    return files


@pytest.mark.parametrize("name", CASES)
def test_a_window_of_another_language_is_exact(windows, name):
    if name not in windows:
        pytest.skip("Go is not installed")
    (found,) = saved.read(windows[name]).programs
    assert sum(found.delivered.values()) == SIZE
    assert found.copied_bytes == CASES[name]
    limited = zctrace("report", windows[name], "--max-copies", "0.01")
    assert limited.returncode == (12 if CASES[name] else 0), limited.stderr


def test_without_a_collector_c_says_what_to_do(tmp_path):
    subprocess.run(["cc", "-o", tmp_path / "c", EXAMPLES / "window.c"], check=True)
    (tmp_path / "file").write_text("x")
    environment = {k: v for k, v in os.environ.items() if k != "ZCTRACE_SOCKET"}
    ran = subprocess.run(
        [tmp_path / "c", "copy", tmp_path / "file", tmp_path / "out"],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (
        1, "no collector: sudo zctrace serve -- COMMAND\n",
    )  # fmt: skip
