"""What make test-fresh does and takes for a fault; without a root file system."""

import pytest

from tests import roots
from tests.fresh import check_fresh
from tests.fresh.check_fresh import Step


def test_readme_names_the_packages_before_make():
    assert check_fresh.prepare().endswith("apt-get install --yes make git ca-certificates")


def test_the_commands_are_the_readme_s():
    readme = (check_fresh.ROOT / "README.md").read_text()
    commands = [step.command for step in check_fresh.steps("sudo ")]
    assert commands.count("make run") == 2
    for command in ("make run", "make check", "sudo zctrace trace --kernel 6.1 -- cp"):
        assert any(c.startswith(command) for c in commands)
        assert command.partition(" --")[0] in readme


@pytest.mark.parametrize(
    ("step", "code", "said", "wrong"),
    [
        (Step("a", 1), 0, "installing x", []),
        (Step("a", 1), 2, "", ["exit code 2"]),
        (Step("a", 7), 124, "", ["not done after 7 min"]),
        (Step("a", 1, ("yes",)), 0, "no", ["did not say 'yes'"]),
        (Step("a", 1, (), True), 0, "", ["installed nothing"]),
        (Step("a", 1, (), False), 0, "installing x", ["installed something"]),
        (Step("a", 1, (), False), 0, "x", []),
    ],
)
def test_what_is_wrong_with_a_step(step, code, said, wrong):
    assert list(check_fresh.faults(step, code, said)) == wrong


def test_a_root_s_apt_reaches_the_archive_as_this_machine_s_does(monkeypatch):
    dump = (
        'Acquire "";\nAcquire::http "";\nAcquire::http::Proxy "http://proxy:1";\n'
        'Acquire::Check-Valid-Until "false";\n'
        'Acquire::Languages "none";\nAcquire::Retries "3";\n'
    )
    monkeypatch.setattr(roots, "_run", lambda *command: dump)
    assert roots.apt_settings() == [
        'Acquire::http::Proxy "http://proxy:1";',
        'Acquire::Check-Valid-Until "false";',
        'Acquire::Retries "3";',
    ]
