"""docs/cost.md: what the benchmark writes of it, between two marks. Pure."""

from tests.bench import figures, tables

BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"


def section(about, measured, growth):
    """``about`` is what was measured, with what, as pairs; ``measured`` the rest by kernel.

    ``growth`` is a kernel's line and what was found on it.
    """
    parts = ["\n".join(f"* {name}: {value}" for name, value in about.items())]
    parts.append("![Extra instructions per operation](cost.svg)")
    for line, one in measured.items():
        parts.append(f"## Linux {line}: extra instructions per operation")
        parts += [tables.extra(one["found"], who) for who in figures.WHO]
        parts.append(f"## Linux {line}: where the extra instructions of `zctrace trace` go")
        if why := one.get("unattributed"):
            parts.append(f"Not measured: {why}")
        if where := one.get("symbols"):
            parts += [tables.kinds(where, who) for who in figures.WHO]
            parts += [tables.symbols(where, who) for who in figures.WHO]
        parts.append(f"## Linux {line}: what starting costs")
        parts.append(tables.start(one["found"]))
    if growth:
        line, found = growth
        parts += [f"## Linux {line}: more threads and sockets", tables.growth(found)]
    return "\n\n".join(parts)


def renewed(text, written, begin=BEGIN, end=END):
    """``text`` with ``written`` between the marks; raises ``ValueError`` without them."""
    before, found, rest = text.partition(begin)
    _, last, after = rest.partition(end)
    if not found or not last:
        raise ValueError(f"{begin} and {end} are not both in the document")
    return f"{before}{begin}\n\n{written}\n\n{end}{after}"
