"""Pages from templates: one form, one script, and a policy that allows nothing else.

The only module that imports jinja2.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from zctrace._version import version

_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
    "style-src 'unsafe-inline'"
)
"""What a browser lets the page do: nothing but show itself."""


def render(template: str, **content: Any) -> str:
    """A whole page."""
    environment = _environment()
    script = environment.get_template("script.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        version=version(),
        script=script,
        policy=f"{_POLICY}; script-src 'sha256-{digest}'",
        **content,
    )


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("zctrace.reports.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
