"""System calls of 32-bit programs, by the numbers and names that x86-64 has for them.

A program for i386, or one that uses ``int 0x80``, calls by the numbers of another table
(arch/x86/entry/syscalls/syscall_32.tbl): its ``read`` is 3, which is ``close`` in the table of
64-bit programs. To name a new call, add its name at its number; those from 424 on have the
same number in both tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

NAMES = tuple(
    """
    restart_syscall exit fork read write open close waitpid creat link unlink execve chdir time
    mknod chmod lchown break oldstat lseek getpid mount umount setuid getuid stime ptrace alarm
    oldfstat pause utime stty gtty access nice ftime sync kill rename mkdir rmdir dup pipe times
    prof brk setgid getgid signal geteuid getegid acct umount2 lock ioctl fcntl mpx setpgid
    ulimit oldolduname umask chroot ustat dup2 getppid getpgrp setsid sigaction sgetmask
    ssetmask setreuid setregid sigsuspend sigpending sethostname setrlimit getrlimit getrusage
    gettimeofday settimeofday getgroups setgroups select symlink oldlstat readlink uselib swapon
    reboot readdir mmap munmap truncate ftruncate fchmod fchown getpriority setpriority profil
    statfs fstatfs ioperm socketcall syslog setitimer getitimer stat lstat fstat olduname iopl
    vhangup idle vm86old wait4 swapoff sysinfo ipc fsync sigreturn clone setdomainname uname
    modify_ldt adjtimex mprotect sigprocmask create_module init_module delete_module
    get_kernel_syms quotactl getpgid fchdir bdflush sysfs personality afs_syscall setfsuid
    setfsgid _llseek getdents _newselect flock msync readv writev getsid fdatasync _sysctl mlock
    munlock mlockall munlockall sched_setparam sched_getparam sched_setscheduler
    sched_getscheduler sched_yield sched_get_priority_max sched_get_priority_min
    sched_rr_get_interval nanosleep mremap setresuid getresuid vm86 query_module poll nfsservctl
    setresgid getresgid prctl rt_sigreturn rt_sigaction rt_sigprocmask rt_sigpending
    rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend pread64 pwrite64 chown getcwd capget capset
    sigaltstack sendfile getpmsg putpmsg vfork ugetrlimit mmap2 truncate64 ftruncate64 stat64
    lstat64 fstat64 lchown32 getuid32 getgid32 geteuid32 getegid32 setreuid32 setregid32
    getgroups32 setgroups32 fchown32 setresuid32 getresuid32 setresgid32 getresgid32 chown32
    setuid32 setgid32 setfsuid32 setfsgid32 pivot_root mincore madvise getdents64 fcntl64 - -
    gettid readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr
    llistxattr flistxattr removexattr lremovexattr fremovexattr tkill sendfile64 futex
    sched_setaffinity sched_getaffinity set_thread_area get_thread_area io_setup io_destroy
    io_getevents io_submit io_cancel fadvise64 - exit_group lookup_dcookie epoll_create
    epoll_ctl epoll_wait remap_file_pages set_tid_address timer_create timer_settime
    timer_gettime timer_getoverrun timer_delete clock_settime clock_gettime clock_getres
    clock_nanosleep statfs64 fstatfs64 tgkill utimes fadvise64_64 vserver mbind get_mempolicy
    set_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
    kexec_load waitid - add_key request_key keyctl ioprio_set ioprio_get inotify_init
    inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat futimesat
    fstatat64 unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll
    unshare set_robust_list get_robust_list splice sync_file_range tee vmsplice move_pages
    getcpu epoll_pwait utimensat signalfd timerfd_create eventfd fallocate timerfd_settime
    timerfd_gettime signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev
    rt_tgsigqueueinfo perf_event_open recvmmsg fanotify_init fanotify_mark prlimit64
    name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg setns process_vm_readv
    process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2 seccomp getrandom
    memfd_create bpf execveat socket socketpair bind connect listen accept4 getsockopt
    setsockopt getsockname getpeername sendto sendmsg recvfrom recvmsg shutdown userfaultfd
    membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx
    arch_prctl io_pgetevents rseq - - - - - - semget semctl shmget shmctl shmat shmdt msgget
    msgsnd msgrcv msgctl clock_gettime64 clock_settime64 clock_adjtime64 clock_getres_time64
    clock_nanosleep_time64 timer_gettime64 timer_settime64 timerfd_gettime64 timerfd_settime64
    utimensat_time64 pselect6_time64 ppoll_time64 - io_pgetevents_time64 recvmmsg_time64
    mq_timedsend_time64 mq_timedreceive_time64 semtimedop_time64 rt_sigtimedwait_time64
    futex_time64 sched_rr_get_interval_time64
    """.split()
)
"""By number; ``-`` where there is none."""
COMMON = 424
"""From this number on both tables agree."""
MAX_NUMBER = 512
"""Larger than the number of any of them."""
SOCKETCALLS = (
    *("-", "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername"),
    *("socketpair", "sendto", "recvfrom", "sendto", "recvfrom", "shutdown", "setsockopt"),
    *("getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg"),
)
"""By the first argument of ``socketcall`` (include/uapi/linux/net.h): it stands for all of
them, and has their arguments in memory."""
SOCKETCALL = NAMES.index("socketcall")
MARK = 1 << 29
"""In the meter's number of a call that has no counterpart: its own number besides."""

