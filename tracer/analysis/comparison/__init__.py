"""Two results beside each other: what has changed."""
