"""The man page and the completions, which are made from the program when it is packaged."""
