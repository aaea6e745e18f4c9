"""Asking this node's engine over the local bus, from another process.

A question costs one answer. Whether an engine runs is seen from the spool's lock first, so that nobody waits
for an answer that cannot come. Touches: the folder of the node's bus, where the asker is a member for a
moment and leaves nothing behind.
"""

import fcntl
import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from engine.bus.api import NoAnswer
from engine.bus.local import LocalBus
from engine.storage import StorageError

ASKER = "cli-"  # members of this name are askers: nobody asks them


async def ask_engine(data: Path, node: str, request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
    """What the engine over this data folder answers; None when none runs, or says nothing in time."""
    async with visit(data / "bus") as bus:
        if bus is None or not is_written(data / "spool"):
            return None
        try:
            answer = await bus.ask(f"engine.{node}", json.dumps(request).encode(), seconds)
        except NoAnswer:
            return None
    told: dict[str, Any] = json.loads(answer)
    return told


@asynccontextmanager
async def visit(folder: Path) -> AsyncIterator[LocalBus | None]:
    """Be on a node's bus for a moment; None where there is none, or no room for one more (a full disk)."""
    await trio.lowlevel.checkpoint()
    if not folder.is_dir():  # noqa: ASYNC240 - one look
        yield None
        return
    try:
        bus = LocalBus(folder, f"{ASKER}{os.getpid()}-{secrets.token_hex(4)}", temporary=True)
    except StorageError:
        yield None
        return
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(bus.run)
            yield bus
            bus.close()
    finally:
        bus.close_files()


def is_written(store: Path) -> bool:
    """Whether a process holds the writer's lock of a store."""
    try:
        lock = os.open(store / "writer.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
