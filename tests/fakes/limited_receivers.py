"""Receivers as models on virtual time, and a path that a governor steers towards them.

A receiver has an allowance (`Gcra`, `FixedWindows`, `SlidingWindow`, or none), a cap on connections,
and a capacity: beyond it messages queue and take longer. `drive` runs the closed loop in small steps:
tokens from a throttle, a flight time for messages and replies, several connections, a tick twice a
second. Nothing waits for real time, and the same arguments give the same run.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from engine.config.units import CountRange, RateRange
from engine.mta.policy.governor import Change, Governor
from engine.mta.policy.throttle import Throttle

TICK_SECONDS = 0.5
RULE, TEXT = "rate-ip", "421 4.7.28 unusual rate of mail from your address"
DIAL_RULE, DIAL_TEXT = "connections-ip", "421 4.7.0 too many connections"


class Allowance(Protocol):
    per_second: float

    def offer(self, now: float, count: int) -> int:
        """How many of `count` messages are accepted."""


class Unlimited:
    per_second = float("inf")

    def offer(self, now: float, count: int) -> int:
        return count


class Gcra:
    """A leaking bucket that holds `burst` messages."""

    def __init__(self, per_second: float, burst: float) -> None:
        self.per_second = per_second
        self._tolerance = (max(burst, 1.0) - 1) / per_second
        self._due = 0.0

    def offer(self, now: float, count: int) -> int:
        accepted = 0
        while accepted < count and self._due - now <= self._tolerance + 1e-9:
            self._due = max(self._due, now) + 1 / self.per_second
            accepted += 1
        return accepted


class FixedWindows:
    """So many in each window of the receiver's own clock."""

    def __init__(self, per_second: float, window_seconds: float, phase_seconds: float = 0.0) -> None:
        self._count = max(1, round(per_second * window_seconds))
        self.per_second = self._count / window_seconds
        self._window_seconds = window_seconds
        self._phase_seconds = phase_seconds
        self._window = -1
        self._left = 0

    def offer(self, now: float, count: int) -> int:
        window = int((now + self._phase_seconds) / self._window_seconds)
        if window != self._window:
            self._window, self._left = window, self._count
        accepted = min(count, self._left)
        self._left -= accepted
        return accepted


class SlidingWindow:
    """So many within any `window_seconds`."""

    def __init__(self, per_second: float, window_seconds: float) -> None:
        self._count = max(1, round(per_second * window_seconds))
        self.per_second = self._count / window_seconds
        self._window_seconds = window_seconds
        self._sent: deque[tuple[float, int]] = deque()
        self._inside = 0

    def offer(self, now: float, count: int) -> int:
        while self._sent and self._sent[0][0] <= now - self._window_seconds:
            self._inside -= self._sent.popleft()[1]
        accepted = min(count, self._count - self._inside)
        if accepted:
            self._sent.append((now, accepted))
            self._inside += accepted
        return accepted


@dataclass
class Receiver:
    allowance: Allowance = field(default_factory=Unlimited)
    connections_max: int = 1_000
    capacity_per_second: float = float("inf")
    round_trip_seconds: float = 0.1
    retry_after_seconds: float | None = None
    block_after_refusals: int = 0  # so many within a minute: blocked for block_seconds
    block_seconds: float = 600.0
    blocks: int = 0
    _blocked_until: float = 0.0
    _refusals: deque[float] = field(default_factory=deque)

    def offer(self, now: float, count: int) -> int:
        if now < self._blocked_until:
            return 0
        accepted = self.allowance.offer(now, count)
        if self.block_after_refusals and accepted < count:
            self._refusals.extend([now] * (count - accepted))
            while self._refusals and self._refusals[0] < now - 60.0:
                self._refusals.popleft()
            if len(self._refusals) >= self.block_after_refusals:
                self.blocks += 1
                self._blocked_until = now + self.block_seconds
                self._refusals.clear()
        return accepted


