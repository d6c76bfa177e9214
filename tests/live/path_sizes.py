"""How many bytes go which way, in paths_guest; primes where anything may be moved."""

MESSAGE, MESSAGES = 1201, 7
MEMORY, MEMORY_WRITTEN = 300_007, 70_001
FUSE = 200_003
FRAME = 1009
SECTORS = 397 * 512
