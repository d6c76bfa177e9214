"""Several kernels at once: results in order, errors and interrupts that end all of them."""

import io
import json
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.text import Text

from tests.conftest import recorded_evidence
from zctrace.commands import run as run_command
from zctrace.commands.progress import Steps
from zctrace.errors import MachineError, MissingError
from zctrace.evidence.schema import Setting
from zctrace.machine import job as machine
from zctrace.machine import side_by_side
from zctrace.machine.job import Options
from zctrace.machine.kernels import Kernel
from zctrace.machine.places import Place
from zctrace.machine.side_by_side import Job
from zctrace.reports.formats import Outputs

SECONDS = 20


class Collectors:
    """Jobs of a name and what its collector does; keeps what happened, in order."""

    def __init__(self):
        self.happened, self.said = [], []

    def job(self, name, collect, refused=None):
        @contextmanager
        def prepared():
            assert threading.current_thread() is threading.main_thread()
            if refused:
                raise refused
            self.happened.append(f"{name} prepared")
            try:
                yield SimpleNamespace(collect=collect)
            finally:
                assert threading.current_thread() is threading.main_thread()
                self.happened.append(f"{name} removed")

        return Job(name, prepared, lambda step: self.said.append(f"{name}: {step}"))

    def endless(self, name, started):
        """One that only ends because it is told to, orderly."""

        def collect(meanwhile):
            started.set()
            deadline = time.monotonic() + SECONDS
            try:
                while time.monotonic() < deadline:
                    meanwhile()
                    time.sleep(0.01)
            finally:
                self.happened.append(f"{name} ended")
            return name

        return self.job(name, collect)


@pytest.fixture
def collectors():
    return Collectors()


def test_two_at_once_and_results_in_the_order_of_the_kernels(collectors):
    """The first waits for the second to have begun, and ends after it."""
    second_done = threading.Event()

    def first(meanwhile):
        assert second_done.wait(SECONDS)
        return "first"

    def second(meanwhile):
        second_done.set()
        return "second"

    jobs = [collectors.job("a", first), collectors.job("b", second)]
    assert side_by_side.collect(jobs, 2) == (["first", "second"], None)
    assert sorted(collectors.said) == ["a: measured", "b: measured"]


@pytest.mark.parametrize("width", [1, 2])
def test_never_more_than_that_many(collectors, width):
    at_once, most, lock = [], [], threading.Lock()

    def collect(meanwhile):
        with lock:
            at_once.append(1)
            most.append(len(at_once))
        time.sleep(0.05)
        with lock:
            at_once.pop()

    jobs = [collectors.job(str(number), collect) for number in range(5)]
    found, failure = side_by_side.collect(jobs, width)
    assert (len(found), failure) == (5, None)
    assert max(most) == width
    # A run's folder is gone before the next but one is made.
    begun = [event.endswith("prepared") for event in collectors.happened]
    assert all(
        sum(begun[: n + 1]) - (n + 1 - sum(begun[: n + 1])) <= width for n in range(len(begun))
    )


def test_an_error_ends_the_other_and_begins_no_further_one(collectors):
    started = threading.Event()

    def fails(meanwhile):
        assert started.wait(SECONDS)
        raise MachineError("it died", "a reason", "a hint")

    jobs = [
        collectors.endless("a", started),
        collectors.job("b", fails),
        collectors.job("c", lambda meanwhile: "never"),
    ]
    found, failure = side_by_side.collect(jobs, 2)
    assert found == []
    assert isinstance(failure, MachineError)
    assert (failure.what, failure.why, failure.hint) == ("b: it died", "a reason", "a hint")
    assert "a ended" in collectors.happened
    assert collectors.happened.count("a removed") == 1
    assert "c prepared" not in collectors.happened
    assert collectors.said == ["a: ended, because another kernel failed"]


def test_what_was_measured_before_an_error_is_kept(collectors):
    def fails(meanwhile):
        raise MachineError("it died")

    jobs = [collectors.job("a", lambda meanwhile: "first"), collectors.job("b", fails)]
    found, failure = side_by_side.collect(jobs, 1)
    assert found == ["first"]
    assert failure.what == "b: it died"


def test_an_error_while_the_second_is_prepared_ends_the_first(collectors):
    started = threading.Event()
    jobs = [
        collectors.endless("a", started),
        collectors.job("b", None, refused=MissingError("no mkfs")),
    ]
    found, failure = side_by_side.collect(jobs, 2)
    assert (found, failure.what) == ([], "b: no mkfs")
    assert collectors.happened == ["a prepared", "a ended", "a removed"]


