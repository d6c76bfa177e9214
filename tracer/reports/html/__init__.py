"""One page, with drawings."""
