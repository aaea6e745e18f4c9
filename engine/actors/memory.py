"""What is known of paths and providers while no actor lives for them: an idle site is this record.

`PathMemory` joins what limits one egress path: its governor (window and rate, which move), its throttles,
its rests, and the doors it shares: one with the other paths of its site (recipient domains with rules of
their own), one with all sites of its provider (`ProviderMemory`: also reactions, circuit breaker,
warm-up). The site asks it how many messages may go and how many connections may be opened; connections
tell it, through `feedback`, how they fared. Decides only by asking policy; what changes is noted as an
event with its reason. Nothing here waits or fails.
"""

import math
from collections.abc import Callable

from msgspec import Struct

from engine.actors.warming import WarmUpAccount
from engine.config.units import RateRange
from engine.model.event import Adapted
from engine.mta.policy.breaker import Breaker
from engine.mta.policy.governor import Change, Governor, Knob
from engine.mta.policy.governor_rate import START_PER_SECOND
from engine.mta.policy.governor_window import FIRST_CONNECTIONS
from engine.mta.policy.reactions import Reactions
from engine.mta.policy.shaping import Shaping
from engine.mta.policy.slots import Slots
from engine.mta.policy.throttle import Throttle
from engine.mta.proto.smtp_options import PipeliningVerdict

# Of a rate that was found by trying: whoever counts in single messages must not see us in clumps.
FOUND_BURST_SECONDS = 0.04

REST_NEWS_SECONDS = 0.5  # a rest that only ends so much later is the one that was told
REOPEN_SECONDS, REOPEN_SECONDS_MAX = 1.0, 60.0

Note = Callable[[Adapted], None]


class Place(Struct, frozen=True):
    """What rules match a path by. `domain` where it is the path of one recipient domain."""

    source: str
    site: str
    hosts: tuple[str, ...]
    domain: str


class Door:
    """What several paths are counted at together: their connections, and their rate."""

    __slots__ = ("slots", "throttle")

    def __init__(self, now: float) -> None:
        self.slots = Slots(None)
        self.throttle = Throttle(None, now)

    def limit(
        self, connections: int | None, rate: RateRange | None, burst_seconds: float, now: float
    ) -> None:
        """So much holds for all of them together from now on; None = no limit."""
        self.slots.limit = connections
        self.throttle.set_rate(None if rate is None else rate.ceiling.per_second, now, burst_seconds)


class ProviderMemory(Door):
    """One provider over one source: the door that all its sites share."""

    __slots__ = ("breaker", "name", "reactions", "rest_reason", "rest_until", "source", "warmup")

    def __init__(self, name: str, source: str, breaker: Breaker, now: float) -> None:
        super().__init__(now)
        self.name = name
        self.source = source
        self.breaker = breaker
        self.reactions = Reactions()
        self.warmup: WarmUpAccount | None = None
        self.rest_until = 0.0  # monotonic seconds
        self.rest_reason = ""

    def __repr__(self) -> str:
        return f"<Provider {self.name} via {self.source}: {self.slots!r}>"


