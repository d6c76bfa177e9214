"""The figures as tables, in Markdown. Pure."""

from tests.bench import figures, tracers

OPERATIONS = {
    "getpid": "getpid",
    "read": "read 4 KiB",
    "write": "write 4 KiB",
    "sendfile": "sendfile 64 KiB",
    "zerocopy": "MSG_ZEROCOPY 16 KiB",
    "switch": "context switch",
}
LEAST_SHARE = 0.03
"""Of an operation's extra instructions; a symbol with less in each has no row of its own."""
_WHO = {figures.TRACED: "the traced program", figures.BYSTANDER: "another program"}


def markdown(header, rows):
    """A table; the first column is text, the others are figures."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(value):
    """A rounded integer with thin spaces between thousands."""
    return f"{round(value):,}".replace(",", "\N{NO-BREAK SPACE}").replace("-", "−")


def extra(found, who):
    """Extra instructions of each operation under each tracer, with the ratio to untraced."""
    base = figures.per_operation(found[tracers.UNTRACED][who])
    values = figures.extra(found, who)
    rows = [["untraced, all instructions", *(number(base[name]) for name in OPERATIONS)]]
    for key, one in found.items():
        if key == tracers.UNTRACED:
            continue
        cells = [figures.failed(one), *[""] * (len(OPERATIONS) - 1)]
        if key in values:
            cells = [
                f"{number(values[key][name])} ({1 + values[key][name] / base[name]:.1f} ×)"
                for name in OPERATIONS
            ]
        rows.append([tracers.BY_KEY[key].name, *cells])
    return markdown([f"extra for {_WHO[who]}", *OPERATIONS.values()], rows)


def _differences(found, who):
    of = found[who]
    differences = figures.difference(of[tracers.ZCTRACE], of[tracers.UNTRACED])
    return {name: differences[name] for name in OPERATIONS}


def kinds(found, who):
    """What the extra instructions of ``zctrace trace`` are for."""
    rows = [
        [kind, *(number(counts[name]) for name in OPERATIONS)]
        for kind, counts in figures.by_kind(_differences(found, who)).items()
    ]
    return markdown([f"extra for {_WHO[who]}", *OPERATIONS.values()], rows)


def symbols(found, who):
    """Where the extra instructions of ``zctrace trace`` go."""
    differences = _differences(found, who)
    chosen = figures.leading(differences, LEAST_SHARE)
    rows = [
        [f"`{symbol}`", *(number(counts.get(symbol, 0)) for counts in differences.values())]
        for symbol in chosen
    ]
    totals = {name: sum(counts.values()) for name, counts in differences.items()}
    shown = {
        name: sum(counts.get(symbol, 0) for symbol in chosen)
        for name, counts in differences.items()
    }
    rows.append(["all others", *(number(totals[name] - shown[name]) for name in OPERATIONS)])
    rows.append(["sum", *(number(total) for total in totals.values())])
    return markdown([f"extra for {_WHO[who]}", *OPERATIONS.values()], rows)


def start(found):
    """What starting each tracer takes, step by step, and its peak memory."""
    keys = [
        key
        for key, one in found.items()
        if not figures.failed(one) and tracers.BY_KEY[key].mechanism
    ]
    taken = {key: figures.steps(found[key]) for key in keys}
    names = list(dict.fromkeys(step for key in keys for step in taken[key]))
    rows = [[name, *(number(taken[key].get(name, 0) / 1e6) for key in keys)] for name in names]
    rows.append(["sum", *(number(sum(taken[key].values()) / 1e6) for key in keys)])
    rows.append(
        [
            "peak memory of its largest process, MiB",
            *(number(found[key]["peak_kib"] / 1024) for key in keys),
        ]
    )
    header = ["million instructions of the collector, by step"]
    return markdown([*header, *(tracers.BY_KEY[key].name for key in keys)], rows)


def growth(found):
    """What more threads and sockets need."""
    rows = []
    for name, one in found.items():
        threads, pairs = map(int, name.split(","))
        cells = [figures.failed(one), "", "", ""]
        if not cells[0]:
            account = one["evidence"]["trace"]["account"]
            cells = [number(len(account[kind])) for kind in ("things", "flows", "bookings")]
            cells.append(number(one["peak_kib"] / 1024))
        rows.append([number(threads), number(2 * threads * pairs), *cells])
    header = ["threads", "sockets", "things", "flows", "bookings", "peak memory, MiB"]
    return markdown(header, rows)
