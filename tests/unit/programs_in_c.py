"""Programs in C, compiled for a test."""

import shutil
import subprocess

from tests.conftest import or_skip


def maker(folder, source):
    """What compiles a program's text with these options, each once; gives the file's path."""
    compiler = shutil.which("gcc")
    if not compiler:
        or_skip("gcc is not installed")
    (folder / "it.c").write_text(source)

    def make(*options):
        path = folder / "".join(("program", *options)).replace("/", "_")
        if not path.exists():
            subprocess.run([compiler, *options, "-o", path, folder / "it.c"], check=True)
        return str(path)

    return make
