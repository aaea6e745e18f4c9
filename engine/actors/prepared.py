"""A composed message on its way to the wire: it waits for its signatures, and for its turn.

Made by a connection ahead of time, so that the signers work while the peer does. Decides nothing and
touches nothing; what it costs in memory is what `octets` says, whatever signatures come in.
"""

from engine.actors.messages import SignSlot
from engine.model.envelope import Envelope
from engine.mta.compose.message import Draft


class Prepared:
    """One composed message; `content` is there once its signatures are."""

    __slots__ = ("content", "draft", "envelope", "lease_id", "octets", "slot")

    def __init__(self, lease_id: int, envelope: Envelope, draft: Draft, slot: SignSlot | None) -> None:
        self.lease_id = lease_id
        self.envelope = envelope
        self.draft = draft
        self.slot = slot
        self.octets = len(draft.unsigned)  # for the account of memory, signatures do not matter
        self.content = draft.finish() if slot is None else b""

    @property
    def ready(self) -> bool:
        return self.slot is None or not self.slot.missing
