"""MTA-STS policies in the bus table `mta_sts`, so that they outlive a restart. One key for each domain.

Decides nothing. A row that another member wrote is read and stays its own. A row that the disk has no room
for is said in the log: the policy counts all the same until the engine stops. Touches: the bus table.
"""

import structlog

from engine.bus.api import BusFull, NodeBus
from engine.storage import StorageError

TABLE = "mta_sts"

log = structlog.get_logger("policy_store")


class BusPolicyStore:
    """`engine.mta.net.sts.PolicyStore` over the bus."""

    def __init__(self, bus: NodeBus) -> None:
        self._bus = bus

    def __repr__(self) -> str:
        return f"<BusPolicyStore: table {TABLE}>"

    def items(self) -> dict[str, bytes]:
        return self._bus.items(TABLE)

    async def put(self, domain: str, row: bytes) -> None:
        """Durable on return, if the disk takes it."""
        try:
            await self._bus.put(TABLE, domain, row)
        except (BusFull, StorageError) as error:
            log.warning("an MTA-STS policy is not kept", domain=domain, error=str(error))

    async def delete(self, domain: str) -> None:
        """Durable on return, if the disk takes it."""
        try:
            await self._bus.delete(TABLE, domain)
        except (BusFull, StorageError) as error:
            log.warning("an MTA-STS policy is not removed", domain=domain, error=str(error))