@dataclass
class Run:
    governor: Governor
    changes: list[Change]
    accepted: int = 0
    refused: int = 0
    dials_refused: int = 0
    seconds: float = 0.0
    opened: list[int] = field(default_factory=list)  # connections at each tick
    reached: dict[int, float] = field(default_factory=dict)  # accepted per second of each whole second

    @property
    def per_second(self) -> float:
        return self.accepted / self.seconds

    @property
    def refused_share(self) -> float:
        return self.refused / max(1, self.accepted + self.refused)


def drive(
    receiver: Receiver,
    seconds: float,
    *,
    warm_seconds: float = 0.0,
    connections: CountRange | None = None,
    rate: RateRange | None = None,
    in_flight: int = 50,
    step_seconds: float = 0.02,
    burst_seconds: float = 0.25,
    supply_per_second: float = float("inf"),
    start_connections: int = 2,
    change_at: dict[float, Allowance] | None = None,
) -> Run:
    """Run the loop for `seconds`; what is counted begins after `warm_seconds`.

    Each connection has up to `in_flight` messages under way. `supply_per_second`: how many are there to
    be sent. `change_at`: from then on the receiver has another allowance.
    """
    governor = Governor(connections or CountRange(1, 20), rate, 0.0, start_connections=start_connections)
    throttle = Throttle(None, 0.0, burst_seconds)
    throttle.set_rate(governor.rate_per_second, 0.0)
    run = Run(governor, [], seconds=seconds - warm_seconds)
    flight: deque[tuple[float, int, int, float]] = deque()
    now, next_tick, opened, under_way, ready, redial_at = 0.0, TICK_SECONDS, 0, 0, 0.0, 0.0
    changes = sorted((change_at or {}).items())
    left_over, served_at = False, 0.0
    while now < seconds:
        now += step_seconds
        if changes and now >= changes[0][0]:
            receiver.allowance = changes.pop(0)[1]
        while flight and flight[0][0] <= now:
            _, accepted, refused, took = flight.popleft()
            under_way -= accepted + refused
            if accepted:
                governor.delivered(now, accepted, accepted * took)
            for _ in range(refused):
                governor.rate_limited(
                    now, rule=RULE, text=TEXT, retry_after_seconds=receiver.retry_after_seconds
                )
            throttle.set_rate(governor.rate_per_second, now)
            run.reached[int(now)] = run.reached.get(int(now), 0) + accepted
            if now > warm_seconds:
                run.accepted += accepted
                run.refused += refused
        if now >= next_tick:
            next_tick += TICK_SECONDS
            governor.tick(now, left_over, opened)
            throttle.set_rate(governor.rate_per_second, now)
            run.changes += governor.take_changes()
            run.opened.append(opened)
            opened = min(opened, governor.connections)
        if now < governor.paused_until:
            continue
        while opened < governor.connections and now >= redial_at:
            if opened >= receiver.connections_max:
                governor.connection_refused(now, opened, DIAL_RULE, DIAL_TEXT)
                run.dials_refused += now > warm_seconds
                redial_at = now + 5.0
                break
            opened += 1
        ready = min(ready + supply_per_second * step_seconds, 1e6)
        room = opened * in_flight - under_way
        wanted = min(int(ready), max(0, room))
        taken = throttle.take(now, wanted)
        left_over = int(ready) > taken
        ready -= taken
        if taken:
            under_way += taken
            served_at = max(served_at, now + receiver.round_trip_seconds / 2)
            accepted = receiver.offer(served_at, taken)
            piece = max(1, int(min(receiver.capacity_per_second * step_seconds, taken)))
            while taken > 0:  # replies come one by one where the receiver is slow
                count = min(piece, taken)
                good = min(count, accepted)
                served_at += count / receiver.capacity_per_second
                due = served_at + receiver.round_trip_seconds / 2 - 1e-6
                flight.append((due, good, count - good, due - now))
                taken -= count
                accepted -= good
    run.changes += governor.take_changes()
    return run
