"""Writing the counts of TLS sessions to the bus, by the minute (`tls_keeping`) or because a command asks.

A disk that is full costs nothing but the log line: the counts stay in memory and are written later.
Touches: the bus table.
"""

from typing import Any

import structlog

from engine.actors.parts import Parts
from engine.actors.requests import Act, Peer, Request
from engine.bus.api import BusFull
from engine.runtime.crash import leaf_of
from engine.storage import StorageError

log = structlog.get_logger("tls_results")


async def write_counts(parts: Parts) -> None:
    """Write what changed; trouble is for the log."""
    try:
        await parts.tls_results.flush()
    except* (StorageError, BusFull) as errors:
        log.warning("counts of TLS sessions are not written yet", why=str(leaf_of(errors)))


def acts(parts: Parts, peer: Peer) -> dict[str, Act]:
    """`tls`: write what is counted, so that the asker finds it; and how sessions resume."""

    async def tls(request: Request) -> dict[str, Any]:
        await write_counts(parts)
        sessions = parts.tls_sessions
        return {"kept": len(sessions), "offered": sessions.taken, "resumed": sessions.resumed}

    return {"tls": tls}
