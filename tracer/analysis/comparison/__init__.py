"""The differences between two results."""