def test_a_fault_in_a_collector_is_no_result(collectors):
    with pytest.raises(ZeroDivisionError):
        side_by_side.collect([collectors.job("a", lambda meanwhile: 1 // 0)], 1)
    assert collectors.happened == ["a prepared", "a removed"]


def test_the_only_kernel_has_no_name_in_an_error(collectors):
    def fails(meanwhile):
        raise MachineError("it died")

    job = collectors.job("", fails)
    assert side_by_side.collect([job], 1)[1].what == "it died"


def test_an_interrupt_ends_all_before_their_folders_are_removed(collectors, monkeypatch):
    """The main thread hears it, and the others stop."""
    started, waiting = [threading.Event(), threading.Event()], threading.Event()
    main, wait = threading.main_thread().ident, side_by_side.wait

    def interrupt():
        assert all(event.wait(SECONDS) for event in (*started, waiting))
        signal.pthread_kill(main, signal.SIGINT)

    def waits(*arguments, **options):
        waiting.set()
        return wait(*arguments, **options)

    monkeypatch.setattr(side_by_side, "wait", waits)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    try:
        jobs = [collectors.endless(n, s) for n, s in zip("ab", started, strict=True)]
        with pytest.raises(KeyboardInterrupt):
            side_by_side.collect(jobs, 2)
    finally:
        interrupting.join()
        signal.signal(signal.SIGINT, before)
    ended, removed = collectors.happened[2:4], collectors.happened[4:]
    assert sorted(ended) == ["a ended", "b ended"]
    assert sorted(removed) == ["a removed", "b removed"]


GUEST = Place(Kernel("6.1", Path("/x"), "cache"))
PLENTY = 100 << 30


@pytest.mark.parametrize(
    ("places", "processors", "memory", "disk", "width"),
    [
        ([GUEST, GUEST], 2, PLENTY, PLENTY, 2),
        ([GUEST] * 4, 64, PLENTY, PLENTY, 2),
        ([GUEST], 64, PLENTY, PLENTY, 1),
        ([Place(None), GUEST], 64, PLENTY, PLENTY, 1),
        ([GUEST, GUEST], 1, PLENTY, PLENTY, 1),
        ([GUEST, GUEST], 2, 3 << 30, PLENTY, 1),
        ([GUEST, GUEST], 2, PLENTY, 128 << 20, 1),
    ],
)
def test_two_guests_where_there_is_room_for_them(
    monkeypatch, places, processors, memory, disk, width
):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(processors)))
    monkeypatch.setattr(machine, "available_memory", lambda: memory)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: SimpleNamespace(free=disk))
    options = Options(settings=(Setting(("sendfile",)),), sizes=(1 << 20,))
    assert machine.guests_at_once(options, places) == width


def test_each_line_of_progress_names_its_kernel():
    output = io.StringIO()
    steps = Steps(Console(file=output, width=80), None, quiet=False)
    one, other = steps.of("6.1"), steps.of("7.3")
    one("booting")
    other("booting")
    steps("adding up")
    lines = [line.partition("] ")[2] for line in output.getvalue().splitlines()]
    assert lines == ["6.1: booting", "7.3: booting", "adding up"]


def test_a_terminal_shows_the_latest_step_of_each_kernel():
    shown = []
    status = SimpleNamespace(update=lambda text: shown.append(text))
    steps = Steps(Console(file=io.StringIO()), status, quiet=False)
    one, other = steps.of("6.1"), steps.of("7.3")
    steps("fetching")
    one("booting")
    other("booting")
    one("running")
    steps("adding up")
    assert shown[1:] == [
        Text("6.1: booting"),
        Text("6.1: booting\n7.3: booting"),
        Text("6.1: running\n7.3: booting"),
        Text("adding up"),
    ]


@pytest.fixture
def run_on(monkeypatch, tmp_path):
    """``zctrace run`` on recorded kernels, the last of which is done first; its JSON file.

    What is an error instead of a kernel's line is raised by that collector.
    """
    monkeypatch.setattr(run_command, "require_collector", lambda: None)
    monkeypatch.setattr(run_command.images, "check_resources", lambda *arguments: None)
    monkeypatch.setattr(machine, "guests_at_once", lambda options, places: len(places))
    options = Options(settings=(Setting(("sendfile",)),), sizes=(1 << 20,))
    path = tmp_path / "found.json"
    outputs = Outputs({"json": path})

    def run(*kernels):
        done = [threading.Event() for _ in kernels]
        done[-1].set()
        results = iter(range(len(kernels)))

        @contextmanager
        def prepared(place, options, say):
            number = next(results)

            def collect(meanwhile):
                say("booting")
                assert done[min(number + 1, len(kernels) - 1)].wait(SECONDS)
                done[number].set()
                if isinstance(kernels[number], Exception):
                    raise kernels[number]
                return recorded_evidence(kernels[number])

            yield SimpleNamespace(collect=collect)

        monkeypatch.setattr(machine, "prepared", prepared)
        monkeypatch.setattr(
            *(run_command, "find"),
            lambda name, say, mechanism, cpus: Place(Kernel(name, Path("/x"), "cache")),
        )
        names = [str(kernel) for kernel in kernels]
        try:
            run_command.run(options, names, None, outputs, verbose=False, quiet=False)
        finally:
            found = json.loads(path.read_text()) if path.exists() else None
            run.releases = found and [e["kernel"]["release"] for e in found["evidence"]]

    return run


def test_results_stand_in_the_order_of_the_options(run_on, capsys):
    run_on("6.1", "7.3")
    assert [release[:4] for release in run_on.releases] == ["6.1.", "7.3."]
    said = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    assert sorted(said[:-1]) == [
        "6.1: booting", "6.1: measured", "7.3: booting", "7.3: measured",
    ]  # fmt: skip
    assert said[-1] == "adding up"


def test_results_of_other_kernels_are_written_before_an_error_is_told(run_on):
    with pytest.raises(MachineError, match=r"died: died"):
        run_on(MachineError("died"), "7.3")
    assert [release[:4] for release in run_on.releases] == ["7.3."]


def test_without_any_result_nothing_is_written(run_on):
    with pytest.raises(MachineError, match=r"^died$"):
        run_on(MachineError("died"))
    assert run_on.releases is None
