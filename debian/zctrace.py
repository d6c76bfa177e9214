#!/usr/bin/python3
"""zctrace, with the Typer that it has for itself."""

import sys

sys.path.insert(0, "/usr/share/zctrace/vendored")

from zctrace.cli import main

main()
