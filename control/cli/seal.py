"""A job's DKIM key on its way to the broadcasters: sealed to the signers of each one that gets work.

The key file stays with the job; what travels opens in one broadcaster's signer processes only. One that
shows no key of its signers, or octets that are none, gets none: it signs if its own configuration has a key
of that name, and refuses the content otherwise, which is said. A job's key file that is none is an error
(KeyringError). Touches: the bus (`control.cluster.key_office`).
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
import trio

from control.job.roster import Status
from engine.bus.api import Bus
from engine.model.content import Content
from engine.sealing import PUBLIC_OCTETS, SealingError

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

        public = b"" if status is None else _public_half(status.signer_public)
        if not public:
            node = (await read_nodes(bus)).get(name)
            public = b"" if node is None else node.signer_public
        if not public:
            log.warning("a broadcaster shows no key of its signers: it gets no DKIM key", broadcaster=name)
            return
        try:
            await seal_dkim_keys(bus, {name: public}, {content.dkim[0].key: Path(key_file)})
        except SealingError as error:
            log.warning("a DKIM key could not be sealed", broadcaster=name, why=str(error))

    return seal


def _public_half(text: str) -> bytes:
    """What a broadcaster shows; nothing for a text that is none, so that its registry's row is asked."""
    try:
        public = bytes.fromhex(text)
    except ValueError:
        return b""
    return public if len(public) == PUBLIC_OCTETS else b""
