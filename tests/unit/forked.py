"""Programs in processes of their own, without the time that an interpreter takes to start.

Of ``python -m zctrace`` and ``python -m zctrace.workloads`` most is spent on imports. Here a
process that has nothing but those behind it forks for every call, and only that is left out:
each call has its own arguments, environment, descriptors, signal handlers and exit code.
"""

import gc
import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SECONDS = 60
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        __name__,
        "zctrace.cli",
        "zctrace.analysis.runs",
        "zctrace.reports.markdown",
        "zctrace.reports.text.runs",
        "typer._adapters",  # what typer imports late; no matter if there is none
        "zctrace.workloads.__main__",
    ]
)


CLOSED = "closed"


def run(module, *arguments, env=None, stdout=None, folder=ROOT):
    """What ``python -m`` would give: ``main`` of a module, its output and its exit code.

    ``stdout`` is a file in place of the output that is returned, or :data:`CLOSED`. A
    ``folder`` of None is one that does not exist any more.
    """
    with tempfile.TemporaryDirectory() as own:
        out, err = Path(own, "out"), Path(own, "err")
        out.touch()
        process = _SERVER.Process(
            target=_child,
            args=(
                module,
                [*map(str, arguments)],
                dict(env or os.environ),
                stdout or out,
                err,
                folder,
            ),
        )
        process.start()
        process.join(_SECONDS)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired([module, *arguments], _SECONDS)
        return subprocess.CompletedProcess(
            [module, *arguments], process.exitcode, out.read_text(), err.read_text()
        )


def _child(module, arguments, env, out, err, folder):
    # What was imported is nothing that a collection could find, and takes most of its time.
    gc.freeze()
    for descriptor, path in ((1, out), (2, err)):
        if path != CLOSED:
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    encoding = env.get("PYTHONIOENCODING")
    sys.stdout = os.fdopen(1, "w", encoding=encoding, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding=encoding, closefd=False)
    if out == CLOSED:
        os.close(1)
        sys.stdout = None
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder or tempfile.mkdtemp())
    if folder is None:
        Path.cwd().rmdir()
    sys.argv = [module, *arguments]
    program = importlib.import_module(module)
    assert Path(program.__file__).is_relative_to(ROOT), "not this project's: run it from there"
    sys.exit(program.main())
