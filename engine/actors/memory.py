"""What is known of paths and providers while no actor lives for them: an idle site is this record.

`PathMemory` joins what limits one egress path: its governor (window and rate, which move), its throttles,
its rests, and the door it shares with all sites of its provider (`ProviderMemory`: places, rate,
reactions, circuit breaker). The site asks it how many messages may go and how many connections may be
opened; connections tell it, through `feedback`, how they fared. Decides only by asking policy; what
changes is noted as an event with its reason. Nothing here waits or fails.
"""

import math
from collections.abc import Callable

from msgspec import Struct

from engine.actors.warming import WarmUpAccount
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


class ProviderMemory:
    """One provider over one source: the door that all its sites share."""

    __slots__ = (
        "breaker",
        "name",
        "reactions",
        "rest_reason",
        "rest_until",
        "slots",
        "source",
        "throttle",
        "warmup",
    )

    def __init__(self, name: str, source: str, shaping: Shaping, breaker: Breaker, now: float) -> None:
        self.name = name
        self.source = source
        self.breaker = breaker
        self.reactions = Reactions()
        self.slots = Slots(shaping.provider_connections)
        rate = shaping.provider_rate
        self.throttle = Throttle(None if rate is None else rate.ceiling, now, shaping.burst_seconds)
        self.warmup: WarmUpAccount | None = None
        self.rest_until = 0.0  # monotonic seconds
        self.rest_reason = ""

    def __repr__(self) -> str:
        return f"<Provider {self.name} via {self.source}: {self.slots!r}>"

    def reshape(self, shaping: Shaping, now: float) -> None:
        """Other rules hold from now on."""
        self.slots.limit = shaping.provider_connections
        rate = shaping.provider_rate
        per_second = None if rate is None else rate.ceiling.per_second
        self.throttle.set_rate(per_second, now, shaping.burst_seconds)


class PathMemory:
    """One egress path. Outlives its site actor."""

    __slots__ = (
        "failures",
        "governor",
        "hasty",
        "hush_until",
        "key",
        "note",
        "opening",
        "place",
        "provider",
        "reopen_at",
        "reopen_seconds",
        "shaping",
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
        self.hush_until = 0.0  # connections begin no message before: the path rests, or asks carefully
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
        return (until, why) if until > now else (0.0, "")

    def take(self, now: float, wanted: int) -> int:
        """How many of `wanted` messages may go now; they are counted as sent."""
        count = self.throttle.take(now, wanted)
        if not count:
            return 0
        allowed = self.provider.throttle.take(now, count)
        if allowed and self.provider.warmup is not None:
            warm = self.provider.warmup.take(allowed)
            self.provider.throttle.give_back(allowed - warm)
            allowed = warm
        self.throttle.give_back(count - allowed)
        return allowed

    def give_back(self, count: int) -> None:
        """Messages that were taken and not sent."""
        self.throttle.give_back(count)
        self.provider.throttle.give_back(count)
        if self.provider.warmup is not None:
            self.provider.warmup.give_back(count)

    def wait_seconds(self, now: float) -> float:
        """How long until the next message may go; inf = not today."""
        provider = self.provider
        if provider.warmup is not None and provider.warmup.exhausted:
            return math.inf
        return max(self.throttle.wait_seconds(now), self.provider.throttle.wait_seconds(now))

    def openings(self, now: float, wanted: int) -> int:
        """How many of `wanted` connections may be opened now; they are counted as opened."""
        if now < self.reopen_at:
            return 0
        wanted = min(wanted, self.provider.slots.may_open(self.key))
        return self.opening.take(now, wanted) if wanted > 0 else 0

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
        self.hush_until = max(self.hush_until, self.governor.paused_until)
        for change in self.governor.take_changes():
            self.note(self._event(change))

    def rest_for(self, now: float, seconds: float, why: str) -> None:
        """This path rests for `seconds` more; it is told when that is news."""
        if now + seconds > self.suspended_until + REST_NEWS_SECONDS:
            self.note(Adapted(self.key, self.provider.name, "rest", None, round(seconds, 1), why))
        self.suspend(now + seconds, why)

    def suspend(self, until: float, why: str) -> None:
        """This path rests until then: its host refuses, or our code failed on it."""
        if until > self.suspended_until:
            self.suspended_until, self.suspended_why = until, why
            self.hush_until = max(self.hush_until, until)

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
