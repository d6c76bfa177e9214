"""``python -m tracer`` is ``zctrace``."""

from tracer.cli import main

main()