class PathMemory:
    """One egress path. Outlives its site actor."""

    __slots__ = (
        "failures",
        "governor",
        "hasty",
        "key",
        "note",
        "opening",
        "place",
        "provider",
        "reopen_at",
        "reopen_seconds",
        "shaping",
        "site",
        "suspended_until",
        "suspended_why",
        "throttle",
        "tls_broken_until",
        "verdict",
    )

    def __init__(
        self,
        key: str,
        place: Place,
        shaping: Shaping,
        site: Door,
        provider: ProviderMemory,
        note: Note,
        now: float,
        *,
        hasty: bool = False,
    ) -> None:
        """`hasty`: a relay of our own, whose limits its operator tells; nothing is found out by trying."""
        self.key = key
        self.place = place
        self.shaping = shaping
        self.site = site
        self.provider = provider
        self.note = note
        self.hasty = hasty
        self.governor = Governor(
            shaping.connections,
            shaping.rate,
            now,
            start_connections=shaping.connections.ceiling if hasty else FIRST_CONNECTIONS,
            start_per_second=self._start_per_second,
        )
        self.throttle = Throttle(None, now, self._burst_seconds)
        self.throttle.set_rate(self.governor.rate_per_second, now)
        self.opening = Throttle(shaping.connection_rate, now)
        self.reopen_at = now  # no dial before: the last ones were turned away
        self.reopen_seconds = REOPEN_SECONDS
        self.verdict = PipeliningVerdict()
        self.failures = 0  # connections in a row that never became ready
        self.suspended_until = 0.0  # monotonic seconds
        self.suspended_why = ""
        self.tls_broken_until: dict[str, float] = {}  # host name -> monotonic seconds

    def __repr__(self) -> str:
        return f"<Path {self.key}: {self.governor!r}>"

    def reshape(self, shaping: Shaping, provider: ProviderMemory, now: float, why: str) -> None:
        """Other rules hold from now on, perhaps those of another provider; what was learnt stays."""
        if provider is not self.provider:
            self.provider.slots.hand_over(self.key, provider.slots)
            self.provider = provider
        self.shaping = shaping
        start = self._start_per_second
        self.governor.set_bounds(shaping.connections, shaping.rate, now, why, start_per_second=start)
        self.throttle.set_rate(self.governor.rate_per_second, now, self._burst_seconds)
        opening = shaping.connection_rate
        self.opening.set_rate(None if opening is None else opening.per_second, now)
        self.publish_changes(now)

    # --- what may be done now --------------------------------------------------------------------------

    def rest(self, now: float) -> tuple[float, str]:
        """Until when nothing goes over this path, and why; (0, "") when it does not rest."""
        until, why = self.suspended_until, self.suspended_why
        if self.provider.rest_until > until:
            until, why = self.provider.rest_until, self.provider.rest_reason
        if self.governor.paused_until > until:
            until, why = self.governor.paused_until, "the receiver asked for a pause"
        warm_up = self.provider.warmup
        if warm_up is not None and warm_up.exhausted and now + warm_up.seconds_left > until:
            until, why = now + warm_up.seconds_left, f"warm-up: {warm_up.describe()}"
        return (until, why) if until > now else (0.0, "")

    def hushed(self, now: float) -> bool:
        """Whether connections begin no message, though they hold some: it would be refused as well.

        A warm-up quota that is used up does not hush: what is leased is counted, and goes.
        """
        return (
            now < self.suspended_until or now < self.provider.rest_until or now < self.governor.paused_until
        )

    def take(self, now: float, wanted: int) -> int:
        """How many of `wanted` messages may go now; they are counted as sent."""
        count, asked = wanted, 0
        for throttle in self._throttles:
            allowed = throttle.take(now, count)
            for earlier in self._throttles[:asked]:
                earlier.give_back(count - allowed)
            count, asked = allowed, asked + 1
        if count and self.provider.warmup is not None:
            warm = self.provider.warmup.take(count)
            for throttle in self._throttles:
                throttle.give_back(count - warm)
            count = warm
        return count

    def give_back(self, count: int) -> None:
        """Messages that were taken and not sent."""
        for throttle in self._throttles:
            throttle.give_back(count)
        if self.provider.warmup is not None:
            self.provider.warmup.give_back(count)

    def wait_seconds(self, now: float) -> float:
        """How long until the next message may go; inf = not today."""
        provider = self.provider
        if provider.warmup is not None and provider.warmup.exhausted:
            return math.inf
        return max(throttle.wait_seconds(now) for throttle in self._throttles)

    def openings(self, now: float, wanted: int) -> int:
        """How many of `wanted` connections may be opened now; they are counted as opened."""
        if now < self.reopen_at:
            return 0
        for door in (self.site, self.provider):
            wanted = min(wanted, door.slots.may_open(self.key))
        return self.opening.take(now, wanted) if wanted > 0 else 0

    def opened(self, now: float) -> None:
        """A connection has its place."""
        for door in (self.site, self.provider):
            door.slots.opened(self.key, now)

    def closed(self) -> None:
        """A connection gives its place up, whichever provider's it is by now."""
        for door in (self.site, self.provider):
            door.slots.closed(self.key)

    def content(self) -> None:
        """Nothing waits for a place."""
        for door in (self.site, self.provider):
            door.slots.content(self.key)

    def must_yield(self, now: float) -> bool:
        """Whether one connection should end, because others who share a door have none."""
        return self.site.slots.must_yield(self.key, now) or self.provider.slots.must_yield(self.key, now)

    def turned_away(self, now: float) -> None:
        """A dial was refused while others stand: a window that may not shrink must not hammer, either."""
        if now >= self.reopen_at:
            self.reopen_at = now + self.reopen_seconds
            self.reopen_seconds = min(2 * self.reopen_seconds, REOPEN_SECONDS_MAX)

    def let_in(self) -> None:
        """A connection is ready."""
        self.failures = 0
        self.reopen_seconds = REOPEN_SECONDS

    # --- the control loop ------------------------------------------------------------------------------

    def tick(self, now: float, *, busy: bool, open_connections: int) -> None:
        """Let the governor look, about twice a second; what it changed is noted."""
        self.governor.tick(now, busy, open_connections)
        self.publish_changes(now)

    def publish_changes(self, now: float) -> None:
        """Keep to what the governor says now. It tells of large steps; the rate moves in small ones, too."""
        self.throttle.set_rate(self.governor.rate_per_second, now)
        for change in self.governor.take_changes():
            self.note(self._event(change))

    def rest_for(self, now: float, seconds: float, why: str) -> None:
        """This path rests for `seconds` more; it is told when that is news."""
        if now + seconds > self.suspended_until + REST_NEWS_SECONDS:
            self.note_rest(seconds, why)
        self.suspend(now + seconds, why)

    def note_rest(self, seconds: float, why: str) -> None:
        self.note(Adapted(self.key, self.provider.name, "rest", None, round(seconds, 1), why))

    def suspend(self, until: float, why: str) -> None:
        """This path rests until then: its host refuses, or our code failed on it."""
        if until > self.suspended_until:
            self.suspended_until, self.suspended_why = until, why

    @property
    def _throttles(self) -> tuple[Throttle, Throttle, Throttle]:
        return self.throttle, self.site.throttle, self.provider.throttle

    @property
    def _start_per_second(self) -> float:
        """A rate that somebody said need not be found: it starts at its ceiling."""
        return math.inf if self.shaping.rate is not None or self.hasty else START_PER_SECOND

    @property
    def _burst_seconds(self) -> float:
        return FOUND_BURST_SECONDS if self.shaping.rate is None else self.shaping.burst_seconds

    def _event(self, change: Change) -> Adapted:
        knob = "connections" if change.knob is Knob.CONNECTIONS else "rate"
        return Adapted(
            self.key, self.provider.name, knob, change.before, change.after, change.reason, change.rule
        )
