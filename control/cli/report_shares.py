"""What each broadcaster did of a job: a part of the report, as JSON and as a table."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from rich.table import Table
from rich.text import Text

from control.cli.table import plain_table
from control.cli.visible import short
from engine.mta.spool.api import StateCounts

SHOWN_MAX = 50


class BroadcasterReport(Struct, frozen=True):
    """One broadcaster's part. `own` is what its spool counts, None when it was not there to be asked."""

    name: str
    weight: float
    chunks: int
    counts: StateCounts
    per_second: float | None = None  # envelopes tried, as last measured
    live: bool = True
    retired: bool = False
    own: dict[str, int] | None = None

    @property
    def differs(self) -> bool:
        """Its spool counts otherwise than what it told over the bus adds up to."""
        if self.own is None:
            return False
        return any(
            self.own.get(state, told) != told
            for state in ("accepted", "delivered", "bounced")
            for told in (getattr(self.counts, state),)
        )


def shares_facts(shares: Sequence[BroadcasterReport], states: Sequence[str]) -> list[dict[str, Any]]:
    """The list under "broadcasters" of --json."""
    return [
        {
            "broadcaster": share.name,
            "weight": share.weight,
            "chunks": share.chunks,
            "accepted": share.counts.accepted,
            **{state: getattr(share.counts, state) for state in states},
            "was_ambiguous": share.counts.was_ambiguous,
            "per_second": None if share.per_second is None else round(share.per_second, 1),
            "live": share.live,
            "retired": share.retired,
            "own_counts": share.own,
            "differs": share.differs,
        }
        for share in shares
    ]


def shares_table(shares: Sequence[BroadcasterReport], states: Sequence[str], words: Any) -> Table:
    """A line a broadcaster, with the states that somebody has."""
    shown = [state for state in states if any(getattr(share.counts, state) for share in shares)]
    table = plain_table("By broadcaster", "broadcaster", "chunks", "accepted", *map(words, shown), "a second")
    for share in shares[:SHOWN_MAX]:
        name = share.name + (" (retired)" if share.retired else "" if share.live else " (not there)")
        cells = [getattr(share.counts, state) for state in shown]
        speed = "-" if share.per_second is None else f"{share.per_second:,.0f}"
        numbers = (share.chunks, share.counts.accepted, *cells)
        table.add_row(Text(short(name)), *(f"{number:,}" if number else "-" for number in numbers), speed)
    return table
