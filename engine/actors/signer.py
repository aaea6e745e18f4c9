"""DKIM signatures from signer processes, which alone hold the private keys.

Takes digests from connections in batches, spreads them over the processes in frames, puts signatures
into the slots, which ring their connections. When a process dies, its open requests are sent again
(signing is deterministic with RSA and Ed25519 alike) and a new process is started; one that is silent
for SILENCE_SECONDS is killed and treated alike. Too many deaths in a row are a crash of this actor:
then the supervisor decides. Sealed keys are handed to each process before what is asked of it next, and
again to one that replaces another. A digest whose key is not here waits for a while, then its message goes
back to the queue. Touches: child processes and the key files that they inherit, opened and not read.
"""

import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
import trio

from engine.actors.dkim_keys import DkimKeys
from engine.actors.messages import Bell, Sign, SignSlot
from engine.actors.parts import Parts
from engine.actors.signing_frames import KEYS_REFUSED, LENGTH, READY, REQUEST, add_key, remove_key
from engine.runtime.crash import leaf_of, leaves_of
from engine.runtime.mailbox import MailboxClosed
from engine.runtime.process import ChildProcess, ProcessDied
from engine.runtime.spec import Context, Start
from engine.sealing import PUBLIC_OCTETS, dkim_bound, former_of

ITEMS_PER_FRAME = 16  # RSA-2048 takes 0.7 ms each: a frame is 11 ms of one core
FRAMES_PER_PROCESS = 3  # one being signed, one waiting in the pipe, one on its way back
SILENCE_SECONDS = 5.0  # architecture 9: a signer silent this long is killed
MODULE = "engine.actors.signer_process"
KEY_SECONDS = 5.0  # a digest waits so long for its key; then its message goes back, so that others go on
LOOK_SECONDS = 1.0
DEATHS_MAX = 5  # in a row without one signature between: the machine or the keys are broken

log = structlog.get_logger("signers")

Item = tuple[SignSlot, int]  # slot, index of the digest
Change = tuple[str, bytes]  # name and sealed octets of a key that a process was given; b"" = taken away


class SigningKeyUnusable(Exception):
    """A key file is missing, unreadable or no key: another process would not do better."""


def signers(parts: Parts) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        await Signers(parts, context).live(task_status)

    return start


