"""``python -m release FOLDER``: the man page and the completions, as they lie below share/."""

import sys
from pathlib import Path

from release import completions, manual
from release.tree import read

PLACES = {
    "man/man1/zctrace.1": manual.page,
    "bash-completion/completions/zctrace": completions.bash,
    "zsh/site-functions/_zctrace": completions.zsh,
    "fish/vendor_completions.d/zctrace.fish": completions.fish,
}


def write(folder):
    tree = read()
    for place, make in PLACES.items():
        path = Path(folder) / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make(tree), encoding="utf-8")


if __name__ == "__main__":
    write(sys.argv[1])
