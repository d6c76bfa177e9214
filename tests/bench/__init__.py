"""What tracing costs, in instructions of a guest: ``python -m tests.bench``."""
