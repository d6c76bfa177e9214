"""What the raw results mean: instructions per operation, per step and per symbol. Pure."""

import itertools
import re
import statistics
from collections import Counter

from tests.bench import tracers

TRACED, BYSTANDER = "traced", "bystander"
WHO = (TRACED, BYSTANDER)
CHECKS = ("nothing", "repeat")
"""Operations of the workload that only tell how instructions are counted."""
COMPILED, TRAMPOLINE = "bpf_prog_", "bpf_trampoline_"
USER = "(user space)"
_KINDS = {
    "BPF programs' own code": ("BPF (?!trampolines)",),
    "BPF maps": (
        *("jhash", ".*htab_", ".*map_lookup_elem", "lookup_.*elem_raw", "memcmp"),
        *("_*pcpu_freelist_", "__copy_map_value", "check_and_free_fields", "free_htab_elem"),
    ),
    "reading kernel memory": ("copy_from_kernel_nofault", "bpf_probe_read_"),
    "the clock, for run-time statistics": ("(native_|local_)?sched_clock", "update_prog_stats"),
    "calling BPF programs": (
        *("trace_call_bpf", "migrate_", "__rcu_read_", "bpf_get_", "__bpf_"),
        *("bpf_overflow_handler", "BPF trampolines"),
    ),
    "exceptions and probes": (
        *("(?!kprobe_register).*kprobe", ".*int3", "exc_", "asm_exc_", "error_", "paranoid_"),
        *("ct_nmi_", "irqentry_", "setup_singlestep", "setup_detour", "ftrace_", "notify_die"),
        *("opt_pre_handler", "optimized_callback", ".*rethook", "restore_regs_and"),
        *(".*debugreg", "hw_breakpoint_exceptions"),
    ),
    "system calls' slow path, and tracepoints": ("syscall_", "perf_trace_(sys|run|buf|sched)"),
    "perf events": (
        *("_*perf_", "(event|ctx|group|merge)_sched_", "visit_groups_merge", "pmu_"),
        *(".*hw_breakpoint", "trace_event_reg", "kprobe_register"),
    ),
}
"""What functions are for, by how their names begin; the first that fits."""
_REST = "everything else"


def per_operation(lines):
    """Instructions of one repetition, by operation: the median of the batches."""
    return {
        name: statistics.median(map(int, batches)) / int(repetitions)
        for name, repetitions, *batches in lines
    }


def failed(one):
    """Why a tracer has no figures, in a few words; empty if it has."""
    if one.get("missing"):
        return f"not installed (apt-get install {one['missing']})"
    return one.get("error", "").strip().splitlines()[-1] if one.get("error") else ""


def extra(found, who):
    """By tracer, by operation: instructions more than untraced.

    Of a kernel's ``found``; tracers without figures are left out. Raises ``KeyError`` where
    nothing was measured untraced.
    """
    base = per_operation(found[tracers.UNTRACED][who])
    return {
        key: {name: value - base[name] for name, value in per_operation(one[who]).items()}
        for key, one in found.items()
        if key != tracers.UNTRACED and not failed(one)
    }


def steps(one):
    """By step of a tracer's start, instructions until the next; the first is its own start."""
    pairs = [("start", 0), *one["steps"]]
    taken = Counter()
    for (name, begun), (_, ended) in itertools.pairwise(pairs):
        taken[name] += ended - begun
    return dict(taken)


def blocks(text):
    """Of what the emulator's plugin has written: for each operation that was performed, the
    number of stretches, and by address how many instructions were executed in all."""
    counts, found = {}, []
    for line in text.splitlines():
        word, number = line.split()
        if word != "=":
            counts[int(word, 16)] = int(number)
            continue
        if int(number):
            found.append((int(number), counts))
        counts = {}
    return found


class Symbols:
    """The kernel's, of ``/proc/kallsyms``, to look addresses up in.

    ``programs`` are the places of BPF programs by their tags, for those without a name.
    """

    def __init__(self, text, programs):
        self._programs = programs
        found = {}
        for line in text.splitlines():
            address, kind, name, *_ = line.split()
            if kind in "tTwW":
                # The first of several names; a program has but one.
                found.setdefault(int(address, 16), name)
        self._found = sorted(found.items())

    def named(self, counts):
        """``counts`` by address, added up by the function's name."""
        names, at, name = Counter(), 0, ""
        for address, count in sorted(counts.items()):
            if not address:
                names[USER] += count
                continue
            while at < len(self._found) and self._found[at][0] <= address:
                name = self._found[at][1]
                at += 1
            names[self._plain(name)] += count
        return names

    def _plain(self, name):
        if name.startswith(TRAMPOLINE):
            return "BPF trampolines"
        if not name.startswith(COMPILED):
            return name.split(".")[0]
        tag, _, own = name.removeprefix(COMPILED).partition("_")
        return f"BPF {own or self._programs.get(tag) or tag}"


def by_symbol(found, written):
    """By who, by tracer, by operation, by symbol: instructions of one repetition, on average.

    ``found`` are results with symbols, ``written`` is what the plugin wrote meanwhile.
    """
    rows = iter(blocks(written))
    answer = {who: {} for who in WHO}
    for key, one in found.items():
        symbols = Symbols(one["symbols"], one["programs"])
        for who in WHO:
            answer[who][key] = {}
            for name, repetitions, *_ in one[who]:
                stretches, counts = next(rows)
                times = stretches * int(repetitions)
                named = symbols.named(counts)
                answer[who][key][name] = {symbol: n / times for symbol, n in named.items()}
    return answer


def difference(traced, untraced):
    """By operation, by symbol: instructions more, where there are any, or fewer."""
    return {
        name: {
            symbol: counts.get(symbol, 0) - untraced[name].get(symbol, 0)
            for symbol in counts.keys() | untraced[name].keys()
        }
        for name, counts in traced.items()
    }


def by_kind(differences):
    """By kind, by operation: instructions more, in the order of the kinds."""
    kinds = {kind: Counter() for kind in (*_KINDS, _REST)}
    for name, counts in differences.items():
        for symbol, count in counts.items():
            fits = (
                kind
                for kind, names in _KINDS.items()
                if any(re.match(name, symbol) for name in names)
            )
            kinds[next(fits, _REST)][name] += count
    return kinds


def leading(differences, least):
    """Symbols with at least that share of an operation's extra instructions, largest first;
    compiled BPF programs before functions of the kernel."""
    weight = Counter()
    for counts in differences.values():
        total = sum(counts.values())
        for symbol, count in counts.items():
            if total > 0:
                weight[symbol] = max(weight[symbol], count / total)
    chosen = [symbol for symbol, share in weight.most_common() if share >= least]
    return sorted(chosen, key=lambda symbol: not symbol.startswith("BPF "))
