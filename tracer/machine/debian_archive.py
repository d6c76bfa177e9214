"""Stock kernels from the machine's own package archive, through apt.

apt runs with private state and cache folders, so that the machine's own lists stay as
they are, and checks signatures as always: what is downloaded here is booted by root.
Which archive, apt's configuration says; only the suite's name is replaced to look into
other releases of the same archive.
"""

from __future__ import annotations

import csv
import re
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from zctrace import trust
from zctrace.errors import KernelError
from zctrace.notices import Say

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_ARCHITECTURE = "amd64"
_POLL_SECONDS = 0.25
_FRESH_SECONDS = 24 * 3600
_DISTRO_INFO = Path("/usr/share/distro-info/debian.csv")
"""Debian's own table of its releases (package distro-info-data)."""
_SUPPORTED_DAYS = 7 * 365
_ALIASES = ("oldoldstable", "oldstable", "stable", "testing")
_ROLLING = ("sid", "experimental")
_POCKETS = ("", "-security", "-updates", "-backports")
_IMAGE = re.compile(rf"linux-image-(?P<release>\d+\.\d+[^\s,(]*-{_ARCHITECTURE})")
_METAPACKAGE = f"linux-image-{_ARCHITECTURE}"
_PARTS = "^linux-(image|binary|modules|base)-[0-9]"
"""Packages that a kernel's image and modules are in, and lists of what is built in."""
_LISTS = "linux-base-"
"""What an image depends on since 6.18, and boots without."""
FLAVOURS = ("rt", "cloud")
"""Debian's other kernels for the same machines: PREEMPT_RT, and for guests of clouds."""


@dataclass(frozen=True)
class StockKernel:
    """A kernel that the archive offers.

    ``version`` is the package's (6.1.192-2), ``release`` what uname will say
    (6.1.0-56-amd64), ``packages`` are all that its image and modules are spread over. The
    archive may keep some packages of a kernel longer than others: ``lacking`` are gone.
    """

    release: str
    version: str
    packages: tuple[str, ...]
    size: int
    lacking: tuple[str, ...] = ()


