"""Attach, run, read: as root, next to the kernel."""
