"""What the suites of tracing_guest, and the tests of what they answer, share."""

from pathlib import Path

SIZE = 16 << 20
"""Of the payload on each file system."""
SECRET_BYTES, LATE_BYTES = 1_048_573, 7001
"""Of a file that only root may read; of what comes while a call waits for it."""
PROCESSES = 2000
"""That begin and end, one after the other."""
SCALE = (500, 10)
"""Threads, and pairs of sockets for each: 10 000 descriptors in all."""
CROWD, ROOM = (40, 10), (64, 32, 16)
"""The same where there is room for so many flows, things and threads."""
PROCESSORS, MORE_PROCESSORS = 2, 4
"""Of guests in which strategies or operations are performed, and of some. Others have one: two
take the emulator nearly twice as long."""
FORKS = 60
"""All at once."""
THREADS = (16, 10)
"""Threads, and pairs of sockets for each."""
READERS, PIECE, ATTACHED = 2, 1 << 17, 4
"""Threads of a process that do nothing but read so many bytes, and how often it is traced."""
VECTOR_CALLS, MANY_VECTORS, VECTOR_BYTES = 300, 40, 100
"""Of writev(2), and of its vectors."""
THREAD_BYTES = (1 << 20, 3 << 20)
"""That each of two threads of a process reads."""
ROOT = Path("/run/programs")
PACKAGES = Path(__file__).parent / "packages"
"""Programs and libraries as Debian packages have them, unpacked and not installed."""
ENVIRONMENT = {
    "PATH": f"/usr/bin:/bin:/usr/sbin:{PACKAGES}/usr/sbin:{PACKAGES}/usr/bin",
    "LANG": "C.UTF-8",
    "LD_LIBRARY_PATH": f"{PACKAGES}/usr/lib/x86_64-linux-gnu",
}
