"""Put what is claimed of systems, and what was seen, at the end of a document.

``python -m tests.systems.report DOCUMENT --kafka FILE RESULT…``: the results are what
``zctrace run --json`` has written. The section is replaced if it is there already.
"""

import argparse
from pathlib import Path

from tests.systems import seen
from tests.systems.claims import CLAIMS
from zctrace import output_files
from zctrace.analysis.verdicts import Word

HEADING = "## What is claimed of systems"
_INTRODUCTION = """\
Of Java and Netty from their strategies, over loopback; of Kafka from a broker that was traced
while a client worked with it (`make test-systems`, [kafka-findings.md](kafka-findings.md)).
Evidence names the versions that it is of. Copies that a broker's compiled code makes in its
own memory are not seen.
"""


def section(found):
    """The table, as Markdown."""
    lines = [HEADING, "", *_INTRODUCTION.splitlines(), ""]
    lines += ["| system | claim | verdict | evidence |", "| :-- | :-- | :-- | :-- |"]
    for claim in CLAIMS:
        verdict = claim.judge(found)
        word = verdict.word.value
        bold = f"**{word}**" if verdict.word is Word.REFUTED else word
        cells = (claim.system, claim.text, bold, verdict.sentence)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def with_section(document, text):
    """The document with ``text`` at its end, instead of what is there of a former one."""
    kept, _, _ = document.partition(f"\n{HEADING}\n")
    return f"{kept.rstrip()}\n\n{text}"


def main():
    parser = argparse.ArgumentParser(description="append what is claimed of systems")
    parser.add_argument("document", type=Path)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--kafka", type=Path, help="what tests.systems.gather has written")
    given = parser.parse_args()
    broker = seen.kafka(given.kafka) if given.kafka else None
    text = section(seen.Seen(seen.runs(given.results), broker))
    output_files.write(given.document, with_section(given.document.read_text(), text))


if __name__ == "__main__":
    main()
