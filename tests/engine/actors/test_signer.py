"""Real signer processes, killed, stopped and misconfigured: every digest gets its signature all the same."""

import hashlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import structlog
import trio

from engine.actors import signer as signer_module
from engine.actors.messages import Bell, Sign, SignSlot
from engine.actors.signer import SigningKeyUnknown, SigningKeyUnusable, signers
from engine.keyring import load_dkim_key
from engine.runtime.child import ChildState
from engine.runtime.crash import leaves_of
from engine.runtime.spec import ChildSpec, SupervisorSpec
from engine.runtime.supervisor import SupervisorGaveUp, Tree
from tests.fakes.engine_house import Desk, memory_parts, until, weak_key
from tests.fakes.trees import Crashes, run_to_the_end

pytestmark = pytest.mark.slow  # real sockets and processes on the real clock: seconds


class House:
    """Signers over `count` processes with one weak key."""

    def __init__(self, folder: Path, count: int, **keys: str) -> None:
        self.key = folder / "test.pem"
        weak_key(self.key)
        self.parts = memory_parts(signers=count)
        self.parts.dkim_keys = {"test": str(self.key)} | keys
        self.desk = Desk()
        self.crashes = Crashes()
        spec = ChildSpec("signers", signers(self.parts), mailbox_capacity=4_096)
        self.tree = Tree(SupervisorSpec("root", (spec,)), on_crash=self.crashes)
        self.ref = self.tree.ref("signers")
        self.before = set(processes())

    @property
    def pids(self) -> set[int]:
        return set(processes()) - self.before

    async def order(self, count: int, *, key: str = "test", at_a_time: int = 4) -> list[SignSlot]:
        slots = [SignSlot([(key, digest(n))], self.desk.peer("c")) for n in range(count)]
        for start in range(0, count, at_a_time):
            await self.ref.tell(Sign(slots[start : start + at_a_time]))
        return slots

    async def signed(self, slots: list[SignSlot]) -> None:
        """Wait for all, and look at each."""
        await until(lambda: not any(slot.missing for slot in slots))
        public = load_dkim_key(self.key)
        for number, slot in enumerate(slots):
            for signature in slot.signatures:
                public.verify(digest(number), signature)


def digest(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def processes() -> list[int]:
    """Signer processes of this one."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            command = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if b"engine.actors.signer_process" in command and parent == os.getpid():
                found.append(int(entry.name))
    return found


@asynccontextmanager
async def running(folder: Path, count: int = 1) -> AsyncIterator[House]:
    house = House(folder, count)
    with structlog.testing.capture_logs():
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: house.tree.run(task_status=task_status))
            yield house
            house.tree.stop()
    assert not house.pids


async def test_digests_become_signatures_and_each_connection_is_rung(tmp_path: Path) -> None:
    async with running(tmp_path, 2) as house:
        assert len(house.pids) == 2
        slots = await house.order(100)
        slots.append(SignSlot([("test", digest(100)), ("test", digest(100))], house.desk.peer("c")))
        await house.ref.tell(Sign(slots[-1:]))
        await house.signed(slots)
        assert len(house.desk.take("c", Bell)) == 101


async def test_killed_processes_are_replaced_and_every_open_request_is_answered(tmp_path: Path) -> None:
    async with running(tmp_path, 2) as house:
        slots = []
        for _ in range(3):
            slots = await house.order(300, at_a_time=100)
            victims = house.pids
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            await house.signed(slots)
            await until(lambda gone=victims: len(house.pids - gone) == 2)  # type: ignore[misc]
        assert not house.crashes.names


async def test_a_silent_process_is_killed_and_its_requests_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signer_module, "SILENCE_SECONDS", 0.3)
    async with running(tmp_path) as house:
        await trio.sleep(0.5)
        (pid,) = house.pids
        await house.signed(await house.order(1))
        assert house.pids == {pid}, "silence is nothing while nobody asks"
        os.kill(pid, signal.SIGSTOP)
        await house.signed(await house.order(40))
        assert pid not in house.pids
        assert not house.crashes.names


async def test_a_key_that_cannot_be_used_is_a_clear_failure_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    house = House(tmp_path, 1, other=str(tmp_path / "absent.pem"))
    with trio.fail_after(20):
        error = await run_to_the_end(house.tree)
    assert isinstance(error, SupervisorGaveUp)
    assert isinstance(error.__cause__, Exception)
    assert [type(leaf) for leaf in leaves_of(error.__cause__)] == [SigningKeyUnusable]
    assert str(tmp_path / "absent.pem") in capfd.readouterr().err


async def test_processes_that_die_for_ever_are_the_actor_s_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signer_module, "DEATHS_MAX", 1)
    async with running(tmp_path) as house:
        for _ in range(2):
            await until(lambda: bool(house.pids))
            (pid,) = house.pids
            os.kill(pid, signal.SIGKILL)
            await until(lambda gone=pid: gone not in house.pids)  # type: ignore[misc]
        await until(lambda: bool(house.crashes.names))
        await until(lambda: house.tree.child_statistics("signers").state is ChildState.RUNNING)
        await house.signed(await house.order(5))


async def test_a_key_that_nobody_configured_is_a_bug(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        await house.order(1, key="unknown")
        await until(lambda: bool(house.crashes.errors))
        assert [type(leaf) for leaf in leaves_of(house.crashes.errors[0])] == [SigningKeyUnknown]
        await until(lambda: house.tree.child_statistics("signers").state is ChildState.RUNNING)
        await house.signed(await house.order(5))


async def test_without_keys_there_are_no_processes(tmp_path: Path) -> None:
    house = House(tmp_path, 4)
    house.parts.dkim_keys = {}
    spec = ChildSpec("signers", signers(house.parts))
    tree = Tree(SupervisorSpec("root", (spec,)))
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: tree.run(task_status=task_status))
        assert not house.pids
        tree.stop()
