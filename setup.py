"""What pyproject.toml cannot say.

The version is the commit's, and a built package keeps it. The man page and the completions are
made from the program itself, by ``release``.
"""

import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent
ABOUT = runpy.run_path(str(ROOT / "tracer" / "_version.py"))
VERSION = ABOUT["version"]()
SHARE = "build/share"
SHARED = (
    "man/man1/zctrace.1",
    "bash-completion/completions/zctrace",
    "zsh/site-functions/_zctrace",
    "fish/vendor_completions.d/zctrace.fish",
)
PACKAGES = {"tracer": "zctrace", "probes": "zctrace/probes", "workloads": "zctrace/workloads"}


def keep_version(package):
    (Path(package) / ABOUT["FILE"]).write_text(f"{VERSION}\n", encoding="ascii")


def make_shared():
    with tempfile.TemporaryDirectory() as folder:
        for source, package in PACKAGES.items():
            shutil.copytree(ROOT / source, Path(folder) / package)
        keep_version(Path(folder) / "zctrace")
        path = os.pathsep.join([folder, str(ROOT), *sys.path])
        subprocess.run(
            [sys.executable, "-m", "release", SHARE],
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            check=True,
        )


class BuildPackage(build_py):
    def run(self):
        super().run()
        if not self.editable_mode:
            make_shared()
            keep_version(Path(self.build_lib) / "zctrace")


class SourceArchive(sdist):
    def prune_file_list(self):
        super().prune_file_list()
        # MANIFEST.in's global-exclude warns where there is none.
        self.filelist.exclude_pattern(r"(^|/)__pycache__/", is_regex=True)

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        keep_version(Path(base_dir) / "tracer")


setup(
    version=VERSION,
    cmdclass={"build_py": BuildPackage, "sdist": SourceArchive},
    data_files=[(f"share/{Path(name).parent}", [f"{SHARE}/{name}"]) for name in SHARED],
)
