"""``python -m zctrace`` is ``zctrace``."""

from zctrace.cli import main

main()
