"""Does what the tables of all broadcasters say: which campaigns run, which engines are retired.

| table       | key -> value                         | what follows here                                     |
|-------------|--------------------------------------|-------------------------------------------------------|
| `campaigns` | number -> state run, pause or cancel | an order of `stops`: suspended, cancelled, or neither |
| `retired`   | node -> spool epoch                  | if it is ours: nothing is taken, nothing is sent      |

A state becomes an order because orders are asked at every lease and for every message, are kept over a
restart, and are walked through by `sweeping`. Orders of the tables carry an author of their own; what an
operator ordered on this node stays his, but a table's order that he ends is given again: the table rules.
What stood before a restart stands until the tables were read: the bus may be away.

Also keeps bulk mail waiting while suppressions may be stale: when nothing was heard from the bus for
STALE_SECONDS. Touches: the cluster's bus (reads), `stops`. On crash: read anew; what stands, stands.
"""

from typing import Any

import msgspec
import structlog
import trio
from msgspec import Struct

from engine.actors.messages import StopsChanged
from engine.actors.parts import Parts
from engine.actors.stops import Aim, Scope, StopKind, StopOrder, TooManyStops
from engine.bus.api import BusFull, PositionLost
from engine.model.content import MessageClass
from engine.model.decoding import UNDECODABLE
from engine.runtime.spec import Context, Start
from engine.storage import StorageError

CAMPAIGNS_TABLE = "campaigns"
RETIRED_TABLE = "retired"
HEARD_TABLE = "seen"  # on the node's own bus: when we last heard of the cluster's
AUTHOR = "table campaigns"
RETIRED_AUTHOR = "table retired"
STALE_AUTHOR = "stale suppressions"
ASSERT_SECONDS = 0.5  # a pause acts within a second
STALE_SECONDS = 900.0
HEARD_SECONDS = 30.0  # how often it is written down that we hear the bus

_KINDS = {"pause": StopKind.SUSPEND, "cancel": StopKind.CANCEL}

log = structlog.get_logger("campaigns")


class CampaignState(Struct, frozen=True):
    """A row of `campaigns`. Unknown states are taken for `pause`: nothing goes that should not."""

    state: str
    by: str = ""
    reason: str = ""
    at: float = 0.0  # wall seconds, for people

    @property
    def text(self) -> str:
        return f"{self.state} by {self.by or 'somebody'}" + (f": {self.reason}" if self.reason else "")


def decode_state(value: bytes) -> CampaignState:
    """What does not decode is a pause."""
    try:
        return msgspec.json.decode(value, type=CampaignState)
    except UNDECODABLE:
        return CampaignState("pause", "", "its row does not decode")


def campaign_states(parts: Parts) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        keeper = CampaignStates(parts, context)
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.follow, CAMPAIGNS_TABLE, keeper.campaign_says)
            nursery.start_soon(keeper.follow, RETIRED_TABLE, keeper.retired_says)
            nursery.start_soon(keeper.look_after)
            await context.stop.wait()
            nursery.cancel_scope.cancel()

    return start