X32 = 1 << 30
"""This bit is set in the number of a call by the x32 ABI, which a kernel allows only with
``syscall.x32=y``. No such call is taken for another call."""

_SUFFIX, _X32 = "(32-bit)", "(x32)"
_RENAMED = {
    "_llseek": "lseek",
    "_newselect": "select",
    "fadvise64_64": "fadvise64",
    "fstatat64": "newfstatat",
    "mmap2": "mmap",
    "ugetrlimit": "getrlimit",
}
_WIDTH = re.compile(r"(_time64|64|32)$")
_OTHER_LAYOUT = ("recvmmsg", "sendmmsg", "recvmmsg_time64")
"""Of what they take the layout is another one, which the meter does not read."""
UNTOLD = frozenset(f"{name} {_SUFFIX}" for name in (*_OTHER_LAYOUT, "ipc", "socketcall"))
"""Calls that may move bytes without reporting how many, or from where to where."""


def numbers(by_name: Mapping[str, int]) -> dict[int, int]:
    """By the numbers of 32-bit calls, the meter's; ``by_name`` are those of 64-bit calls.

    Behind them, from :data:`MAX_NUMBER` on, those of what ``socketcall`` stands for.
    """
    direct = {number: _number(number, by_name) for number in range(MAX_NUMBER)}
    behind = {
        MAX_NUMBER + which: direct[NAMES.index(name)]
        if name in _OTHER_LAYOUT
        else by_name.get(name, MARK | SOCKETCALL)
        for which, name in enumerate(SOCKETCALLS)
    }
    return direct | behind


def _number(number: int, by_name: Mapping[str, int]) -> int:
    if number >= COMMON:
        return number
    name = NAMES[number]
    for known in (name, _RENAMED.get(name, name), _WIDTH.sub("", name)):
        if known in by_name and name not in _OTHER_LAYOUT:
            return by_name[known]
    return MARK | number


def untold(names: Iterable[str]) -> list[str]:
    """The calls that may move bytes and report nothing about them."""
    return sorted(name for name in names if name in UNTOLD or name.endswith(_X32))


def name(number: int) -> str:
    """Of a call with :data:`MARK` or :data:`X32`."""
    if number & X32:
        return f"call {number & ~X32} {_X32}"
    own = number & ~MARK
    known = NAMES[own] if own < len(NAMES) else "-"
    return f"{f'call {own}' if known == '-' else known} {_SUFFIX}"
