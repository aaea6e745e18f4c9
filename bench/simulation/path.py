"""One egress path as a fluid: real governor, throttle, warm-up and retry curve, in steps, not messages.

A step is decided in halves, because paths of several broadcasters may meet one shared limit: `wants` says
how many messages would go (work at hand, rate, window, quota, what the engine's speed leaves), `let_in`
what the receiver's own limit for this address takes of them, and `went` is told how it ended. Receivers
count as `bench.world`'s do: with GCRA, or in fixed windows. Pure: `now` and the dice are arguments.

What is left out: single connections and their ends, the texts of replies, reputation, TLS. A refused
message waits for the first retry interval, as in the engine; a refusal ends the path's step, since its
connections are told at once.
"""

import heapq
import math

from bench.simulation.providers import Provider
from engine.config.units import Rate
from engine.mta.policy.governor import Governor
from engine.mta.policy.governor_rate import START_PER_SECOND
from engine.mta.policy.retry import retry_at
from engine.mta.policy.throttle import Throttle
from engine.mta.policy.warmup import WarmUp

DAY_SECONDS = 86_400
LOOK_SECONDS = 0.5  # how often an engine's control loop looks
DRIFT_SECONDS, DRIFT_SECONDS_MAX = 2.5, 10.0  # enough while the rate drifts, as when a little more is tried
STEADY_PER_SECOND, DRIFT_PER_SECOND = 0.0002, 0.02  # shares of a rate that it moves by in a second
NEVER = math.inf


class Allowance:
    """What a receiver lets in: an even rate with a burst, or so many in each fixed window. inf = anything."""

    __slots__ = ("_began", "_burst_seconds", "_per_second", "_taken", "_throttle", "_window_seconds")

    def __init__(self, per_second: float, burst_seconds: float, window_seconds: float = 0.0) -> None:
        self._per_second = per_second
        self._burst_seconds = max(burst_seconds, 1 / per_second)
        self._window_seconds = window_seconds
        self._began = -math.inf
        self._taken = 0
        self._throttle: Throttle | None = None
        if not math.isinf(per_second) and not window_seconds:
            self._throttle = Throttle(_rate(per_second), 0.0, self._burst_seconds)

    def __repr__(self) -> str:
        return f"<Allowance {self._per_second:.3g}/s>"

    @property
    def unlimited(self) -> bool:
        return math.isinf(self._per_second)

    def take(self, now: float, seconds: float, wanted: int) -> int:
        """How many of `wanted` messages, spread over the step from `now` on, are let in."""
        if self._throttle is not None:  # what flows in during the step may go as well, burst or not
            self._throttle.set_rate(self._per_second, now, self._burst_seconds + seconds)
            return self._throttle.take(now + seconds, wanted)
        if not self._window_seconds:
            return wanted
        if now - self._began >= self._window_seconds:  # a window begins with its first message
            self._began, self._taken = now, 0
        allowed = min(wanted, max(1, int(self._per_second * self._window_seconds)) - self._taken)
        self._taken += allowed
        return allowed

    def give_back(self, count: int) -> None:
        """So many of those let in did not come after all: their connection had been told to wait."""
        if self._throttle is not None:
            self._throttle.give_back(count)
        elif self._window_seconds:
            self._taken -= count


