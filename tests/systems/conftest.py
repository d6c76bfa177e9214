"""A Kafka broker, traced once for all tests; or why not."""

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import HERE, or_skip
from tests.systems import gather, seen
from zctrace.analysis import program
from zctrace.evidence.schema import Evidence
from zctrace.machine.guardian import guarded

EVIDENCE = HERE.parent / "build" / "kafka.json"
"""Where it is kept, for the report."""


def there(*marks):
    """Temporary files and processes that carry one of these marks, but not this process."""
    found = {path.name for path in Path(tempfile.gettempdir()).iterdir()}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it may be gone by now
            if path.parent.name != str(os.getpid()):
                found.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return {name for name in found if any(mark in name for mark in marks)}


@pytest.fixture(scope="session")
def home(live):
    """Kafka and its client, put together in a folder."""
    with guarded(f"kafka-{secrets.token_hex(4)}") as scratch:
        try:
            yield gather.kafka_home(scratch.path)
        except gather.NotAvailableError as missing:
            or_skip(str(missing))


@pytest.fixture(scope="session")
def kafka(live):
    """What ``gather`` has found, as the judges see it and as ``zctrace trace`` does."""
    marks = ("zctrace-kafka-", "zctrace-test-")
    before = there(*marks)
    try:
        gathered = gather.gather()
    except gather.NotAvailableError as missing:
        or_skip(str(missing))
    gather.save(gathered, EVIDENCE)
    answers = [program.answer(Evidence.from_json(values)) for values in gathered["evidence"]]
    facts = gathered["kafka"]
    return SimpleNamespace(
        facts=facts,
        answers=dict(zip(facts["cases"], answers, strict=True)),
        broker=seen.kafka(EVIDENCE),
        left=there(*marks) - before,
    )
