#!/usr/bin/python3 -I
"""zctrace, with the Typer and the msgspec that it has for itself.

Isolated: root imports nothing from the home or the variables of whoever called sudo.
"""

import sys

sys.path.insert(0, "/usr/lib/zctrace/vendored")

from zctrace.__main__ import main

main()
