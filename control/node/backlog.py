"""What waits at this node: messages in the engine's queue, chunks on the bus that it has not taken.

The engine is asked over the node's own bus. Chunks on a local bus are counted where they lie, engine or not;
on other buses their coordinator knows. None stands for what nobody could say.
"""

from pathlib import Path
from typing import Any

from msgspec import Struct

from control.job.roster import INTAKE
from control.node.engine_line import ask_engine, visit
from engine.config import BusKind, Config
from engine.storage import StorageError

SINGLE = ".single"


class Backlog(Struct, frozen=True):
    """Counts; `closed` says why the engine takes no new work, empty when it does or is not there."""

    queued: int | None = None
    held: int | None = None
    on_the_wire: int | None = None
    chunks_pending: int | None = None
    closed: str = ""
    draining: bool = False
    bus_online: bool | None = None  # for the engine


async def read_backlog(config: Config, seconds: float) -> Backlog:
    """How much waits; asks the engine for `seconds` at most."""
    data = Path(config.node.data)
    told: dict[str, Any] = await ask_engine(data, config.node.name, {"command": "waiting"}, seconds) or {}
    return Backlog(
        queued=told.get("queued"),
        held=told.get("held"),
        on_the_wire=told.get("on_the_wire"),
        chunks_pending=await _chunks(config),
        closed=told.get("closed", ""),
        draining=told.get("draining", False),
        bus_online=told.get("bus_online"),
    )


async def _chunks(config: Config) -> int | None:
    if config.bus.kind is not BusKind.LOCAL:
        return None
    folder = Path(config.bus.folder) if config.bus.folder else Path(config.node.data) / "bus"
    stream = f"chunks.{config.node.name}"
    async with visit(folder) as bus:
        try:
            return None if bus is None else bus.waiting(stream, INTAKE) + bus.waiting(stream + SINGLE, INTAKE)
        except StorageError:  # a member that was removed at this moment
            return None
