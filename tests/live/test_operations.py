"""Every operation, on every kernel and file system: exact bytes, nothing twice, no zero."""

from collections import Counter

import pytest

from tests.conftest import KERNELS
from tests.live.conftest import zctrace
from tests.live.suites import MORE_PROCESSORS, PROCESSORS
from zctrace.analysis.counted import direction_of
from zctrace.analysis.runs import ITERATOR_FUNCTIONS
from zctrace.errors import TraceError

FILE_SYSTEMS = ("ext4", "xfs", "btrfs", "tmpfs")
FSRM = "setcpuid=fsrm"
"""Makes the kernel believe that the processor moves short strings fast: from 6.4 on it then
copies without calling a routine."""
SEVERAL = {"6.1": MORE_PROCESSORS, "7.3": PROCESSORS}
LINES = tuple(line for line in KERNELS if line != "6.12")
"""That one copies as 7.3 does, and performs every strategy elsewhere. The other three, and 7.3
on a processor with FSRM, copy each by functions of their own, so that each is asked."""


@pytest.fixture(
    scope="module",
    params=[*((line, ()) for line in LINES), ("7.3", (FSRM,))],
    ids=lambda guest: " ".join((guest[0], *guest[1])),
)
def performed(request, live, in_guest):
    line, options = request.param
    disks = [kind for kind in FILE_SYSTEMS if kind != "tmpfs"]
    result = in_guest(
        line,
        "operations_guest.py",
        "auto",
        *FILE_SYSTEMS,
        file_systems=disks,
        boot_options=options,
        processors=SEVERAL.get(line, 1),
    )
    assert ("fsrm" in result["kernel"]["cpu_flags"]) == (FSRM in options)
    return result


def added_up(result, operation):
    """Bytes by direction of what counts, and those that two mechanisms disagree on."""
    sites = {
        (site["quantity"], site["function"], site["mechanism"]): site
        for site in result["sites"]
    }
    seen, at_calls, beside = Counter(), Counter(), Counter()
    for count in operation["counts"]:
        site = sites.get((count["quantity"], count["function"], count["mechanism"]))
        if not site or not count["role"].endswith("sender"):
            continue
        if count["quantity"] in ("copy-to-user", "copy-from-user"):
            continue  # in the place of the routine: structures, too
        if count["quantity"] == "user-copy-routine":
            caller = (count["caller"] or "").partition("+")[0].partition(".")[0]
            if caller not in ITERATOR_FUNCTIONS:
                seen["other"] += count["bytes"]
        elif site["kind"] == "cross-check":
            if site["exact"]:
                beside[count["function"]] += count["bytes"]
        else:
            direction = direction_of(count["direction"], site["direction"], count["syscall"])
            purpose = direction if site["purpose"] == "payload" else site["purpose"]
            seen[purpose] += count["bytes"]
            seen[f"{purpose}:{count['syscall']}"] += count["bytes"]
            at_calls[site["breakpoint"]] += count["bytes"]
    differing = {f: (at_calls[f], n) for f, n in beside.items() if n != at_calls[f]}
    return seen, differing


def problems(result, operation):
    """What differs from what has to be seen; empty if nothing does."""
    expected = operation["expected"]
    if expected is None or "unavailable" in expected:
        return [] if expected else [operation["name"]]
    seen, differing = added_up(result, operation)
    if "copy-on-write" not in expected:
        seen["k2k"] += seen.pop("copy-on-write", 0)
    found = [f"call sites and {f}: {sizes}" for f, sizes in differing.items()]
    if "any" in expected:
        seen = {"any": seen["u2k"] + seen["k2u"] + seen["k2k"]}
    by_syscall = [name for name in expected if ":" in name]
    for direction in ("any", "u2k", "k2u", "k2k", *by_syscall):
        wanted = expected.get(direction, 0)
        if wanted is not None and seen.get(direction, 0) != wanted:
            found.append(f"{direction}: {seen.get(direction, 0)} not {wanted}")
    # Small structures of system calls are no matter, a payload would be.
    other, wanted = seen.get("other", 0), expected.get("other", 0)
    routine = any(site["quantity"] == "user-copy-routine" for site in result["sites"])
    if routine and wanted is not None and not wanted <= other <= wanted + 512:
        found.append(f"other: {other} not {wanted}")
    if operation["lost"]:
        found.append(f"lost: {operation['lost']}")
    return [f"{operation['name']}: {'; '.join(found)}"] if found else []


def test_every_operation_to_the_byte(performed):
    found = [p for operation in performed["operations"] for p in problems(performed, operation)]
    assert found == []


def test_nothing_was_left_out(performed):
    """The last is that of the last file system, and few are not possible on some kernel."""
    names = [operation["name"] for operation in performed["operations"]]
    assert names[-1].startswith("tmpfs")
    assert len(names) > 90
    unavailable = {
        operation["name"]
        for operation in performed["operations"]
        if "unavailable" in operation["expected"]
    }
    assert unavailable <= {"io_uring, zero-copy"}


def test_what_would_count_twice_is_refused(live):
    """On 5.10, pages copied for kernel memory pass a call site and a breakpoint."""
    result = zctrace("run", "sendfile", "--kernel", "5.10", "--mechanism", "breakpoint")
    assert result.returncode == TraceError.exit_code, result.stderr
    assert "copy_page_to_iter calls _copy_to_iter, so that bytes would be cou" in result.stderr
    assert result.stdout == ""


def test_what_is_remembered_of_a_kernel_is_what_is_found_anew(performed):
    """From an earlier guest, if there was one; and a moment later."""
    assert performed["remembered"] == [performed["kernel"]] * 2