class CampaignStates:
    """What the tables say, and the orders that follow from it."""

    def __init__(self, parts: Parts, context: Context[Any]) -> None:
        self._parts = parts
        self._context = context
        self._states: dict[int, CampaignState] = {}
        self._retired = False
        self._known: set[str] = set()  # tables that were read whole in this life
        self._heard_at = trio.current_time()
        self._written_at = -HEARD_SECONDS
        self._stale_before = self._silence_before()
        self._lock = trio.Lock()

    def __repr__(self) -> str:
        return f"<CampaignStates: {len(self._states)} campaigns{', retired' if self._retired else ''}>"

    async def follow(self, table: str, says: Any) -> None:
        """Hear a table for life. Before it was read whole, nothing that stands is ended."""
        position = b""
        shown: set[str] = set()
        while True:
            if not position:
                rows = await self._parts.cluster.read_all(table)
                for key in shown - rows.keys():  # it went while nobody watched
                    says(key, None)
                for key, row in rows.items():
                    says(key, row)
                shown = set(rows)
                self._known.add(table)
                await self._assert()
            watch = self._parts.cluster.watch(table, position)
            try:
                async for key, value in watch:
                    says(key, value)
                    shown.add(key)
                    position = watch.position
                    await self._assert()
            except PositionLost:
                position = b""

    def campaign_says(self, key: str, value: bytes | None) -> None:
        if not key.isdecimal():
            log.warning("a campaign's key is no number", key=key)
        elif value is None:
            self._states.pop(int(key), None)
        else:
            self._states[int(key)] = decode_state(value)

    def retired_says(self, key: str, value: bytes | None) -> None:
        if key == self._parts.config.node.name:
            self._retired = value is not None and value.decode(errors="replace") == self._parts.spool.epoch

    async def look_after(self) -> None:
        """For life: what stands is what the tables say, and bulk waits while nothing is heard."""
        while True:
            await self._assert()
            await trio.sleep(ASSERT_SECONDS)

    # --- orders ----------------------------------------------------------------------------------------

    async def _assert(self) -> None:
        async with self._lock:
            try:
                changed = await self._assert_campaigns()
                changed |= await self._assert_retired()
                changed |= await self._assert_freshness()
            except (BusFull, StorageError, TooManyStops) as error:
                log.error("what the tables say cannot be kept here yet", why=str(error))
                return
        if changed:
            await self._context.peer("scheduler").tell(StopsChanged())

    async def _assert_campaigns(self) -> bool:
        known = set(self._parts.spool.campaigns())
        wanted = {
            (_KINDS.get(state.state, StopKind.SUSPEND), campaign): state
            for campaign, state in self._states.items()
            if state.state != "run" and (state.state != "cancel" or campaign in known)
        }
        changed = False
        for order in self._of(AUTHOR) if CAMPAIGNS_TABLE in self._known else ():
            if (order.kind, order.aim.campaign) not in wanted:
                changed |= await self._parts.stops.end(order)
        for (kind, campaign), state in wanted.items():
            changed |= await self._stand(kind, Aim(Scope.CAMPAIGN, str(campaign)), AUTHOR, state.text)
        return changed

    async def _assert_retired(self) -> bool:
        membership = self._parts.membership
        if RETIRED_TABLE not in self._known:
            return False
        if not self._retired:
            membership.open("retired")
            return await self._end_all(RETIRED_AUTHOR)
        why = "this engine was retired, what it held was given up: empty its data folder to join anew"
        membership.close("retired", why)
        return await self._stand(StopKind.SUSPEND, Aim(Scope.ALL), RETIRED_AUTHOR, why)

    async def _assert_freshness(self) -> bool:
        parts = self._parts
        if parts.cluster is parts.bus:
            return False
        now = trio.current_time()
        if parts.cluster.online:
            self._heard_at, self._stale_before = now, 0.0
            if now - self._written_at >= HEARD_SECONDS:
                self._written_at = now
                await parts.bus.put(HEARD_TABLE, "heard", repr(parts.clock.now()).encode())
            return await self._end_all(STALE_AUTHOR)
        silent = now - self._heard_at + self._stale_before
        if silent < STALE_SECONDS:
            return False
        why = f"nothing is heard from the bus for {STALE_SECONDS / 60:.0f} min: suppressions may be missing"
        changed = False
        for campaign in parts.spool.campaigns():
            if parts.standing(campaign).message_class is not MessageClass.TRANSACTIONAL:
                aim = Aim(Scope.CAMPAIGN, str(campaign))
                changed |= await self._stand(StopKind.SUSPEND, aim, STALE_AUTHOR, why)
        return changed

    def _silence_before(self) -> float:
        """Seconds for which nothing had been heard when this process began."""
        heard = self._parts.bus.get(HEARD_TABLE, "heard")
        try:
            return max(0.0, self._parts.clock.now() - float(heard)) if heard else STALE_SECONDS
        except ValueError:
            return STALE_SECONDS

    def _of(self, author: str) -> list[StopOrder]:
        return [each for each in self._parts.stops.all() if each.author == author]

    async def _end_all(self, author: str) -> bool:
        ended = [await self._parts.stops.end(order) for order in self._of(author)]
        return any(ended)

    async def _stand(self, kind: StopKind, aim: Aim, author: str, reason: str) -> bool:
        """See that an order stands; what an operator or another table ordered does as well."""
        if any(each.until is None for each in self._parts.stops.of(kind, aim)):
            return False
        await self._parts.stops.give(StopOrder(0, kind, aim, reason, author, self._parts.clock.now()))
        return True