class Signers:
    """One incarnation, with its processes."""

    def __init__(self, parts: Parts, context: Context[Any]) -> None:
        self._mailbox = context.mailbox
        self._keys = parts.dkim_keys
        self._node = parts.config.node.name
        self._count = parts.config.engine.signers if self._keys.wanted else 0
        self._waiting: deque[Item] = deque()
        self._keyless: deque[tuple[float, Item]] = deque()  # digests without a key here, and until when
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
            nursery.start_soon(self._follow_keys)
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
                    for index in range(len(slot.digests)):
                        self._waiting.append((slot, index))
            case Bell():
                pass
            case _:
                raise AssertionError(f"the signers got {message!r}")

    async def _follow_keys(self) -> None:
        """Wake the processes for changes of keys, and see to the digests whose key is not here."""
        while True:
            with trio.move_on_after(LOOK_SECONDS):
                await self._keys.changed()
                self._work.set()
            for _ in range(len(self._keyless)):
                end, item = self._keyless.popleft()
                slot, index = item
                if self._keys.knows(slot.digests[index][0]):
                    self._waiting.append(item)
                    self._work.set()
                elif end <= trio.current_time():
                    slot.refuse(index)
                else:
                    self._keyless.append((end, item))

    def _set_aside(self, item: Item) -> None:
        self._keyless.append((trio.current_time() + KEY_SECONDS, item))

    async def _keep_running(
        self, number: int, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """One process after the other, for ever."""
        told = False
        while True:
            out: deque[list[Item] | Change] = deque()
            try:
                generation = self._keys.generation
                async with self._process() as process:
                    hello = await process.receive_many()  # after its self-test
                    assert hello[0].startswith(READY), "the signer process speaks another language"
                    self._keys.told(_cut(hello[0][len(READY) :], PUBLIC_OCTETS))
                    self.pids.append(process.pid)
                    if not told:  # a process that replaces another finds the actor ready for long
                        told = True
                        task_status.started()
                    try:
                        await self._converse(process, out, generation)
                    finally:
                        self.pids.remove(process.pid)
            except* (ProcessDied, trio.BrokenResourceError) as group:
                died = group
                self._deaths += 1
                if any(getattr(leaf, "returncode", None) == KEYS_REFUSED for leaf in leaves_of(group)):
                    raise SigningKeyUnusable("a signer process cannot use a key: stderr says which") from None
                again = [item for frame in out if isinstance(frame, list) for item in frame]
                self._waiting.extendleft(reversed(again))
                log.warning("a signer process died", number=number, again=len(again))
                if self._deaths > DEATHS_MAX:
                    raise leaf_of(died) from None
                self._work.set()

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[ChildProcess]:
        """A fresh process; with a user of its own it inherits its key files, opened by us."""
        keys = self._keys
        arguments = [f"--key={path}" for path in keys.files.values()]
        if keys.box:
            arguments.append(f"--box={keys.box}")
        async with AsyncExitStack() as stack:
            with ExitStack() as opened:
                descriptors = []
                if keys.user is not None:
                    for descriptor in _opened(keys):
                        descriptors.append(descriptor)
                        opened.callback(os.close, descriptor)
                    arguments.append("--descriptors=" + ",".join(map(str, descriptors)))
                starting = ChildProcess.open(MODULE, *arguments, user=keys.user, descriptors=descriptors)
                try:
                    process = await stack.enter_async_context(starting)
                except OSError as error:
                    raise SigningKeyUnusable(
                        f"signer processes cannot be started as user {keys.user}: {error.strerror}"
                        f" (that user must be able to run {sys.executable})"
                    ) from error
            yield process

    async def _converse(
        self, process: ChildProcess, out: deque[list[Item] | Change], generation: int
    ) -> None:
        """Until the process dies, or has to read its files anew and has answered everything."""
        keys = self._keys
        version = -1
        given: dict[int, Change] = {}  # by number: what this process was told of sealed keys
        room = trio.Event()
        asked_at = 0.0  # when the oldest frame that is out became the oldest

        async def write() -> None:
            nonlocal room, asked_at, version
            while True:
                renewing = keys.generation != generation
                if len(out) >= FRAMES_PER_PROCESS or (renewing and out):
                    room = trio.Event()
                    await room.wait()
                    continue
                if renewing:
                    nursery.cancel_scope.cancel()
                    return
                if version != keys.version:
                    version = keys.version
                    for change, frame in self._changes(given):
                        if not out:
                            asked_at = trio.current_time()
                        out.append(change)
                        await process.send(frame)
                    continue
                if not self._waiting:
                    self._work = trio.Event() if self._work.is_set() else self._work
                    await self._work.wait()
                    continue
                items, requests = self._next_items()
                if not items:
                    continue
                if not out:
                    asked_at = trio.current_time()
                out.append(items)
                await process.send(b"".join(requests))

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
                    asked = out.popleft()
                    if isinstance(asked, tuple):
                        self._changed(asked, frame)
                        continue
                    position = 0
                    for slot, index in asked:
                        (length,) = LENGTH.unpack_from(frame, position)
                        position += LENGTH.size
                        if not length:
                            self._set_aside((slot, index))
                            continue
                        slot.put(index, frame[position : position + length])
                        position += length
                        self.signed += 1
                self._deaths = 0
                asked_at = trio.current_time()
                room.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            nursery.start_soon(read)

    def _next_items(self) -> tuple[list[Item], list[bytes]]:
        """Up to a frame of what waits, and its octets; without those whose key nobody has."""
        numbers, waiting = self._keys.numbers, self._waiting
        items: list[Item] = []
        requests: list[bytes] = []
        while waiting and len(items) < ITEMS_PER_FRAME:
            item = waiting.popleft()
            key, digest = item[0].digests[item[1]]
            number = numbers.get(key)
            if number is None:
                self._set_aside(item)
                continue
            items.append(item)
            requests.append(REQUEST.pack(number, digest))
        return items, requests

    def _changes(self, given: dict[int, Change]) -> Iterator[tuple[Change, bytes]]:
        """What a process is to be told, which was `given` this before; that is up to date then."""
        keys = self._keys
        wanted = {keys.numbers[name]: (name, sealed) for name, sealed in keys.sealed.items()}
        told: list[tuple[Change, bytes]] = []
        for number, (name, _) in given.items():
            if wanted.get(number, ("",))[0] != name:  # also before another's key: that one may not open
                told.append(((name, b""), remove_key(number)))
        for number, (name, sealed) in wanted.items():
            if given.get(number) != (name, sealed):
                told.append(((name, sealed), add_key(number, dkim_bound(self._node, name), sealed)))
        given.clear()
        given.update(wanted)
        return iter(told)

    def _changed(self, change: Change, answer: bytes) -> None:
        """A process has answered what it was told of a key."""
        name, sealed = change
        if not sealed or self._keys.sealed.get(name) != sealed:  # taken away, or replaced meanwhile
            return
        problem = answer.decode(errors="replace")
        if self._keys.was_opened(name, sealed, problem):
            if problem:
                log.error("a sealed DKIM key cannot be used", key=name, why=problem)
            else:
                log.info("a sealed DKIM key is here", key=name)


def _opened(keys: DkimKeys) -> Iterator[int]:
    """The files for a signer process, opened: box, former box if there is one, keys."""
    former = str(former_of(Path(keys.box))) if keys.box else ""
    for path in [*([keys.box, former] if keys.box else []), *keys.files.values()]:
        try:
            yield os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if path != former or not isinstance(error, FileNotFoundError):
                raise SigningKeyUnusable(f"{path}: cannot read the key: {error.strerror}") from error


def _cut(octets: bytes, size: int) -> list[bytes]:
    return [octets[start : start + size] for start in range(0, len(octets), size)]
