#!/usr/bin/python3
"""zctrace, with the Typer and the msgspec that it has for itself."""

import sys

sys.path.insert(0, "/usr/lib/zctrace/vendored")

from zctrace.__main__ import main

main()
