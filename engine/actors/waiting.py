"""How much waits in this engine, for `emass status`: one answer that costs no walk over the queue.

`queued` are the envelopes whose end is open, `on_the_wire` those of them that are with a connection or being
settled, `closed` says why no new work is taken (empty: it is), `bus_online` whether the bus is there.
Touches nothing.
"""

from typing import Any

from engine.actors.parts import Parts
from engine.actors.requests import Act, Peer, Request


def acts(parts: Parts, peer: Peer) -> dict[str, Act]:
    """The act of this file by name."""

    async def waiting(request: Request) -> dict[str, Any]:
        counts = [parts.spool.counts(campaign) for campaign in parts.spool.campaigns()]
        return {
            "queued": sum(each.deferred for each in counts),
            "held": sum(each.ambiguous + each.quarantined for each in counts),
            "on_the_wire": parts.spool.open_leases() + len(parts.unsettled),
            "closed": parts.membership.closed,
            "draining": parts.stops.draining is not None,
            "bus_online": parts.cluster.online,
        }

    return {"waiting": waiting}
