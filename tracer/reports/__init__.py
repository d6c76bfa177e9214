"""How results are shown. One module per form; each takes judged runs, none measures."""
