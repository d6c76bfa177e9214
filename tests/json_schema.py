"""The JSON Schema of saved results, as documentation and as a part of the package.

``python -m tests.json_schema`` writes it anew from the dataclasses of evidence.
"""

import json
from pathlib import Path

from zctrace.analysis import saved_form

ROOT = Path(__file__).parent.parent
FILES = tuple(
    ROOT / folder / "result.schema.json" for folder in ("docs/reference", "tracer/analysis")
)


def text():
    return json.dumps(saved_form.json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path in FILES:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text())
