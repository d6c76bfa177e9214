"""``zctrace``, which ``python -m zctrace`` is, too: Ctrl-C while it is imported is a word."""

import os
from typing import NoReturn

_INTERRUPTED = 130
"""As ``zctrace.errors`` has it, which may be what was not imported."""


def main() -> NoReturn:
    try:
        from zctrace import cli

        cli.main()
    except KeyboardInterrupt:
        os.write(2, b"zctrace: interrupted\n")
        os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
