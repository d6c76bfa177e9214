"""How zctrace reports to the user what it is doing."""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], None]
"""Takes a line on what comes next."""
