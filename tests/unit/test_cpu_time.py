"""CPU time of a traced program."""

import os
import time

from zctrace.collect import cpu_time


def test_of_a_cgroup(tmp_path):
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\nsystem_usec 2\n")
    assert cpu_time.of_cgroup(tmp_path) == 2.5


def test_a_cgroup_of_version_1_does_not_say(tmp_path):
    assert cpu_time.of_cgroup(tmp_path) is None
    (tmp_path / "cpu.stat").write_text("nr_periods 0\n")
    assert cpu_time.of_cgroup(tmp_path) is None
    (tmp_path / "cpu.stat").write_text("usage_usec many\n")
    assert cpu_time.of_cgroup(tmp_path) is None


def test_of_processes():
    began = cpu_time.of_processes([os.getpid()])
    used = sum(os.times()[:2])
    while sum(os.times()[:2]) < used + 0.1:
        pass
    after = cpu_time.of_processes([os.getpid(), 2**22 + 1])
    assert 0.05 < after - began < 60
    assert abs(after - time.process_time()) < 1


def test_a_process_that_has_gone_counts_for_nothing():
    assert cpu_time.of_processes([2**22 + 1]) == 0
