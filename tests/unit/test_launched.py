"""What a traced command inherits of root: nothing but what it is given."""

import os
import re

import pytest

from zctrace.collect import launcher
from zctrace.evidence.schema import Request, Subject

USER = 61234
SCRIPT = """
ls -l /proc/self/fd | grep -o '[0-9]* -> .*' | grep -v /proc/
grep -E '^(Uid|Gid|Groups|Cap(Inh|Prm|Eff|Amb)|Sig(Ign|Blk)):' /proc/self/status
env
cat /proc/self/environ 2>/dev/null | tr '\\0' '\\n'
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start it as somebody else")
def test_a_command_has_the_rights_of_its_user_and_nothing_of_root(tmp_path, monkeypatch):
    monkeypatch.setenv("ROOTS_SECRET", "1")
    # Where root may not raise limits, there is no limit to give back.
    monkeypatch.setattr(launcher.open_files, "limit_as_found", lambda child: None)
    (tmp_path / "cgroup.procs").write_text("")
    output = tmp_path / "output"
    command = ("sh", "-c", SCRIPT)
    request = Request(
        **{"run_id": "", "settings": (), "sizes": (), "chunk": None, "pipe_size": None},
        **{"repeat": 1, "uid": USER, "gid": USER, "groups": (USER, USER + 1), "user": "",
           "machine": "host", "images": {}, "mount": "", "nonce": 5, "mechanism": "auto"},
        subject=Subject(command=command, folder="/"),
    )  # fmt: skip
    roots = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(roots, True)
    with open(os.devnull) as null, output.open("w") as file:
        streams = [null.fileno(), file.fileno(), file.fileno()]
        given = {"PATH": os.defpath, "GIVEN": "1"}
        group = launcher.ProgramGroup(request, tmp_path, streams, given)
        with group.launch("none", request.subject) as launched:
            launched.execute()
            launched._process.wait()
    os.close(roots)
    said = output.read_text()
    assert sorted(re.findall(r"(\d+) ->", said)) == ["0", "1", "2"]
    facts = dict(re.findall(r"^(\w+):\t(.*?) *$", said, re.M))
    assert facts["Uid"].split() == facts["Gid"].split() == [str(USER)] * 4
    assert facts["Groups"].split() == [str(USER), str(USER + 1)]
    assert {int(facts[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Amb")} == {0}
    assert int(facts["SigIgn"], 16) == int(facts["SigBlk"], 16) == 0
    assert "GIVEN=1" in said
    assert "ROOTS_SECRET" not in said
