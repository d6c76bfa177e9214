"""How many bytes go which way, in paths_guest; primes where anything may be moved."""

MESSAGE, MESSAGES = 1201, 7
MEMORY, MEMORY_WRITTEN = 300_007, 70_001
FUSE = 200_003
FRAME = 1009
SECTORS = 397 * 512
QUEUED = 7001
PAGES = 41
COPIED_UP = 1_000_003
SENT = 300_000
PRINTED = 1013
