"""What may be done to a node's processes, and what is refused; the rest is seen in `test_process_actor`."""

import os
import signal
import time
from pathlib import Path

import pytest

from control.node.house import HouseError, NodeHouse
from control.node.kernel import birth
from control.node.log_lines import LogBook
from tests.fakes.node_children import node_config, shell


def made(folder: Path) -> NodeHouse:
    config, path = node_config(folder)
    return NodeHouse(config, path, [shell("a", "true")], LogBook(("a",)), wall=time.time, environ={})


def test_it_knows_its_processes_and_tells_two_lives_apart(tmp_path):
    house = made(tmp_path)
    assert house.name == "n1"
    assert [each.name for each in house.processes()] == ["a"]
    assert house.incarnation != made(tmp_path).incarnation
    house.hurry()
    assert house.records["a"].hurried


def test_a_signal_goes_to_the_very_process_and_to_no_other(tmp_path):
    house = made(tmp_path)
    with pytest.raises(HouseError, match="a does not run"):
        house.signal("a", signal.SIGHUP)
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    try:
        house.records["a"].pid, house.records["a"].born = os.getpid(), birth(os.getpid())
        house.signal("a", signal.SIGUSR2)
        deadline = time.monotonic() + 10.0
        while not heard and time.monotonic() < deadline:
            time.sleep(0.001)  # another thread may have caught it for us
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert heard == [signal.SIGUSR2]
    assert house.memory()["a"] > 1_000_000


async def test_an_engine_that_does_not_run_is_said(tmp_path):
    with pytest.raises(HouseError, match="the engine of n1 does not answer"):
        await made(tmp_path).drain("the machine moves")


def test_logs_are_of_one_or_of_all(tmp_path):
    house = made(tmp_path)
    house.log_book.add("a", "one")
    house.log_book.add("root", "two")
    assert house.logs("a") == ["a          | one"]
    assert house.logs(count=1) == ["root       | two"]