class FluidPath:
    """One address of one broadcaster at one provider."""

    def __init__(
        self,
        provider: Provider,
        now: float,
        warm_up: tuple[int, ...] = (),
        drift_seconds: float = DRIFT_SECONDS,
    ) -> None:
        self.provider = provider
        self.fresh = 0  # never tried
        self.again = 0  # put off once, and due
        self.deferred = 0
        self.tried = 0  # first attempts that are over
        self.attempts = 0
        self.refused = 0
        self.finished = 0
        self.connections_open = 0
        self._stride = LOOK_SECONDS  # inf: nothing moves, a long step tells the same as short ones
        self._drift_seconds = drift_seconds
        self.allowance = Allowance(
            provider.per_second * max(1, provider.sites), provider.burst_seconds, provider.window_seconds
        )
        self._warm_up = WarmUp(warm_up) if warm_up else None
        self._taken_on = 0
        self._due: list[tuple[float, int]] = []
        self._owed = [0.0, 0.0]  # parts of a message that will be greylisted, or find its mailbox busy
        self._slots = 0.0
        self.start_anew(now)

    def __repr__(self) -> str:
        waits = f"{self.ready:,} ready, {self.deferred:,} deferred"
        return f"<FluidPath {self.provider.name}: {waits}, {self.governor!r}>"

    @property
    def ready(self) -> int:
        return self.fresh + self.again

    @property
    def waiting(self) -> int:
        return self.fresh + self.again + self.deferred

    def start_anew(self, now: float) -> None:
        """A new process: what was learnt is gone, what waits is in the spool."""
        provider, shaping = self.provider, self.provider.shaping
        self.governor: Governor | None = None
        self._door: Throttle | None = None
        self._throttle = Throttle(None, now)
        self._rate: float | None = None
        self._window = 0
        self._stride = LOOK_SECONDS if provider.sites == 1 else math.inf
        if provider.sites != 1:
            return
        start = START_PER_SECOND if shaping.rate is None else math.inf
        self.governor = Governor(shaping.connections, shaping.rate, now, start_per_second=start)
        if shaping.provider_rate is not None:
            self._door = Throttle(shaping.provider_rate.ceiling, now)

    def drop(self) -> int:
        """All that waits is given up: its broadcaster is retired. Returns how many."""
        count = self.waiting
        self.fresh = self.again = self.deferred = 0
        self._due.clear()
        return count

    # --- what comes due --------------------------------------------------------------------------------

    def wake(self, now: float) -> None:
        """What was put off and is due is ready again."""
        while self._due and self._due[0][0] <= now:
            count = heapq.heappop(self._due)[1]
            self.deferred -= count
            self.again += count

    def next_at(self, now: float) -> float:
        """When something may go; `now` when it may at once, NEVER when nothing waits."""
        if not self.ready:
            return self._due[0][0] if self._due else NEVER
        if self.over_quota(now):
            return (now // DAY_SECONDS + 1) * DAY_SECONDS
        if self.governor is not None:
            return max(now, self.governor.paused_until)
        return now

    def over_quota(self, now: float) -> bool:
        """The warm-up plan lets nothing more go today."""
        return self._warm_up is not None and not self._warm_up.room(int(now // DAY_SECONDS))

    # --- a step ----------------------------------------------------------------------------------------

    def stride_seconds(self, now: float) -> float:
        """How long a part of a step may be from `now` on, so that the control loop is not cut short."""
        if self.governor is not None and self.governor.paused_until > now + LOOK_SECONDS:
            return self.governor.paused_until - now
        return self._stride

    def demand(self, now: float, seconds: float) -> int:
        """About how many would go in a step if the engine were infinitely fast. Changes nothing."""
        ready = self.ready
        if not ready or self.next_at(now) >= now + seconds:
            return 0
        governor = self.governor
        if governor is None:
            return min(ready, self._sites_take(seconds))
        most = self._carried(governor.connections, seconds) + 1
        rate = governor.rate_per_second
        return min(ready, int(most if rate is None else min(most, rate * seconds + 1)))

    def wants(self, now: float, seconds: float, speed_left: int) -> int:
        """How many go in the step from `now` on, before the receiver's word.

        `speed_left`: what of the engine's speed in this step is this path's.
        """
        count = min(self.ready, speed_left)
        governor, end = self.governor, now + seconds
        if count <= 0:
            return 0
        if governor is None:
            count = min(count, self._sites_take(seconds))
        elif end <= governor.paused_until:
            return 0
        else:
            self._open_connections(now, governor)
            self._slots = min(self._slots, 1.0) + self._carried(self.connections_open, seconds)
            count = min(count, int(self._slots))
            rate = governor.rate_per_second
            self._throttle.set_rate(rate, now, 0.0 if rate is None else seconds + 1 / rate)
            count = self._throttle.take(end, count)
            if self._door is not None:
                self._door.set_rate(self._door.per_second, now, seconds + 1.0)
                allowed = self._door.take(end, count)
                self._throttle.give_back(count - allowed)
                count = allowed
        if self._warm_up is not None:
            self._taken_on = int(now // DAY_SECONDS)
            warm = self._warm_up.take(self._taken_on, count)
            self._throttle.give_back(count - warm)
            count = warm
        return count

    def went(self, now: float, seconds: float, wanted: int, let_in: int, refused: int, chance: float) -> int:
        """Of `wanted`, so many were let in and so many refused; the others were not tried. Returns attempts.

        `chance` in [0, 1): the dice for retries.
        """
        end, kept_back = now + seconds, wanted - let_in - refused
        assert kept_back >= 0
        if kept_back:
            self._throttle.give_back(kept_back)
            if self._door is not None:
                self._door.give_back(kept_back)
            if self._warm_up is not None:
                self._warm_up.give_back(self._taken_on, kept_back)
        if let_in:
            self._receive(let_in, end, chance)
        if refused:
            self._take_up(refused)
            self._wait(refused, end, chance)
            self.refused += refused
        self.attempts += let_in + refused
        if self.governor is not None:
            self._tell(self.governor, end, seconds, let_in, refused)
        return let_in + refused

    @property
    def in_flight(self) -> int:
        """Messages on the wire when a refusal comes, and refused with it: one on each connection."""
        return max(1, self.connections_open)

    def _tell(self, governor: Governor, end: float, seconds: float, let_in: int, refused: int) -> None:
        if let_in:
            self._slots -= let_in
            each = self.provider.message_seconds(self.connections_open)
            governor.delivered(end, let_in, let_in * each)
        if refused:
            governor.rate_limited(end, rule="rate-limited", text="421 4.7.0 too many messages")
        governor.tick(end, self.ready > 0, self.connections_open)
        rate, window = governor.rate_per_second, governor.connections
        if refused or governor.asking or window != self._window:
            self._stride = LOOK_SECONDS
        else:
            self._stride = self._stride_after(self._rate, rate, seconds)
        self._rate, self._window = rate, window

    def _stride_after(self, before: float | None, after: float | None, seconds: float) -> float:
        """How long a step may be, now that the rate went from one to the other in so many seconds."""
        if before == after:
            return math.inf
        if before is None or after is None:
            return LOOK_SECONDS
        moved = abs(after - before) / before / seconds
        if moved < STEADY_PER_SECOND:
            return math.inf
        return self._drift_seconds if moved < DRIFT_PER_SECOND else LOOK_SECONDS

    def _receive(self, count: int, end: float, chance: float) -> None:
        """`count` attempts were let in; first ones may be greylisted, or find their mailbox busy."""
        first = self._take_up(count)
        put_off = 0
        for index, share in enumerate((self.provider.greylisted_share, self.provider.busy_share)):
            self._owed[index] += first * share
            whole = min(int(self._owed[index]), first - put_off)
            self._owed[index] -= whole
            put_off += whole
        self.finished += count - put_off
        self._wait(put_off, end, chance)

    def _take_up(self, count: int) -> int:
        """`count` of those that are ready, the ones put off first; returns how many were never tried."""
        from_again = min(self.again, count)
        self.again -= from_again
        self.fresh -= count - from_again
        self.tried += count - from_again
        assert self.fresh >= 0
        return count - from_again

    def _wait(self, count: int, end: float, chance: float) -> None:
        if count:
            due = retry_at(self.provider.shaping.retry, 0, end, NEVER, chance, blameless=True)
            assert due is not None, "nothing expires here"
            self.deferred += count
            heapq.heappush(self._due, (due, count))

    def _open_connections(self, now: float, governor: Governor) -> None:
        """Open what the window allows; who lets in fewer says so, and the window follows."""
        allowed, limit = governor.connections, self.provider.shaping.provider_connections
        if limit is not None:
            allowed = min(allowed, limit)
        if allowed > self.provider.connections:
            allowed = self.provider.connections
            governor.connection_refused(now, allowed, "too-many-connections", "421 too many connections")
        self.connections_open = allowed

    def _carried(self, connections: int, seconds: float) -> float:
        """How many messages so many connections carry in a step."""
        connections = min(connections, self.provider.connections)
        return connections * seconds / self.provider.message_seconds(connections)

    def _sites_take(self, seconds: float) -> int:
        most = self.provider.source_per_second * seconds
        return 2**62 if math.isinf(most) else max(1, int(most))


def _rate(per_second: float) -> Rate:
    """As a count over seconds, which is how rates are written."""
    return Rate(1_000_000, 1_000_000 / per_second)
