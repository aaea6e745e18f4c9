"""Says on the bus how this engine is, and finds out when it is not alone or the bus is not the same.

Every few seconds the row `<node>/engine` of table `status` is written anew, with a count (*beat*). The row is
also a mirror. Before each writing it is read: if another life's row stands there and goes on counting, two
engines use one name (a copied folder, a second machine), and whoever came later takes no work until the other
is silent. If our own row is gone or older than what we wrote, the bus was restored from an old copy: claims
may be missing, so work is refused until every engine has put back the claims of the chunks that it holds.
Remote clocks decide nothing: a life is judged by whether its row changes.

Touches: the cluster's bus (tables `status`, `claims`), the node's own bus (what we last wrote), the spool
(reads). On crash: the row grows old, nothing else.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import msgspec
import structlog
import trio
from msgspec import Struct

from engine.actors.membership import claim_of
from engine.actors.parts import Parts
from engine.bus.api import BusFull
from engine.model.decoding import UNDECODABLE
from engine.model.single import CHUNK_PREFIX
from engine.observe.version import own_version
from engine.runtime.spec import Context, Start
from engine.storage import StorageError

STATUS_TABLE = "status"
SEEN_TABLE = "seen"  # on the node's own bus
SILENT_BEATS = 3.0  # a life whose row has not changed for so many intervals is over
GRACE_SECONDS = 30.0  # for all engines to find out that the bus has forgotten, and to put their claims back
GRACE_BEATS = 15.0  # the same, where beats come faster

T = TypeVar("T")

log = structlog.get_logger("presence")


class EngineStatus(Struct, frozen=True, kw_only=True):
    """The row, as JSON. `at` is for people: their clock may be wrong."""

    node: str
    process: str = "engine"
    incarnation: str
    beat: int
    interval: float  # seconds between two beats
    at: float  # wall seconds
    epoch: str
    place: str = ""
    version: str = ""
    rate: float = 0.0  # envelopes that were finished per second, over the last intervals
    finished: int = 0  # envelopes, ever, of the campaigns in the spool
    queued: int = 0
    suppressions: dict[str, int] = {}  # writer -> last sequence applied
    signer_public: str = ""
    closures: dict[str, str] = {}  # why no work is taken
    draining: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(EngineStatus).decode


def presence(parts: Parts) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        keeper = Presence(parts)
        parts.membership.close("joining", "this engine has not spoken with the bus yet", quietly=True)
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            await context.stop.wait()
            nursery.cancel_scope.cancel()

    return start


class Presence:
    """The row's keeper."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._key = f"{parts.config.node.name}/engine"
        self._interval = float(parts.config.bus.status_every)
        self._finished: list[tuple[float, int]] = []

    def __repr__(self) -> str:
        return f"<Presence {self._key}, beat {self._parts.membership.beat}>"

    async def run(self) -> None:
        """For life."""
        parts, membership = self._parts, self._parts.membership
        row = await self._row()
        await self._outwait_another(row)
        seen = parts.bus.get(SEEN_TABLE, self._key) if parts.cluster is not parts.bus else None
        membership.beat = max(membership.beat, int(seen or 0))
        behind = membership.beat and (row is None or row.beat < membership.beat)
        if behind or "forgotten" in membership.closures:  # the latter: our former incarnation was not done
            await self._bus_forgot(row)
        membership.open("joining", quietly=True)
        while True:
            try:
                await self._beat()
            except (BusFull, StorageError) as error:
                log.warning("the status could not be written", why=str(error))
            await trio.sleep(self._interval)
            row = await self._row()
            if row is not None and row.incarnation != membership.incarnation:
                await self._outwait_another(row)
            elif row is None or row.beat < membership.beat:
                await self._bus_forgot(row)

    async def _row(self) -> EngineStatus | None:
        data = await self._parts.cluster.read(STATUS_TABLE, self._key)
        try:
            return None if data is None else _decode(data)
        except UNDECODABLE as error:
            log.warning("the status row does not decode; it is written anew", why=str(error))
            return None

    async def _outwait_another(self, row: EngineStatus | None) -> None:
        """Return once no other life of this name counts on."""
        membership = self._parts.membership
        alone = row is None or row.incarnation == membership.incarnation
        # At our own place the former life is over: there is one writer's lock.
        if row is None or alone or (row.place and row.place == membership.place):
            membership.open("twin", quietly=True)
            return
        since, counted = trio.current_time(), (row.incarnation, row.beat)
        while trio.current_time() - since < SILENT_BEATS * max(self._interval, row.interval):
            await trio.sleep(self._interval)
            found = await self._row()
            if found is None or found.incarnation == membership.incarnation:
                break
            if (found.incarnation, found.beat) != counted:
                row, since, counted = found, trio.current_time(), (found.incarnation, found.beat)
                copied = " with a copy of this spool" if found.epoch == self._parts.spool.epoch else ""
                news = membership.close(
                    "twin",
                    f"another engine is called {row.node}{copied}, at {row.place or 'another place'}:"
                    " stop one of them, and give it a name and a spool of its own",
                )
                if news:
                    log.error("two engines have one name", node=row.node, other=row.incarnation)
        membership.open("twin")

    async def _beat(self) -> None:
        parts, membership = self._parts, self._parts.membership
        membership.beat += 1
        if parts.cluster is not parts.bus:  # first here: what we remember is never older than the row
            await parts.bus.put(SEEN_TABLE, self._key, str(membership.beat).encode())
        await parts.cluster.put(STATUS_TABLE, self._key, _encode(self._status()))

    def _status(self) -> EngineStatus:
        parts, membership = self._parts, self._parts.membership
        counts = [parts.spool.counts(campaign) for campaign in parts.spool.campaigns()]
        finished = sum(each.finished for each in counts)
        return EngineStatus(
            node=parts.config.node.name,
            incarnation=membership.incarnation,
            beat=membership.beat,
            interval=self._interval,
            at=parts.clock.now(),
            epoch=parts.spool.epoch,
            place=membership.place,
            version=own_version(),
            rate=self._rate(finished),
            finished=finished,
            queued=sum(each.deferred for each in counts),
            suppressions=parts.suppressions.positions(),
            signer_public=membership.signer_public,
            closures=membership.closures,
            draining=parts.stops.draining is not None,
        )

    def _rate(self, finished: int) -> float:
        """Over the last five intervals: a broadcaster's speed moves in tens of seconds."""
        now = trio.current_time()
        self._finished = [*self._finished, (now, finished)][-6:]
        then, before = self._finished[0]
        return max(0, finished - before) / (now - then) if now > then else 0.0

    async def _patiently(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do it, however long the bus has no room."""
        while True:
            try:
                return await act()
            except (BusFull, StorageError) as error:
                log.warning("the bus has no room", why=str(error))
                await trio.sleep(self._interval)

    async def _bus_forgot(self, row: EngineStatus | None) -> None:
        """Put back what the bus has lost of ours; take nothing until the others had time to do so, too."""
        parts, membership = self._parts, self._parts.membership
        found = "nothing" if row is None else f"beat {row.beat}"
        why = (
            f"the bus has forgotten: it knows {found} of this engine, which wrote beat {membership.beat}"
            " (was it restored from an old copy?); claims are put back first"
        )
        membership.close("forgotten", why)
        log.error("the bus has forgotten", found=found, written=membership.beat)
        claim = claim_of(parts.config.node.name, parts.spool.epoch)
        foreign = 0
        for chunk in parts.spool.chunk_ids():
            if chunk.startswith(CHUNK_PREFIX):  # a single message: its stream is ours alone, nobody claims it
                continue
            there = await self._patiently(partial(parts.cluster.create, "claims", chunk, claim))
            foreign += there is not None and there != claim
        if foreign:
            log.error("chunks that this engine took are claimed by others now", chunks=foreign)
        await self._patiently(self._beat)
        await trio.sleep(min(GRACE_SECONDS, GRACE_BEATS * self._interval))
        membership.open("forgotten")
