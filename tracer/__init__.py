"""Count what the CPU copies and how often a program enters the kernel.

Two halves that meet in a file. *Collect* (``session`` and below) runs as root next to the
kernel, with the standard library, BCC and a disassembler. *Analyse* (``summary``,
``verdict``, ``reports``) is unprivileged and reads evidence.
"""

__version__ = "0.1.0"
