"""What operators have stopped, cancelled, sent another way or had tried again: orders, while they stand.

Kept in the bus table `stops`, one row for each order, so that they hold after a restart. `Stops` answers the
questions of those who send: may this message go, does this path or flow rest, which way does it go. An order
with an end holds no longer once the wall clock is there, whoever takes it off the table. Decides nothing
else: `stopping` gives and ends orders, `sweeping` carries out what needs a walk over the spool. A row that
does not decode is left where it is and said once in the log: a newer engine may have written it. A drain is
of this process only: it is not kept. Touches: the bus table.
"""

from collections.abc import Sequence
from enum import Enum

import msgspec
import structlog
import trio
from msgspec import Struct
from msgspec.structs import replace

from engine.bus.api import NodeBus
from engine.model.decoding import UNDECODABLE

TABLE = "stops"
STOPS_MAX = 1_000  # more than anybody gives by hand; each is looked at when the table changes only

log = structlog.get_logger("stops")


class Scope(Enum):
    """What an order is about."""

    CAMPAIGN = "campaign"
    DOMAIN = "domain"  # of recipients
    WORKSPACE = "workspace"
    SITE = "site"
    SOURCE = "source"
    ALL = "all"


class Aim(Struct, frozen=True):
    """`value` is a name, a campaign's number, or "" of ALL."""

    scope: Scope
    value: str = ""

    def __str__(self) -> str:
        return f"{self.scope.value} {self.value}" if self.value else "all mail"

    def __post_init__(self) -> None:
        if self.scope is Scope.CAMPAIGN:
            int(self.value)

    @property
    def campaign(self) -> int:
        """The campaign it is about, 0 = not of one."""
        return int(self.value) if self.scope is Scope.CAMPAIGN else 0


class StopKind(Enum):
    SUSPEND = "suspend"
    CANCEL = "cancel"
    RETRY = "retry"
    REROUTE = "reroute"


class StopOrder(Struct, frozen=True):
    """One order. It stands until wall seconds `until`, or until somebody ends it.

    A cancel ends what it aims at with an id below `before_id` (0 = all, also what comes later); a retry looks
    at those below it only. `walked` is how far a retry has come, `found` how many envelopes were ended or
    queued, `swept`: the walk of a cancel has found nothing more. `target` is the pool or relay of a reroute.
    """

    number: int
    kind: StopKind
    aim: Aim
    reason: str
    author: str
    at: float  # wall seconds
    until: float | None = None
    before_id: int = 0
    target: str = ""
    states: tuple[str, ...] = ()  # a retry: of envelopes in these
    assume: str = ""  # a retry: "delivered" or "failed" = do not try, but take them for that
    walked: int = 0
    found: int = 0
    swept: bool = False

    def is_over(self, wall: float) -> bool:
        return self.until is not None and wall >= self.until

    @property
    def text(self) -> str:
        """For events and people: who said so, and why."""
        done = {StopKind.SUSPEND: "suspended", StopKind.CANCEL: "cancelled"}.get(self.kind, self.kind.value)
        return f"{done} by {self.author}: {self.reason}"


class Stop(Struct, frozen=True):
    """Why a message does not go: it waits, or (`cancels`) it is over."""

    cancels: bool
    reason: str


class Draining(Struct, frozen=True):
    """The engine is to send what is queued and then to stop; by wall seconds `until` it stops anyway."""

    until: float
    reason: str
    author: str


class TooManyStops(Exception):
    """STOPS_MAX orders stand already."""


Entry = tuple[StopOrder, Stop]


class Index:
    """The orders of one kind by what they aim at: asked for every message while any stands."""

    __slots__ = ("all", "campaign", "count", "domain", "site", "source", "workspace")

    def __init__(self, orders: list[StopOrder]) -> None:
        self.campaign: dict[int, Entry] = {}
        self.domain: dict[str, Entry] = {}
        self.workspace: dict[str, Entry] = {}
        self.site: dict[str, Entry] = {}
        self.source: dict[str, Entry] = {}
        self.all: dict[str, Entry] = {}
        self.count = len(orders)
        for order in orders:
            stop = Stop(order.kind is StopKind.CANCEL, order.text)
            getattr(self, order.aim.scope.value)[order.aim.campaign or order.aim.value] = order, stop

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"<Index of {self.count} orders>"


