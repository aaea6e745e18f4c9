"""What systemd is told, in its own words; and nothing where nobody listens."""

import socket

import pytest
import trio

from control.node.notify import Notifier


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.settimeout(5)
        yield listening


def test_each_word_is_a_datagram_of_assignments(manager, tmp_path):
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "s")})
    notifier.ready("node a:\n engine")
    notifier.reloading(1.5)
    notifier.status("x" * 500)
    notifier.stopping()
    said = [manager.recv(4096).decode() for _ in range(4)]
    assert said[0] == "READY=1\nSTATUS=node a: engine"
    assert said[1] == "RELOADING=1\nMONOTONIC_USEC=1500000"
    assert said[2] == "STATUS=" + "x" * 200
    assert said[3] == "STOPPING=1"
    notifier.close()


def test_nobody_to_tell_is_no_error(tmp_path):
    for environ in ({}, {"NOTIFY_SOCKET": "relative"}, {"NOTIFY_SOCKET": str(tmp_path / "absent")}):
        notifier = Notifier(environ)
        notifier.ready()
        notifier.close()


def test_an_abstract_socket_is_meant_by_its_at_sign(tmp_path):
    name = f"emass-test-{tmp_path.name}-{id(tmp_path)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}"})
        notifier.ready()
        assert listening.recv(100) == b"READY=1"
        notifier.close()


def test_a_watchdog_that_is_meant_for_another_process_is_not_ours():
    assert Notifier({"WATCHDOG_USEC": "3000000"}, pid=5).watchdog_seconds == 3.0
    assert Notifier({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "5"}, pid=5).watchdog_seconds == 3.0
    assert Notifier({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "6"}, pid=5).watchdog_seconds is None
    assert Notifier({"WATCHDOG_USEC": "often"}, pid=5).watchdog_seconds is None
    assert Notifier({}, pid=5).watchdog_seconds is None


async def test_the_watchdog_hears_three_words_in_each_period(manager, tmp_path, autojump_clock):
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "s"), "WATCHDOG_USEC": "3000000"})
    with trio.move_on_after(6.5):
        await notifier.watch()
    manager.setblocking(False)
    assert [manager.recv(100) for _ in range(7)] == [b"WATCHDOG=1"] * 7
    with pytest.raises(BlockingIOError):
        manager.recv(100)
    notifier.close()


async def test_without_a_watchdog_watching_is_over_at_once():
    await Notifier({}).watch()
