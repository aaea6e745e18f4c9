"""A job's DKIM key on its way to the broadcasters: sealed to the signers of each one that gets work.

The key file stays with the job; what travels opens in one broadcaster's signer processes only. One that
shows no key of its signers gets none: it signs if its own configuration has a key of that name, and refuses
the content otherwise, which is said. Touches: the bus (`control.cluster.key_office`).
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
import trio

from control.job.roster import Status
from engine.bus.api import Bus
from engine.model.content import Content

log = structlog.get_logger("seal")


def key_name(selector: str, domain: str) -> str:
    """What a job calls its key on the bus: as its DNS record is called."""
    return f"{selector}._domainkey.{domain}"


def sealer(bus: Bus, content: Content, key_file: str) -> Callable[[str, Status | None], Awaitable[None]]:
    """What a coordinator awaits before a broadcaster gets its first chunk."""

    async def seal(name: str, status: Status | None) -> None:
        if not content.dkim or not key_file:
            await trio.lowlevel.checkpoint()
            return
        from control.cluster.key_office import read_nodes, seal_dkim_keys

        public = bytes.fromhex(status.signer_public) if status is not None else b""
        if not public:
            node = (await read_nodes(bus)).get(name)
            public = b"" if node is None else node.signer_public
        if not public:
            log.warning("a broadcaster shows no key of its signers: it gets no DKIM key", broadcaster=name)
            return
        await seal_dkim_keys(bus, {name: public}, {content.dkim[0].key: Path(key_file)})

    return seal
