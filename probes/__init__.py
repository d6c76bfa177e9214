"""What can be counted in a Linux kernel, as data; it knows nothing of how."""
