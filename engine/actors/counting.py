"""What this engine's spool counts for one campaign: who coordinates a job holds it against our events.

The answer has every state that a report has, so that it adds up by itself. Touches the spool (reads).
"""

from typing import Any

from engine.actors.parts import Parts
from engine.actors.requests import Act, Peer, Request
from engine.mta.spool.api import StateCounts

STATES = tuple(StateCounts.__struct_fields__)


def acts(parts: Parts, peer: Peer) -> dict[str, Act]:
    """The act of this file by name."""

    async def counts(request: Request) -> dict[str, Any]:
        told = parts.spool.counts(request.campaign)
        return {state: getattr(told, state) for state in STATES} | {"deferred": told.deferred}

    return {"counts": counts}
