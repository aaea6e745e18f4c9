"""What one engine is to the others: who it is, and why it takes no work just now.

A fact sheet that outlives the actors (`parts.membership`): `presence` and `campaign_states` write it,
`intake`, `metering` and the status row read it. A *closure* is a named reason to take nothing from the
bus; intake goes on when none is left. No decisions here.
"""

import secrets

import structlog

log = structlog.get_logger("membership")


class Membership:
    """Of one engine, for one life of its process."""

    __slots__ = ("_closures", "beat", "incarnation", "place", "signer_public")

    def __init__(self, place: str = "") -> None:
        self.incarnation = secrets.token_hex(8)
        self.place = place  # the machine and the folder; two lives of one place never run at a time
        self.beat = 0  # of the status row: how often we said that we live
        self.signer_public = ""  # hex; what DKIM keys are sealed to for this node
        self._closures: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Membership {self.incarnation}, beat {self.beat}: {self.closed or 'open'}>"

    @property
    def closed(self) -> str:
        """Why no work is taken; empty = it is."""
        return "; ".join(self._closures.values())

    @property
    def closures(self) -> dict[str, str]:
        return dict(self._closures)

    def close(self, name: str, why: str, *, quietly: bool = False) -> bool:
        """Take no work from now on; whether that is news."""
        news = self._closures.get(name) != why
        self._closures[name] = why
        if news and not quietly:
            log.warning("no work is taken", why=why)
        return news

    def open(self, name: str, *, quietly: bool = False) -> None:
        """That reason is gone."""
        why = self._closures.pop(name, None)
        if why is not None and not quietly:
            log.info("a reason to take no work is gone", was=why, left=self.closed)


def claim_of(node: str, epoch: str) -> bytes:
    """What an engine writes under a chunk's id: with a new spool it is another claimant."""
    return f"{node} {epoch}".encode()
