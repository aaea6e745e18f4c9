"""DKIM signatures from signer processes, which alone hold the private keys.

Takes digests from connections in batches, spreads them over the processes in frames, puts signatures
into the slots, which ring their connections. When a process dies, its open requests are sent again
(signing is deterministic with RSA and Ed25519 alike) and a new process is started; one that is silent
for SILENCE_SECONDS is killed and treated alike. Too many deaths in a row are a crash of this actor:
then the supervisor decides. Touches: child processes, no keys.
"""

from collections import deque
from typing import Any

import structlog
import trio

from engine.actors.messages import Bell, Sign, SignSlot
from engine.actors.parts import Parts
from engine.actors.signing_frames import KEYS_REFUSED, LENGTH, REQUEST
from engine.runtime.crash import leaves_of
from engine.runtime.mailbox import MailboxClosed
from engine.runtime.process import ChildProcess, ProcessDied
from engine.runtime.spec import Context, Start

ITEMS_PER_FRAME = 16  # RSA-2048 takes 0.7 ms each: a frame is 11 ms of one core
FRAMES_PER_PROCESS = 3  # one being signed, one waiting in the pipe, one on its way back
SILENCE_SECONDS = 5.0  # architecture 9: a signer silent this long is killed
DEATHS_MAX = 5  # in a row without one signature between: the machine or the keys are broken

log = structlog.get_logger("signers")

Item = tuple[SignSlot, int]  # slot, index of the digest


class SigningKeyUnusable(Exception):
    """A key file is missing, unreadable or no key: another process would not do better."""


class SigningKeyUnknown(Exception):
    """A content names a key that the configuration does not have: refused before, so a bug here."""


def signers(parts: Parts) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        await Signers(parts, context).live(task_status)

    return start


class Signers:
    """One incarnation, with its processes."""

    def __init__(self, parts: Parts, context: Context[Any]) -> None:
        self._mailbox = context.mailbox
        self._numbers = {name: number for number, name in enumerate(parts.dkim_keys)}
        self._arguments = [f"{name}={path}" for name, path in parts.dkim_keys.items()]
        self._count = parts.config.engine.signers if parts.dkim_keys else 0
        self._waiting: deque[Item] = deque()
        parts.to_sign = self._waiting
        self._work = trio.Event()
        self._deaths = 0
        self.pids: list[int] = []
        self.signed = 0

    def __repr__(self) -> str:
        return f"<Signers: {len(self.pids)} processes, {len(self._waiting)} waiting, {self.signed} signed>"

    async def live(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(self._count):
                await nursery.start(self._keep_running, number)
            task_status.started()
            try:
                while True:
                    for message in await self._mailbox.get_batch(256):
                        self._take(message)
                    self._work.set()
            except MailboxClosed:
                nursery.cancel_scope.cancel()

    def _take(self, message: object) -> None:
        match message:
            case Sign():
                for slot in message.slots:
                    for index, (key, _) in enumerate(slot.digests):
                        if key not in self._numbers:
                            raise SigningKeyUnknown(key)
                        self._waiting.append((slot, index))
            case Bell():
                pass
            case _:
                raise AssertionError(f"the signers got {message!r}")

    async def _keep_running(
        self, number: int, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """One process after the other, for ever."""
        told = False
        while True:
            out: deque[list[Item]] = deque()
            try:
                async with ChildProcess.open("engine.actors.signer_process", *self._arguments) as process:
                    hello = await process.receive_many()  # after its self-test
                    assert hello == [b"ready"], "the signer process speaks another language"
                    self.pids.append(process.pid)
                    if not told:  # a process that replaces another finds the actor ready for long
                        told = True
                        task_status.started()
                    try:
                        await self._converse(process, out)
                    finally:
                        self.pids.remove(process.pid)
            except* (ProcessDied, trio.BrokenResourceError) as group:
                died = group
                self._deaths += 1
                if any(getattr(leaf, "returncode", None) == KEYS_REFUSED for leaf in leaves_of(group)):
                    raise SigningKeyUnusable("a signer process cannot use a key: stderr says which") from None
                again = [item for frame in out for item in frame]
                self._waiting.extendleft(reversed(again))
                log.warning("a signer process died", number=number, again=len(again))
                if self._deaths > DEATHS_MAX:
                    raise died.exceptions[0] from None
                self._work.set()

    async def _converse(self, process: ChildProcess, out: deque[list[Item]]) -> None:
        room = trio.Event()
        asked_at = 0.0  # when the oldest frame that is out became the oldest

        async def write() -> None:
            nonlocal room, asked_at
            while True:
                if len(out) >= FRAMES_PER_PROCESS:
                    room = trio.Event()
                    await room.wait()
                    continue
                if not self._waiting:
                    self._work = trio.Event() if self._work.is_set() else self._work
                    await self._work.wait()
                    continue
                items = [self._waiting.popleft() for _ in range(min(ITEMS_PER_FRAME, len(self._waiting)))]
                if not out:
                    asked_at = trio.current_time()
                out.append(items)
                frame = b"".join(
                    REQUEST.pack(self._numbers[slot.digests[index][0]], slot.digests[index][1])
                    for slot, index in items
                )
                await process.send(frame)

        async def read() -> None:
            nonlocal asked_at
            while True:
                frames: list[bytes] = []
                since = asked_at if out else trio.current_time()
                with trio.move_on_at(since + SILENCE_SECONDS):
                    frames = await process.receive_many()
                if not frames:
                    if out and trio.current_time() >= asked_at + SILENCE_SECONDS:
                        process.kill()  # the next read says ProcessDied
                        asked_at = trio.current_time()
                    continue
                for frame in frames:
                    position = 0
                    for slot, index in out.popleft():
                        (length,) = LENGTH.unpack_from(frame, position)
                        position += LENGTH.size
                        slot.put(index, frame[position : position + length])
                        position += length
                        self.signed += 1
                self._deaths = 0
                asked_at = trio.current_time()
                room.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            nursery.start_soon(read)
