"""Names of files, threads, commands and hosts, without what a terminal would obey.

Anybody may choose such a name, and root reads it. What is not printable is escaped, as ls and
strace do it.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` on one line: control characters as ``\\x1b`` or ``\\n``, others as ``\\u202e``.

    A byte that is not UTF-8 (a surrogate of ``os.fsdecode``) is written as that byte.
    """
    if text.isprintable():
        return text
    return "".join(map(_character, text))


def csv_cell(value: object) -> object:
    """As a spreadsheet takes it for a text and no formula; what is no text stays as it is."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


def _character(one: str) -> str:
    import unicodedata  # late: a collector in a guest has no use for it

    # Spaces of other widths are ours, in figures with their units.
    if one.isprintable() or unicodedata.category(one) == "Zs":
        return one
    if "\udc80" <= one <= "\udcff":
        return f"\\x{ord(one) - 0xDC00:02x}"
    return one.encode("unicode_escape").decode("ascii")
