"""The screen of zctrace top: what moves, at any width."""

import dataclasses
import io

import pytest
from rich.console import Console
from typer.testing import CliRunner

from zctrace import cli, errors
from zctrace.collect.busiest import Busiest
from zctrace.evidence.account import (
    Account,
    Booking,
    Busy,
    Flow,
    FlowWay,
    Look,
    Thing,
    ThingKind,
    Worker,
)
from zctrace.probes.model import Direction
from zctrace.reports.text.top import Screen

MIB = 1 << 20
IN, OUT = FlowWay.IN, FlowWay.OUT
FILE = Thing(ThingKind.FILE, "/srv/" + "long/" * 30 + "end")


def busy(name, *figures, process=True, fds=""):
    return Busy(process, name, fds, *figures)


def looked(screen, seconds, *rows, **by_call):
    figures = [by_call.get(name, {}) for name in ("received", "delivered", "copied")]
    screen.look(seconds, Look(*figures, 0, rows))


def lines(screen, width=80, height=24):
    text = io.StringIO()
    console = Console(file=text, width=width, height=height)
    console.print(screen.render(width, height))
    return text.getvalue().splitlines()


def row(screen, beginning, **size):
    (found,) = [line.split() for line in lines(screen, **size) if line.startswith(beginning)]
    return found


def test_rates_are_of_the_last_interval():
    screen = Screen("it")
    looked(screen, 1.0, busy("nginx 7", 10, 4 * MIB, 0, 4 * MIB))
    looked(screen, 3.0, busy("nginx 7", 30, 8 * MIB, 2048, 4 * MIB))
    assert row(screen, "nginx") == ["nginx", "7", "2.0M", "1024", "0", "10", "0.00"]
    screen.key("t")
    assert row(screen, "nginx") == ["nginx", "7", "8.0M", "2048", "4.0M", "30", "0.50"]


def test_a_look_that_has_less_than_the_last_is_no_rate_below_0():
    screen = Screen("it")
    looked(screen, 1.0, busy("a 1", 10, 100, 0, 100))
    looked(screen, 2.0, busy("a 1", 9, 90, 50, 100))
    assert row(screen, "a 1") == ["a", "1", "0", "50", "0", "0", "0.00"]


def test_views_and_their_keys():
    screen = Screen("it")
    looked(
        screen,
        1.0,
        busy("cp 1", 1, 10, 10, 10),
        busy("/srv/file", 1, 10, 0, 0, process=False, fds="3,4"),
        received={"read": 7},
        copied={"write": 9},
    )
    assert row(screen, "cp")[0] == "cp"
    assert screen.key("f")
    assert row(screen, "/srv")[:2] == ["/srv/file", "3,4"]
    assert screen.key("c")
    assert row(screen, "read") == ["read", "7", "0", "0", "0.00"]
    assert row(screen, "write") == ["write", "0", "0", "9"]  # nothing to relate it to
    assert screen.key("x")
    assert not screen.key("q")


def test_sorted_by_each_column():
    screen = Screen("it")
    rows = (
        busy("a 1", 9, 1, 1, 1), busy("b 2", 1, 900, 0, 2), busy("c 3", 2, 0, 800, 3),
        busy("d 4", 3, 1, 0, 700),
    )  # fmt: skip
    looked(screen, 1.0, *rows)
    first = []
    for _ in range(5):
        (table,) = [n for n, line in enumerate(lines(screen)) if line.startswith("process")]
        first.append(lines(screen)[table + 1].split()[0])
        screen.key("s")
    assert first == ["d", "a", "d", "b", "c"]  # copied, calls, copies, in, out


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (50, 12), (20, 5)])
def test_no_line_is_too_long_and_the_screen_has_room(width, height):
    screen = Screen("x" * 300)
    things = [
        busy(dataclasses.replace(FILE, name=f"{FILE.name}{n}").name, n, 10**13, 10**9, 10**12,
             process=False, fds="64 fds")
        for n in range(1, 100)
    ]  # fmt: skip
    looked(screen, 1.0, *things, busy("y" * 60, 1, 10**15, 1, 1))
    for view in "pfc":
        screen.key(view)
        shown = lines(screen, width, height)
        assert max(map(len, shown)) <= width
        assert len(shown) <= max(height, 8)
    screen.key("f")
    if width >= 80:
        assert any("long/end" in line for line in lines(screen, width, height))


def test_what_cannot_be_printed_is_escaped():
    screen = Screen("it")
    looked(screen, 1.0, busy("a\x1b[2J 1", 1, 1, 1, 1))
    assert "\x1b" not in "".join(lines(screen))


def test_nothing_moved():
    assert any("nothing moved" in line for line in lines(Screen("it")))


def account(*moved):
    """Each is a process, a thing, bytes in, and bytes copied."""
    things = tuple(dataclasses.replace(FILE, name=f"/f{n}") for n in range(100))
    flows = [Flow(thing, process, 3, "read", IN, 1, size) for process, thing, size, _ in moved]
    bookings = [
        Booking(thing, "read", Direction.KERNEL_TO_USER, 1, copied, process)
        for process, thing, _, copied in moved
    ]
    workers = (Worker(1, 1, "cat", 1, 1),)
    return Account(things, tuple(flows), tuple(bookings), workers)


def test_the_busiest_since_the_last_time_come_first():
    busiest = Busiest()
    rows = busiest.rows(account((1, 0, 900, 900), (2, 1, 500, 0)))
    assert [(r.name, r.received, r.copied) for r in rows] == [
        ("cat 1", 900, 900), ("process 2", 500, 0), ("/f0", 900, 900), ("/f1", 500, 0),
    ]  # fmt: skip
    rows = busiest.rows(account((1, 0, 901, 901), (2, 1, 600, 0)))
    assert [r.name for r in rows] == ["process 2", "cat 1", "/f1", "/f0"]


def test_as_many_as_a_screen_has():
    rows = Busiest().rows(account(*((n + 1, n, 100 + n, 0) for n in range(100))))
    assert sum(r.is_process for r in rows) == 50
    assert rows[0].name == "process 100"
    assert next(r.received for r in rows if not r.is_process) == 199


def test_what_no_process_and_no_thing_is_known_for():
    none = Booking(None, None, Direction.KERNEL_TO_KERNEL, 1, 70)
    rows = Busiest().rows(Account(bookings=(none,)))
    assert [(r.name, r.copied) for r in rows] == [("kernel", 70), ("no descriptor", 70)]


def test_without_a_terminal_it_says_what_to_do_instead():
    result = CliRunner().invoke(cli.app, ["top", "--", "cp"])
    assert isinstance(result.exception, errors.UsageError)
    assert "zctrace trace -i 1" in result.exception.hint