class Archive:
    """Some suites of the machine's archive, seen through lists of our own in ``folder``."""

    def __init__(self, folder: Path, sources: Iterable[str]) -> None:
        self._folder = folder
        self._sources = folder / "sources.list"
        self._lines = "\n".join(sources) + "\n"

    def kernels(self, say: Say) -> list[StockKernel]:
        """What the suites name, oldest first, also what lacks packages; reads the lists anew
        once a day."""
        for part in ("state/lists/partial", "cache/archives/partial"):
            (self._folder / part).mkdir(parents=True, exist_ok=True)
        if not self._lines.strip():
            raise KernelError(
                "apt has no Debian archive configured",
                "kernels are fetched from there, and apt-get indextargets does not list it",
                "--kernel PATH names a kernel image of your own",
            )
        if not self._fresh():
            say("reading the archive's package lists")
            self._sources.write_text(self._lines)
            # Suites that an archive does not have are no error; none at all is found out
            # below, when no kernel is offered.
            self._apt("apt-get", "update", accept_failure=True)
            (self._folder / "updated").touch()
        return self._offered()

    def default(self, say: Say) -> StockKernel:
        """The one that these suites install unless asked otherwise."""
        offered = {kernel.release: kernel for kernel in self.kernels(say)}
        metapackage = self._describe([_METAPACKAGE])[0]
        match = _IMAGE.search(metapackage.get("Depends", ""))
        if not match or match["release"] not in offered:
            raise KernelError(
                f"the package archive's {_METAPACKAGE} names no kernel that it offers",
                f"it depends on {metapackage.get('Depends', 'nothing')}",
                "--kernel VERSION names one",
            )
        return offered[match["release"]]

    def download(self, kernel: StockKernel, folder: Path, say: Say) -> list[Path]:
        """Fetch the packages into ``folder``; returns the files."""
        wanted = [f"{name}={kernel.version}" for name in kernel.packages]
        size, told = self.size(kernel), -1
        apt = subprocess.Popen(
            self._command("apt-get", "download", *wanted),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=trust.system_environment(),
        )
        try:
            while apt.poll() is None:
                tenth = 10 * (here := _bytes_in(folder)) // size if size else 0
                if tenth > told:
                    told = tenth
                    say(f"fetching kernel {kernel.version}: {here >> 20} of {size >> 20} MiB")
                time.sleep(_POLL_SECONDS)
            _, complaint = apt.communicate()
        finally:
            apt.terminate()
            apt.wait()
        if apt.returncode:
            raise _apt_failed("apt-get download", complaint)
        return sorted(folder.glob("*.deb"))

    def _fresh(self) -> bool:
        stamp = self._folder / "updated"
        return (
            stamp.exists()
            and time.time() - stamp.stat().st_mtime < _FRESH_SECONDS
            and self._sources.read_text() == self._lines
        )

    def _offered(self) -> list[StockKernel]:
        listing = self._apt("apt-cache", "search", "--names-only", _PARTS)
        names = [
            line.split(" - ")[0]
            for line in listing.splitlines()
            if "meta-package" not in line and line.split(" - ")[0].endswith(f"-{_ARCHITECTURE}")
        ]
        images = [name for name in names if _IMAGE.fullmatch(name)]
        if not images:
            raise KernelError(
                "the package archive offers no kernel",
                "its lists could not be read, or it is not Debian's",
                "apt-get update shows what is wrong; --kernel PATH names an image of your own",
            )
        described = self._describe(names)
        there = {(fields["Package"], fields["Version"]) for fields in described}
        kernels = [
            _kernel(fields, there) for fields in described if fields["Package"] in images
        ]
        return sorted(kernels, key=lambda kernel: version_key(kernel.version))

    def size(self, kernel: StockKernel) -> int:
        """Bytes that :meth:`download` will fetch."""
        return sum(
            int(fields.get("Size", 0))
            for fields in self._describe(kernel.packages)
            if fields["Version"] == kernel.version
        )

    def _describe(self, names: Iterable[str]) -> list[dict[str, str]]:
        shown = self._apt("apt-cache", "show", *names)
        packages, seen = [], set()
        for paragraph in shown.split("\n\n"):
            fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", paragraph, re.M))
            key = (fields.get("Package"), fields.get("Version"))
            if fields and key not in seen:
                seen.add(key)
                packages.append(fields)
        return packages

    def _command(self, program: str, *arguments: str) -> list[str]:
        """apt's command line, with state and cache of our own."""
        options = {
            "Dir::State": self._folder / "state",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": self._folder / "cache",
            "Dir::Etc::sourcelist": self._sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "Acquire::Retries": "2",
            "APT::Sandbox::User": "root",
        }
        chosen = [text for name, value in options.items() for text in ("-o", f"{name}={value}")]
        return [program, *chosen, *arguments]

    def _apt(self, *command: str, accept_failure: bool = False) -> str:
        try:
            result = subprocess.run(
                self._command(*command),
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                env=trust.system_environment(),
            )
        except FileNotFoundError as error:
            raise KernelError(
                f"{command[0]} is not installed",
                "stock kernels come from the package archive of a Debian system",
                "--kernel PATH names a kernel image of your own",
            ) from error
        if result.returncode and not accept_failure:
            raise _apt_failed(" ".join(command[:2]), result.stderr)
        return result.stdout


