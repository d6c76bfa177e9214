"""The folder in which kernels, and what is made for them, are kept."""

from __future__ import annotations

import os
from pathlib import Path

from zctrace import trust
from zctrace.errors import OutputError


def cache_folder() -> Path:
    """Where fetched kernels live: $ZCTRACE_CACHE, else /var/cache/zctrace."""
    return Path(os.environ.get("ZCTRACE_CACHE") or "/var/cache/zctrace")


def trusted_cache(*names: str) -> Path:
    """A folder or file in the cache; raises :class:`OutputError` where it is not ours alone.

    Root boots the kernels in there, and goes on from the machines that were saved there.
    """
    path = cache_folder().joinpath(*names)
    try:
        why = trust.why_not(path, trust.owners())
    except OSError as error:
        why = f"{error.filename}: {error.strerror}"
    if why:
        raise OutputError(
            f"the cache {cache_folder()} cannot be used: {why}",
            "kernels and code that root runs are kept in there",
            "chown it to root and chmod go-w; or ZCTRACE_CACHE=FOLDER, one that is there "
            "and that no other user can change",
        )
    return path