class Stops:
    """All orders of one engine, oldest first. What it says is what the table holds."""

    def __init__(self, bus: NodeBus) -> None:
        self._bus = bus
        self._lock = trio.Lock()
        self._standing: dict[int, StopOrder] = {}
        self._last = 0  # a number is not used again, were it one of a row that we do not understand
        self._suspended = self._cancelled = self._rerouted = Index([])
        self.version = 0
        """Moves with each change that a message may feel."""
        self.draining: Draining | None = None
        for key, value in bus.items(TABLE).items():
            self._last = max(self._last, int(key) if key.isdecimal() else 0)
            try:
                order = msgspec.json.decode(value, type=StopOrder)
            except UNDECODABLE as error:
                log.warning("an operator's order does not decode", key=key, error=str(error))
                continue
            self._standing[order.number] = order
        self._standing = dict(sorted(self._standing.items()))
        self._lay_out()

    def __repr__(self) -> str:
        return f"<Stops: {', '.join(f'{each.kind.value} {each.aim}' for each in self.all()) or 'none'}>"

    def __bool__(self) -> bool:
        """Whether anything is stopped, cancelled or sent another way."""
        return bool(self._suspended or self._cancelled or self._rerouted)

    def all(self) -> list[StopOrder]:
        return list(self._standing.values())

    def of(self, kind: StopKind, aim: Aim | None = None) -> list[StopOrder]:
        return [each for each in self.all() if each.kind is kind and aim in (None, each.aim)]

    # --- changes ---------------------------------------------------------------------------------------

    async def give(self, order: StopOrder) -> StopOrder:
        """Let an order stand (its number is ours to give), instead of one of the same kind and aim.

        Durable on return. Raises TooManyStops.
        """
        async with self._lock:
            former = self.of(order.kind, order.aim)
            if not former and len(self._standing) >= STOPS_MAX:
                raise TooManyStops(f"{STOPS_MAX:,} orders stand already: end some first")
            self._last += not former
            order = replace(order, number=former[0].number if former else self._last)
            await self._bus.put(TABLE, str(order.number), msgspec.json.encode(order))
            self._standing[order.number] = order
            self._changed(order)
        return order

    async def change(self, order: StopOrder, **facts: object) -> StopOrder | None:
        """Keep how far an order has come (nothing that a message feels); None when it stands no longer."""
        async with self._lock:
            standing = self._standing.get(order.number)
            if standing is None or standing.at != order.at:
                return None
            changed: StopOrder = replace(standing, **facts)
            await self._bus.put(TABLE, str(order.number), msgspec.json.encode(changed))
            self._standing[order.number] = changed
        return changed

    async def end(self, order: StopOrder) -> bool:
        """Take an order off; durable on return. False when it stands no longer as it was given."""
        async with self._lock:
            standing = self._standing.get(order.number)
            if standing is None or standing.at != order.at:
                return False
            await self._bus.delete(TABLE, str(order.number))
            del self._standing[order.number]
            self._changed(order)
        return True

    def _changed(self, order: StopOrder) -> None:
        if order.kind is not StopKind.RETRY:
            self._lay_out()
            self.version += 1

    def _lay_out(self) -> None:
        self._suspended = Index(self.of(StopKind.SUSPEND))
        self._cancelled = Index(self.of(StopKind.CANCEL))
        self._rerouted = Index(self.of(StopKind.REROUTE))

    # --- questions -------------------------------------------------------------------------------------

    def over(self, wall: float) -> list[StopOrder]:
        """Those whose time is over."""
        return [each for each in self.all() if each.is_over(wall)]

    def judge(
        self,
        campaign: int,
        workspace: str,
        domain: str,
        source: str,
        site: str,
        spool_id: int,
        wall: float,
    ) -> Stop | None:
        """What keeps one message from going over a source to a site; a cancel before a suspension."""
        index = self._cancelled
        if index:
            for entry in _entries(index, campaign, workspace, domain, source, site):
                order, stop = entry
                if (not order.before_id or spool_id < order.before_id) and not order.is_over(wall):
                    return stop
        index = self._suspended
        return _first(_entries(index, campaign, workspace, domain, source, site), wall) if index else None

    def holds_path(self, source: str, site: str, wall: float) -> Stop | None:
        """Whether nothing goes over a source, or to a site."""
        index = self._suspended
        return _first([index.source.get(source), index.site.get(site)], wall)

    def holds_flow(self, campaign: int, workspace: str, wall: float) -> Stop | None:
        """Whether nothing of a campaign goes, wherever to."""
        over = self._cancelled.campaign.get(campaign)
        if over is not None and not over[0].before_id:
            return over[1]
        index = self._suspended
        return _first([index.campaign.get(campaign), index.workspace.get(workspace), index.all.get("")], wall)

    def holds_domain(self, domain: str, wall: float) -> Stop | None:
        """Whether nothing goes to a recipient domain."""
        return _first([self._suspended.domain.get(domain)], wall)

    def reroute(self, campaign: int, workspace: str, domain: str, wall: float) -> str | None:
        """The pool or relay that an operator sent this mail over; the narrowest order counts."""
        index = self._rerouted
        if not index:
            return None
        for entry in _entries(index, campaign, workspace, domain, "", ""):
            if not entry[0].is_over(wall):
                return entry[0].target
        return None


def _entries(index: Index, campaign: int, workspace: str, domain: str, source: str, site: str) -> list[Entry]:
    """What is said of a message, the narrowest first."""
    found = (
        index.campaign.get(campaign),
        index.domain.get(domain),
        index.workspace.get(workspace),
        index.site.get(site),
        index.source.get(source),
        index.all.get(""),
    )
    return [entry for entry in found if entry is not None]


def _first(entries: Sequence[Entry | None], wall: float) -> Stop | None:
    return next((entry[1] for entry in entries if entry is not None and not entry[0].is_over(wall)), None)