def _kernel(fields: dict[str, str], there: set[tuple[str, str]]) -> StockKernel:
    """The kernel of an image's package, where ``there`` are packages with their versions."""
    release = fields["Package"].removeprefix("linux-image-")
    # Since the 6.19 packages the files are spread over several packages.
    parts = [
        dependency
        for dependency in re.findall(r"[a-z0-9][a-z0-9+.-]+", fields.get("Depends", ""))
        if dependency.startswith("linux-") and dependency.endswith(f"-{release}")
    ]
    version = fields["Version"]
    gone = {part for part in parts if (part, version) not in there}
    wanted = [part for part in dict.fromkeys(parts) if part not in gone or _is_needed(part)]
    return StockKernel(
        release,
        version,
        (fields["Package"], *wanted),
        int(fields.get("Size", 0)),
        tuple(part for part in wanted if part in gone),
    )


def _is_needed(part: str) -> bool:
    return not part.startswith(_LISTS)


def flavour(name: str) -> str:
    """Which of :data:`FLAVOURS` a release, or a version such as 6.1-rt, names; else empty."""
    stem = name.removesuffix(f"-{_ARCHITECTURE}")
    return next((one for one in FLAVOURS if stem.endswith(f"-{one}")), "")


def _apt_failed(call: str, complaint: str) -> KernelError:
    errors = [line for line in complaint.splitlines() if line.startswith("E:")]
    return KernelError(
        f"{call} failed",
        "; ".join(errors) or complaint.strip(),
        "apt-get update, to see whether the archive can be reached",
    )


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # apt renames what is complete
            total += path.stat().st_size
    return total


def own_release(folder: Path) -> Archive:
    """The suites that this machine installs from, backports aside."""
    sources = [
        _source(site, suite) for site, suite in _configured() if "backports" not in suite
    ]
    return Archive(folder / "own", sources)


def all_releases(folder: Path) -> Archive:
    """Every release that the archive may hold."""
    configured = _configured()
    sites = {site: "security" in suite for site, suite in configured}
    sources = dict.fromkeys(_source(site, suite) for site, suite in configured)
    for site, security in sites.items():
        for release in _releases():
            for pocket in _POCKETS:
                if security == (pocket == "-security"):
                    sources[_source(site, release + pocket)] = None
        if not security:
            sources |= dict.fromkeys(_source(site, suite) for suite in _ROLLING)
    return Archive(folder / "all", sources)


def _releases() -> list[str]:
    """Code names of releases that an archive may still hold, testing included.

    Aliases such as stable only where the table of names is missing: some mirrors serve
    them later than the names.
    """
    try:
        with _DISTRO_INFO.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return list(_ALIASES)
    oldest = (date.today() - timedelta(days=_SUPPORTED_DAYS)).isoformat()
    return [
        row["series"]
        for row in rows
        if row["series"] not in _ROLLING and (row["release"] or "9999") >= oldest
    ]


def version_key(version: str) -> tuple[tuple[int, object], ...]:
    """Sorts kernel versions and releases as people read them; ``~`` comes before all."""
    parts = re.findall(r"\d+|~|[^\d~]+", version)
    keys = ((3, int(p)) if p.isdigit() else (0 if p == "~" else 2, p) for p in parts)
    return (*keys, (1, ""))


def _configured() -> list[tuple[str, str]]:
    """Site and suite of every configured source of main that could hold kernels."""
    try:
        targets = subprocess.run(
            [
                "apt-get",
                "indextargets",
                "--format",
                "$(SITE) $(RELEASE) $(COMPONENT)",
                "Created-By: Packages",
            ],
            capture_output=True,
            text=True,
            env=trust.system_environment(),
        ).stdout
    except FileNotFoundError:
        return []
    entries = [line.split() for line in targets.splitlines()]
    return list(
        dict.fromkeys(
            (site, suite)
            for site, suite, component in (e for e in entries if len(e) == 3)
            if component == "main" and "debian" in site.lower()
        )
    )


def _source(site: str, suite: str) -> str:
    signed = f"[arch={_ARCHITECTURE} signed-by={_KEYRING}] " if _KEYRING.exists() else ""
    return f"deb {signed}{site} {suite} main"
