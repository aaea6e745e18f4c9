"""Answers questions from outside (`emass queue show`): what the engine is doing right now.

Serves the bus subject `engine.<node>`. A request names what is wanted; the answer is JSON. Unknown
requests get an error in the answer, never a crash. Touches: bus; reads statistics of the tree.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import structlog
import trio
from msgspec import Struct

from engine.actors.parts import Parts
from engine.runtime.child import SupervisorStatistics
from engine.runtime.spec import Context, Start

log = structlog.get_logger("commands")


class Request(Struct, frozen=True):
    command: str


def commands(parts: Parts, statistics: Callable[[], SupervisorStatistics]) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        questions = parts.bus.serve(f"engine.{parts.config.node.name}")
        task_status.started()

        async def serve() -> None:
            while True:
                for question in await questions.receive(16):
                    await question.answer(reply_to(parts, statistics, question.payload))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await context.stop.wait()
            nursery.cancel_scope.cancel()

    return start


def reply_to(parts: Parts, statistics: Callable[[], SupervisorStatistics], payload: bytes) -> bytes:
    """The JSON answer to one request."""
    try:
        request = msgspec.json.decode(payload, type=Request)
    except msgspec.MsgspecError as error:
        return msgspec.json.encode({"error": f"the request does not decode: {error}"})
    if request.command != "show":
        return msgspec.json.encode({"error": f"unknown command {request.command[:40]!r}"})
    return msgspec.json.encode(
        {
            "sites": [
                {
                    "path": key,
                    "suspended_seconds": max(0.0, memory.suspended_until - trio.current_time()),
                    "failures": memory.failures,
                    "served": memory.verdict.served,
                    "pipelining": memory.verdict.inside.value,
                    "across": memory.verdict.across.value,
                    "chunking": memory.verdict.chunking.value,
                }
                for key, memory in parts.memory.items()
            ],
            "connections": len(parts.connections),
            "actors": statistics(),
        }
    )
