"""Warm-up quotas that outlive the process: how many messages a new source may send to a provider today.

`policy.warmup` counts; here the count is kept in the bus table `warmup`, *before* it is used: a block of
the day's quota is written as used, and only then handed out, so that a crash can cost a part of a block
and never grant one twice. The day is the UTC day. Touches: bus. A value that does not decode counts as a
day whose quota is used up: nothing is sent too much.
"""

from collections.abc import Callable

import msgspec
import structlog

from engine.bus.api import BusFull, NodeBus
from engine.config.shaping import WarmUpPlan
from engine.model.decoding import UNDECODABLE
from engine.mta.policy.warmup import WarmUp, WarmUpState

TABLE = "warmup"
BLOCK_SHARE = 0.05  # of a day's quota; a crash costs so much at most
BLOCK_MIN = 10
DAY_SECONDS = 86_400

log = structlog.get_logger("warming")


class WarmUpAccount:
    """The plan of one (source, provider) and what is written of it."""

    __slots__ = ("_bus", "_key", "_reserved", "_told", "_wall", "_warmup", "plan")

    def __init__(
        self, bus: NodeBus, plan: WarmUpPlan, source: str, provider: str, wall: Callable[[], float]
    ) -> None:
        """`wall` tells the time in wall seconds."""
        self._bus = bus
        self.plan = plan
        self._wall = wall
        self._told: int | None = None  # the day whose end of quota was told
        self._key = f"{source}/{provider}"
        self._warmup = WarmUp(plan.per_day, self._load())
        self._reserved = self._warmup.state.used

    def __repr__(self) -> str:
        return f"<WarmUpAccount {self._key}: {self._warmup!r}>"

    @property
    def overflow(self) -> bool:
        """What is over the quota may leave by another source."""
        return self.plan.overflow

    @property
    def room(self) -> int:
        """How many messages may still go today; `policy.warmup.UNLIMITED` after the plan's end."""
        return self._warmup.room(self._today())

    @property
    def exhausted(self) -> bool:
        return self.room <= 0

    @property
    def seconds_left(self) -> float:
        """Of the day."""
        return DAY_SECONDS - self._wall() % DAY_SECONDS

    def news(self) -> str:
        """Once a day, when its quota is used up, what to tell; else nothing."""
        if not self.exhausted or self._told == self._today():
            return ""
        self._told = self._today()
        return f"warm-up: {self.describe()}"

    def _today(self) -> int:
        return int(self._wall() // DAY_SECONDS)

    def ahead(self) -> tuple[int, ...]:
        """What may go today and on each later day; () = no limit any more."""
        return self._warmup.ahead(self._today())

    def describe(self) -> str:
        state = self._warmup.state
        return f"the quota of sending day {state.day_index + 1} is used"

    def take(self, wanted: int) -> int:
        """How many of `wanted` messages may go now; they are counted as sent."""
        today = self._today()
        room = self._warmup.room(today)  # a new day begins here
        if self._warmup.finished:
            return wanted
        written = max(0, self._reserved - self._warmup.state.used)
        return self._warmup.take(today, min(wanted, room, written))

    def give_back(self, count: int) -> None:
        self._warmup.give_back(self._today(), count)

    async def reserve(self) -> None:
        """Write the next block as used, when what is written runs out. The site calls it when it looks."""
        room = self._warmup.room(self._today())
        state = self._warmup.state
        if self._warmup.finished or not room:
            return
        if self._reserved > state.used + room:  # of yesterday
            self._reserved = state.used
        block = max(BLOCK_MIN, int(BLOCK_SHARE * (state.used + room)))
        if self._reserved - state.used > block // 2:
            return
        reserved = min(state.used + room, state.used + block)
        written = WarmUpState(state.day_index, state.day, reserved)
        try:
            await self._bus.put(TABLE, self._key, msgspec.json.encode(written))
        except BusFull as error:  # what is not written may not be used: it would be used twice
            log.warning("no room for a warm-up count: its mail waits", path=self._key, why=str(error))
            return
        if self._warmup.state.day == written.day:
            self._reserved = reserved

    def _load(self) -> WarmUpState | None:
        data = self._bus.get(TABLE, self._key)
        if data is None:
            return None
        try:
            return msgspec.json.decode(data, type=WarmUpState)
        except UNDECODABLE as error:
            log.error(
                "a warm-up count does not decode: nothing more goes today", path=self._key, why=str(error)
            )
            return WarmUpState(0, self._today(), self.plan.per_day[0])
