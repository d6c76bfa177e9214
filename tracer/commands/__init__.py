"""One module per command. They raise ``ZctraceError``; only ``cli`` exits."""
