"""What GitHub shows for a step of a workflow: Markdown, behind what is there already."""

from __future__ import annotations

import os
from pathlib import Path

from zctrace import output_files

VARIABLE = "GITHUB_STEP_SUMMARY"
"""Names the file; GitHub sets it."""


def append(text: str) -> None:
    """Append it, if there is such a file; raises :class:`OutputError` if that fails."""
    path = os.environ.get(VARIABLE)
    if path:
        output_files.append(Path(path), text)
