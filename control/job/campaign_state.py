"""A campaign's state on the bus: run, pause or cancel, in table `campaigns` under its number.

Whoever acts writes the whole row, and the last one counts; engines look it up at intake and at lease, the
coordinator before it publishes. No row is `run`. A row that does not decode is `pause`: somebody wanted
something, and mail that waits can still be sent. Cancel is for good. Touches: the bus. Raises StateError.
"""

from enum import Enum

import msgspec
from msgspec import Struct

from engine.bus.api import Bus
from engine.model.decoding import UNDECODABLE

TABLE = "campaigns"
TEXT_CHARS_MAX = 200


class StateError(Exception):
    """That cannot be done to a campaign in its state."""


class Wanted(Enum):
    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class CampaignState(Struct, frozen=True):
    """What is wanted of a campaign, who said so, why, and when (wall seconds there)."""

    state: Wanted = Wanted.RUN
    by: str = ""
    reason: str = ""
    at: float = 0.0


RUNNING = CampaignState()
UNREADABLE = CampaignState(Wanted.PAUSE, reason="its row in the table of campaigns does not decode")


def decode_state(row: bytes | None) -> CampaignState:
    """A row's state; see above for one that is not there, or does not decode."""
    if row is None:
        return RUNNING
    try:
        return msgspec.json.decode(row, type=CampaignState)
    except UNDECODABLE:
        return UNREADABLE


async def read_state(bus: Bus, campaign: int) -> CampaignState:
    return decode_state(await bus.read(TABLE, str(campaign)))


async def change_state(bus: Bus, campaign: int, wanted: Wanted, *, by: str, reason: str, at: float) -> None:
    """Durable on the bus when this returns. Raises StateError for a campaign that was cancelled."""
    standing = await read_state(bus, campaign)
    if standing.state is Wanted.CANCEL and wanted is not Wanted.CANCEL:
        raise StateError(
            f"campaign {campaign} was cancelled by {standing.by or 'somebody'}: that is for good"
        )
    state = CampaignState(wanted, by[:TEXT_CHARS_MAX], reason[:TEXT_CHARS_MAX], at)
    await bus.put(TABLE, str(campaign), msgspec.json.encode(state))


async def announce(bus: Bus, campaign: int, *, by: str, at: float) -> CampaignState:
    """The state as it stands; a new campaign gets its row. What somebody has wanted meanwhile stays."""
    row = msgspec.json.encode(CampaignState(Wanted.RUN, by[:TEXT_CHARS_MAX], "", at))
    there = await bus.create(TABLE, str(campaign), row)
    return decode_state(row if there is None else there)
