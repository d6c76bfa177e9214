"""The command line, with guests that are not as usual: ``python -m tests.live.altered NAME …``.

NAME is one of :data:`ALTERED`; what follows it are zctrace's own arguments.
"""

import dataclasses
import runpy
import sys

from zctrace.collect import compile_request
from zctrace.machine import observations, qemu

_HIDDEN = "mount -t tmpfs tmpfs /mnt; : >/mnt/empty; mount --bind /mnt/empty {}"


@dataclasses.dataclass(frozen=True)
class Altered:
    """What a guest has beside: words on its kernel's command line and on QEMU's.

    ``before`` is for its shell, as root, before anything of zctrace runs.
    """

    boot: tuple[str, ...] = ()
    qemu: tuple[str, ...] = ()
    before: str = ""


ALTERED = {
    "fsrm": Altered(boot=("setcpuid=fsrm",)),
    "no-erms": Altered(qemu=("-cpu", "max,-erms,-fsrm")),
    "lockdown-integrity": Altered(boot=("lockdown=integrity",)),
    "lockdown-confidentiality": Altered(boot=("lockdown=confidentiality",)),
    "mitigations-off": Altered(boot=("mitigations=off",)),
    # It stuffs the return stack buffer by tracking how deep calls are, on processors that are
    # told to be Skylakes: every function then has 16 bytes in front of it.
    "retbleed-stuff": Altered(
        boot=("retbleed=stuff", "spectre_v2=retpoline"),
        qemu=("-cpu", "Skylake-Server,vendor=GenuineIntel"),
    ),
    # A look at the time is a system call then.
    "hpet": Altered(boot=("clocksource=hpet",)),
    "nokaslr": Altered(boot=("nokaslr",)),
    "kptr-restrict": Altered(before="echo 2 >/proc/sys/kernel/kptr_restrict"),
    "no-btf": Altered(before=_HIDDEN.format("/sys/kernel/btf/vmlinux")),
    "no-kcore": Altered(before=_HIDDEN.format("/proc/kcore")),
    "cgroup-v1": Altered(
        before="umount /sys/fs/cgroup; mount -t tmpfs tmpfs /sys/fs/cgroup; "
        "mkdir /sys/fs/cgroup/perf_event; "
        "mount -t cgroup -o perf_event cgroup /sys/fs/cgroup/perf_event"
    ),
}
_run = qemu.run


def runs(how):
    """:func:`qemu.run`, with guests that are altered so."""

    def run(guest, collector, *others):
        guest = dataclasses.replace(
            guest, boot_options=how.boot, qemu_options=(*guest.qemu_options, *how.qemu)
        )
        if how.before:
            collector = ["/bin/sh", "-ec", f'{how.before}\nexec "$@"', "sh", *collector]
        return _run(guest, collector, *others)

    return run


if __name__ == "__main__":
    altered = ALTERED[sys.argv.pop(1)]
    if altered.before:
        # What was found before something was hidden would be found without looking. What was
        # compiled may stay.
        observations._KINDS = (compile_request.COMPILED,)
    qemu.run = runs(altered)
    runpy.run_module("zctrace", run_name="__main__")
