"""What pyproject.toml cannot say: the version is the commit's, and a built package keeps it."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ABOUT = runpy.run_path(str(Path(__file__).with_name("tracer") / "_version.py"))
VERSION = ABOUT["version"]()


def keep_version(package):
    (Path(package) / ABOUT["FILE"]).write_text(f"{VERSION}\n", encoding="ascii")


class BuildPackage(build_py):
    def run(self):
        super().run()
        if not self.editable_mode:
            keep_version(Path(self.build_lib) / "zctrace")


class SourceArchive(sdist):
    def prune_file_list(self):
        super().prune_file_list()
        # MANIFEST.in's global-exclude warns where there is none.
        self.filelist.exclude_pattern(r"(^|/)__pycache__/", is_regex=True)

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        keep_version(Path(base_dir) / "tracer")


setup(version=VERSION, cmdclass={"build_py": BuildPackage, "sdist": SourceArchive})
