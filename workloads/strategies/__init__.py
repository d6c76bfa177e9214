"""One module for each strategy."""
