"""How the user is told what is being done."""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], None]
"""Takes a line on what comes next."""
