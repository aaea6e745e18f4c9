"""A child process as part of an actor: frames over its stdin and stdout, dead at the latest with the actor.

Started by exec, never fork (a forked trio process shares its parent's sockets, locks and memory); stderr is
inherited. The child exits when its stdin closes, so a parent that was killed leaves no orphan. Polite stop:
close its stdin, read away what it still says, wait; firm: SIGKILL. When the process dies unasked, `frames`
and `send` raise `ProcessDied`: the actor crashes with it and its supervisor starts both again.

The child's side is `frame_server`: synchronous, for work that fills a core.
"""

import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio

from engine.runtime.frame_server import serve_frames, write_whole
from engine.runtime.frames import FRAME_BYTES_MAX, READ_BYTES, FrameBuffer, encode_frame, encode_frames

__all__ = ["ChildProcess", "Frames", "ProcessDied", "encode_frame", "serve_frames", "write_whole"]

SHUTDOWN_SECONDS_DEFAULT = 5.0
DEATH_SECONDS = 1.0  # a child whose pipe has closed is given this long to be gone by itself


class ProcessDied(Exception):
    """The process is gone or unusable. `returncode`: as in `subprocess`, minus the signal when killed."""

    def __init__(self, name: str, returncode: int | None) -> None:
        super().__init__(f"process {name} died with return code {returncode}")
        self.returncode = returncode


class ChildProcess:
    """A running child process. Any task may send; one task reads."""

    def __init__(self, name: str, process: trio.Process, frame_bytes_max: int) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.name = name
        self.frames_sent = 0
        self.frames_received = 0
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._frame_bytes_max = frame_bytes_max
        self._buffer = FrameBuffer(frame_bytes_max)
        self._writing = trio.StrictFIFOLock()
        self._closing = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        module: str,
        *arguments: str,
        shutdown_seconds: float = SHUTDOWN_SECONDS_DEFAULT,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        environment: dict[str, str] | None = None,
        user: tuple[int, int] | None = None,
        descriptors: Sequence[int] = (),
    ) -> AsyncIterator["ChildProcess"]:
        """Run `python -m module arguments` and talk to it inside the block.

        `user` is (uid, gid) of who it runs as, without further groups; only root may say so. It inherits
        `descriptors` under their numbers; the caller closes its own. OSError when it cannot be started.
        Leaving the block stops it politely, then firmly after `shutdown_seconds`; leaving it cancelled
        stops it firmly at once. Either way the process is gone and reaped afterwards.
        """
        identity: dict[str, Any] = {}
        if user is not None:
            identity = {"user": user[0], "group": user[1], "extra_groups": []}
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            pass_fds=tuple(descriptors),
            **identity,
            process_group=0,  # Ctrl-C at a terminal is for the parent, which stops its children in order
        )
        child = cls(module, process, frame_bytes_max)
        try:
            yield child
        finally:
            try:
                with trio.move_on_after(shutdown_seconds):
                    await child._stop_politely()
            finally:
                with trio.CancelScope(shield=True):
                    await child._stop_firmly()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._process.returncode

    async def send(self, frame: bytes) -> None:
        """Write one frame; waits while the pipe is full. Raises ProcessDied, FrameTooLarge."""
        await self._write(encode_frame(frame, self._frame_bytes_max), 1)

    async def send_many(self, frames: Iterable[bytes]) -> None:
        """Write several frames in one piece. Raises ProcessDied, FrameTooLarge."""
        frames = list(frames)
        await self._write(encode_frames(frames, self._frame_bytes_max), len(frames))

    async def receive_many(self) -> list[bytes]:
        """All frames that the next reads complete, at least one; empty after the process's clean end.

        Raises ProcessDied when the process ended unasked or badly, FrameTooLarge.
        """
        while True:
            piece = await self._stdout.receive_some(READ_BYTES)
            if not piece:
                await self._until_dead()
                if self._closing and self.returncode == 0 and not self._buffer.torn:
                    return []
                raise ProcessDied(self.name, self.returncode)
            frames = self._buffer.feed(piece)
            if frames:
                self.frames_received += len(frames)
                return frames

    def frames(self) -> "Frames":
        """`async for`: the frames one by one, until `close_input` has ended it. Raises as `receive_many`."""
        return Frames(self)

    async def close_input(self) -> None:
        """The polite word: no more frames come. The process answers what it has and exits."""
        async with self._writing:  # a frame on its way goes out whole
            self._closing = True
            await self._stdin.aclose()

    def kill(self) -> None:
        """SIGKILL. `frames` and `send` raise ProcessDied."""
        self._process.kill()

    async def _write(self, piece: bytes, count: int) -> None:
        async with self._writing:
            if self._closing:
                raise ProcessDied(self.name, self.returncode)
            whole = False
            try:
                await self._stdin.send_all(piece)
                whole = True
            except (trio.BrokenResourceError, trio.ClosedResourceError) as broken:
                await self._until_dead()
                raise ProcessDied(self.name, self.returncode) from broken
            finally:
                # A write that was cancelled half-way leaves a torn frame in the pipe: nothing behind it
                # could be understood, so the process is of no more use.
                if not whole:
                    self.kill()
        self.frames_sent += count

    async def _until_dead(self) -> None:
        with trio.move_on_after(DEATH_SECONDS):
            await self._process.wait()
        if self._process.returncode is None:
            self.kill()
            await self._process.wait()

    async def _stop_politely(self) -> None:
        await self.close_input()
        # A child that blocks on a full stdout would never see that its stdin has closed.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            while await self._stdout.receive_some(READ_BYTES):
                pass
        await self._process.wait()

    async def _stop_firmly(self) -> None:
        if self._process.returncode is None:
            self.kill()
            await self._process.wait()
        await self._stdin.aclose()
        await self._stdout.aclose()

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else f"ended with {self.returncode}"
        return (
            f"<ChildProcess {self.name} pid {self.pid}: {state}, "
            f"{self.frames_sent} sent, {self.frames_received} received>"
        )


class Frames:
    """The async iterator of `ChildProcess.frames`."""

    __slots__ = ("_batch", "_process")

    def __init__(self, process: ChildProcess) -> None:
        self._process = process
        self._batch: deque[bytes] = deque()

    def __aiter__(self) -> "Frames":
        return self

    async def __anext__(self) -> bytes:
        if not self._batch:
            self._batch.extend(await self._process.receive_many())
            if not self._batch:
                raise StopAsyncIteration
        return self._batch.popleft()
