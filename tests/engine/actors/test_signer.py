"""Real signer processes, killed, stopped and misconfigured: every digest gets its signature all the same."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from engine.actors import signer as signer_module
from engine.actors.dkim_keys import DkimKeys
from engine.actors.messages import Bell, Sign, SignSlot
from engine.actors.signer import SigningKeyUnusable, signers
from engine.keyring import load_dkim_key
from engine.runtime.child import ChildState
from engine.runtime.crash import leaves_of
from engine.runtime.spec import ChildSpec, SupervisorSpec
from engine.runtime.supervisor import SupervisorGaveUp, Tree
from engine.sealing import create_box, dkim_bound, rotate_box, seal
from tests.fakes.engine_house import Desk, memory_parts, until, weak_key
from tests.fakes.trees import Crashes, run_to_the_end

pytestmark = pytest.mark.slow  # real sockets and processes on the real clock: seconds


class House:
    """Signers over `count` processes with one weak key."""

    def __init__(
        self,
        folder: Path,
        count: int,
        *,
        sealed: bool = False,
        user: tuple[int, int] | None = None,
        **keys: str,
    ) -> None:
        self.key = folder / "test.pem"
        weak_key(self.key)
        self.parts = memory_parts(signers=count)
        self.public = b""
        if sealed:
            self.box = folder / "signer.box"
            self.public = create_box(self.box, user)
            self.keys = DkimKeys(keys, str(self.box), user)
        else:
            self.keys = DkimKeys({"test": str(self.key)} | keys, user=user)
        self.parts.dkim_keys = self.keys
        self.desk = Desk()
        self.crashes = Crashes()
        spec = ChildSpec("signers", signers(self.parts), mailbox_capacity=4_096)
        self.tree = Tree(SupervisorSpec("root", (spec,)), on_crash=self.crashes)
        self.ref = self.tree.ref("signers")
        self.before = set(processes())

    @property
    def pids(self) -> set[int]:
        return set(processes()) - self.before

    def sealed(self, name: str = "test", node: str = "node", public: bytes = b"") -> bytes:
        return seal(public or self.public, self.key.read_bytes(), dkim_bound(node, name))

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


def flipped(sealed: bytes) -> bytes:
    return sealed[:-1] + bytes((sealed[-1] ^ 1,))


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
async def running(folder: Path, count: int = 1, **facts: Any) -> AsyncIterator[House]:
    house = House(folder, count, **facts)
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
            await until(lambda gone=victims: len(house.pids - gone) == 2)
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
            await until(lambda gone=pid: gone not in house.pids)
        await until(lambda: bool(house.crashes.names))
        await until(lambda: house.tree.child_statistics("signers").state is ChildState.RUNNING)
        await house.signed(await house.order(5))


async def test_a_digest_without_a_key_is_refused_after_a_while_and_nothing_crashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signer_module, "KEY_SECONDS", 0.3)
    monkeypatch.setattr(signer_module, "LOOK_SECONDS", 0.1)
    async with running(tmp_path) as house:
        keyless = await house.order(3, key="unknown")
        await house.signed(await house.order(5))
        await until(lambda: not any(slot.missing for slot in keyless))
        assert all(slot.refused for slot in keyless)
        assert len(house.desk.take("c", Bell)) == 8
        assert not house.crashes.names


async def test_without_keys_there_are_no_processes(tmp_path: Path) -> None:
    house = House(tmp_path, 4)
    house.parts.dkim_keys = DkimKeys()
    spec = ChildSpec("signers", signers(house.parts))
    tree = Tree(SupervisorSpec("root", (spec,)))
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: tree.run(task_status=task_status))
        assert not house.pids
        tree.stop()


# --- sealed keys ------------------------------------------------------------------------------------------


async def test_a_sealed_key_that_comes_while_its_digests_wait_signs_them(tmp_path: Path) -> None:
    async with running(tmp_path, 2, sealed=True) as house:
        assert house.keys.publics == (house.public,)
        slots = await house.order(40)
        await trio.sleep(0.1)
        assert all(slot.missing for slot in slots)
        assert "test" not in house.keys
        house.keys.put("test", house.sealed())
        await house.signed(slots)
        assert "test" in house.keys


async def test_killed_processes_get_sealed_keys_again_and_open_requests_are_sent_again(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, 2, sealed=True) as house:
        house.keys.put("test", house.sealed())
        for _ in range(3):
            slots = await house.order(300, at_a_time=100)
            victims = house.pids
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            await house.signed(slots)
            await until(lambda gone=victims: len(house.pids - gone) == 2)
        assert not house.crashes.names


async def test_a_key_that_does_not_open_is_told_and_the_one_before_it_signs_on(tmp_path: Path) -> None:
    foreign = create_box(tmp_path / "foreign.box")
    async with running(tmp_path, sealed=True) as house:
        house.keys.put("test", house.sealed())
        await house.signed(await house.order(3))
        for bad, problem in (
            (house.sealed("other"), "sealed for something else"),
            (house.sealed(node="b"), "sealed for something else"),
            (house.sealed(public=foreign), "not here"),
            (flipped(house.sealed()), "damaged"),
        ):
            house.keys.put("test", bad)
            await until(lambda said=problem: said in house.keys.trouble.get("test", ""))
            await house.signed(await house.order(3))
        house.keys.put("test", house.sealed())
        await until(lambda: not house.keys.trouble)


async def test_a_key_that_is_taken_away_signs_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signer_module, "KEY_SECONDS", 0.2)
    monkeypatch.setattr(signer_module, "LOOK_SECONDS", 0.1)
    async with running(tmp_path, sealed=True) as house:
        house.keys.put("test", house.sealed())
        await house.signed(await house.order(3))
        house.keys.remove("test")
        house.keys.put("later", house.sealed("later"))  # takes over the number
        slots = await house.order(3)
        await until(lambda: not any(slot.missing for slot in slots))
        assert all(slot.refused for slot in slots)
        await house.signed(await house.order(3, key="later"))


async def test_a_replaced_box_is_read_while_mail_is_signed(tmp_path: Path) -> None:
    async with running(tmp_path, 2, sealed=True) as house:
        house.keys.put("test", house.sealed())
        slots = await house.order(200, at_a_time=100)
        before = house.pids
        public = rotate_box(house.box)
        house.keys.renew()
        slots += await house.order(200, at_a_time=100)
        await until(lambda: not any(slot.missing for slot in slots))
        await until(lambda: house.keys.publics == (public, house.public))
        await until(lambda: len(house.pids) == 2 and not house.pids & before)
        house.keys.put("test", house.sealed(public=public))
        await house.signed(await house.order(5))
        await until(lambda: house.keys.opened["test"] == house.keys.sealed["test"])
        assert not house.crashes.names


async def test_a_box_that_others_may_read_is_a_clear_failure_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    house = House(tmp_path, 1, sealed=True)
    house.box.chmod(0o644)
    with trio.fail_after(20):
        error = await run_to_the_end(house.tree)
    assert isinstance(error, SupervisorGaveUp)
    assert f"{house.box}: others may read this key" in capfd.readouterr().err


# --- a user of their own ------------------------------------------------------------------------------------

STRANGER = (54_321, 54_321)


@pytest.fixture
def python_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that another user may run, with this one's libraries."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a process as somebody else")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    for candidate in (sys.executable, "/usr/bin/python3"):
        tried = (
            subprocess.run(
                [candidate, "-c", "import engine.actors.signer_process"],
                user=STRANGER[0],
                group=STRANGER[1],
                extra_groups=[],
                cwd="/",
                capture_output=True,
                check=False,
            )
            if os.access(candidate, os.X_OK) and _all_may(Path(candidate))
            else None
        )
        if tried is not None and not tried.returncode:
            monkeypatch.setattr(sys, "executable", candidate)
            return
    pytest.skip("no Python here that every user may run and that has our libraries")


def _all_may(path: Path) -> bool:
    return all(place.stat().st_mode & 0o001 for place in (path.resolve(), *path.resolve().parents))


@pytest.mark.usefixtures("python_for_all")
async def test_signers_run_as_their_own_user_with_files_that_root_opened(tmp_path: Path) -> None:
    plain = tmp_path / "plain.pem"
    weak_key(plain)
    async with running(tmp_path, sealed=True, user=STRANGER, plain=str(plain)) as house:
        house.keys.put("test", house.sealed())
        await house.signed(await house.order(20))
        (pid,) = house.pids
        status = Path(f"/proc/{pid}/status").read_text()
        assert "Uid:\t54321\t54321\t54321\t54321" in status
        assert "Gid:\t54321\t54321\t54321\t54321" in status
        assert "Groups:\t \n" in status
        slots = await house.order(1, key="plain")
        await until(lambda: not slots[0].missing)
        load_dkim_key(plain).verify(digest(0), slots[0].signatures[0])
        assert house.box.stat().st_uid == STRANGER[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as somebody else")
async def test_a_user_that_cannot_run_python_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "python"
    mine.symlink_to(sys.executable)
    tmp_path.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(mine))
    house = House(tmp_path, 1, user=STRANGER)
    with trio.fail_after(20):
        error = await run_to_the_end(house.tree)
    assert isinstance(error, SupervisorGaveUp)
    (leaf,) = leaves_of(error.__cause__ or error)
    assert isinstance(leaf, SigningKeyUnusable)
    assert "cannot be started as user" in str(leaf)
