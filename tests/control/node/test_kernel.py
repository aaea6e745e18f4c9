"""Who lives, whose child is whose, and how much memory is its own."""

import os
import signal
import subprocess

from control.node.kernel import birth, family, is_alive, private_octets


def test_a_process_is_known_by_its_birth_and_not_by_its_number_alone():
    born = birth(os.getpid())
    assert born is not None
    assert is_alive(os.getpid(), born)
    assert not is_alive(os.getpid(), born + 1)
    assert not is_alive(os.getpid(), None)


def test_a_zombie_is_not_alive():
    child = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert birth(child.pid) is None
    child.wait()
    assert birth(child.pid) is None


def test_a_family_has_children_and_grandchildren():
    child = subprocess.Popen(["/bin/sh", "-c", "sleep 60 & echo; wait"], stdout=subprocess.PIPE)
    found = [child.pid]
    try:
        assert child.stdout is not None
        child.stdout.readline()
        found = family([child.pid])
        assert len(found) == 2
        assert set(found) < set(family([os.getpid()]))
        assert private_octets(os.getpid()) > 1_000_000
    finally:
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        child.communicate()
    assert private_octets(child.pid) == 0
