"""The closed control loop of one egress path: how many connections, how many messages a second.

The receiver's limits are unknown. What it answers, how long that takes and what it refuses move two
knobs between floor and ceiling: down at once on a sign of displeasure, up again gradually
(`governor_window`: connections; `governor_rate`: rate). Each move is a `Change` that says why. An
operator may pin a knob, let it go again, or make the path start anew.

Every sign is kept as a `Signal`, the last SIGNALS_KEPT of them; `replay` feeds them again, so that what
the loop did, or would have done within other bounds, can be looked at afterwards. Pure; `now` is
monotonic seconds. The caller asks `connections`, `rate_per_second` and `paused_until` and keeps to them.
"""

from collections import deque
from collections.abc import Iterable
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from engine.config.units import CountRange, RateRange
from engine.mta.policy.governor_rate import FLOOR_PER_SECOND, START_PER_SECOND, RateControl
from engine.mta.policy.governor_window import FIRST_CONNECTIONS, WindowControl

SIGNALS_KEPT = 1_000  # 8 minutes of a busy path, hours of a quiet one; 0.2 MB
CHANGES_KEPT = 256  # the caller takes them at each tick
TEXT_MAX = 160  # characters of a reply that a signal keeps
REASON_TEXT_MAX = 80
CHANGE_SHARE = 0.2  # growth is told in steps of a fifth, cuts always
RETRY_AFTER_SECONDS_MAX = 3_600.0  # longer rests are for suspensions, which outlive this process
REPUTATION_SHARE = 0.5
RATE_BOUND_SHARE = 0.8


class Knob(Enum):
    CONNECTIONS = "connections"
    RATE = "rate"


class Change(Struct, frozen=True):
    """One knob moved. `None` = unlimited; `rule`: the reply rule that caused it, or ""."""

    at: float
    knob: Knob
    before: float | None
    after: float | None
    reason: str
    rule: str = ""


class SignalKind(Enum):
    TICK = "tick"
    ACCEPTED = "accepted"  # the first message after a pause
    RATE_LIMITED = "rate-limited"
    CONNECTION_REFUSED = "connection-refused"
    CLOSED = "closed-mid-session"
    REPUTATION = "reputation"
    PIN = "pin"
    UNPIN = "unpin"
    RESET = "reset"
    BOUNDS = "bounds"  # never kept: a replay has bounds of its own


class Signal(Struct, frozen=True, gc=False):
    """One thing that the loop was told; `delivered` messages in `seconds` were answered since the last."""

    at: float
    kind: SignalKind
    rule: str = ""
    text: str = ""
    open_connections: int = 0
    busy: bool = False
    retry_after_seconds: float = 0.0
    delivered: int = 0
    seconds: float = 0.0
    count: int = 1  # like signals in a row, while one event goes on
    knob: str = ""
    value: float | None = None


class Governor:
    """The loop of one path within `connections` and `rate` (None: the rate is found from nothing)."""

    def __init__(
        self,
        connections: CountRange,
        rate: RateRange | None,
        now: float,
        *,
        start_connections: int = FIRST_CONNECTIONS,
        start_per_second: float = START_PER_SECOND,
    ) -> None:
        self._start = (start_connections, start_per_second)
        self._signals: deque[Signal] = deque(maxlen=SIGNALS_KEPT)
        self._changes: deque[Change] = deque(maxlen=CHANGES_KEPT)
        self._delivered = 0
        self._seconds = 0.0
        self._pins: dict[Knob, float] = {}
        self._last: dict[Knob, Change] = {}
        self._ticked_at = now
        self._begin(connections.floor, connections.ceiling, *_rate_bounds(rate), now)

    def __repr__(self) -> str:
        window = self._window
        rate = _rate_text(self.rate_per_second)
        pins = "".join(f", {knob.value} pinned" for knob in self._pins)
        return f"<Governor {self.connections} of {window.floor}..{window.ceiling} connections, {rate}{pins}>"

    @property
    def start(self) -> tuple[int, float]:
        """With how many connections and how many messages a second it begins, for a replay."""
        return self._start

    @property
    def pinned(self) -> dict[str, float]:
        """Knob -> value, of those that an operator holds."""
        return {knob.value: value for knob, value in self._pins.items()}

    @property
    def connections(self) -> int:
        """How many may be open now."""
        pinned = self._pins.get(Knob.CONNECTIONS)
        return self._window.value if pinned is None else int(pinned)

    @property
    def rate_per_second(self) -> float | None:
        """How many messages a second may go now; None = as many as can."""
        pinned = self._pins.get(Knob.RATE)
        return self._rate.rate if pinned is None else pinned

    @property
    def asking(self) -> bool:
        """It was refused, and the next accepted message ends that."""
        return self._asking

    @property
    def paused_until(self) -> float:
        """No message goes before: the receiver asked for a pause, or lets nobody in."""
        return max(self._rate.paused_until, self._window.closed_until)

    def delivered(self, now: float, count: int = 1, seconds: float = 0.0) -> None:
        """`count` messages were answered and not refused for rate, `seconds` after hand-over in all."""
        self._delivered += count
        self._seconds += seconds
        if self._asking and now >= self._rate.paused_until:
            self._feed(Signal(now, SignalKind.ACCEPTED))

    def rate_limited(
        self, now: float, *, rule: str, text: str, retry_after_seconds: float | None = None
    ) -> None:
        """A message was refused for rate. The refusals of one flight are one event."""
        wait = min(max(retry_after_seconds or 0.0, 0.0), RETRY_AFTER_SECONDS_MAX)
        self._feed(
            Signal(now, SignalKind.RATE_LIMITED, rule, text[:TEXT_MAX], retry_after_seconds=wait), merge=True
        )

    def connection_refused(self, now: float, open_connections: int, rule: str, text: str) -> None:
        """A dial was turned away for our number of connections, while `open_connections` stood."""
        self._feed(Signal(now, SignalKind.CONNECTION_REFUSED, rule, text[:TEXT_MAX], open_connections))

    def closed_mid_session(self, now: float, open_connections: int, rule: str, text: str) -> None:
        """A session broke off with a message under way, without a cap per session being the reason."""
        self._feed(Signal(now, SignalKind.CLOSED, rule, text[:TEXT_MAX], open_connections))

    def reputation(
        self, now: float, *, rule: str, text: str, retry_after_seconds: float | None = None
    ) -> None:
        """The receiver thinks ill of this path: half of everything, and slow growth."""
        wait = min(max(retry_after_seconds or 0.0, 0.0), RETRY_AFTER_SECONDS_MAX)
        self._feed(Signal(now, SignalKind.REPUTATION, rule, text[:TEXT_MAX], retry_after_seconds=wait))

    def tick(self, now: float, busy: bool, open_connections: int) -> None:
        """About twice a second. `busy`: there was more to send than could go."""
        if not busy and not self._delivered and open_connections == 0:
            self._ticked_at = now
            return  # an idle path has nothing to tell, and nothing to replay
        self._feed(Signal(now, SignalKind.TICK, open_connections=open_connections, busy=busy))

    def pin(self, knob: Knob, value: float, now: float, reason: str) -> None:
        """Hold `knob` at `value`, within its bounds, whatever is learnt meanwhile. Pauses still hold."""
        self._feed(Signal(now, SignalKind.PIN, text=reason[:TEXT_MAX], knob=knob.value, value=value))

    def unpin(self, knob: Knob, now: float, reason: str) -> None:
        self._feed(Signal(now, SignalKind.UNPIN, text=reason[:TEXT_MAX], knob=knob.value))

    def reset(self, now: float, reason: str) -> None:
        """Forget pins and all that was learnt, and start anew."""
        self._feed(Signal(now, SignalKind.RESET, text=reason[:TEXT_MAX]))

    def set_bounds(
        self,
        connections: CountRange,
        rate: RateRange | None,
        now: float,
        reason: str,
        *,
        start_per_second: float,
    ) -> None:
        """Other shaping holds from now on; what was learnt stays. A reset starts at `start_per_second`."""
        before = self.connections, self.rate_per_second
        self._start = (self._start[0], start_per_second)
        self._window.set_bounds(connections.floor, connections.ceiling)
        self._rate.set_bounds(*_rate_bounds(rate))
        for knob, value in self._pins.items():
            self._pins[knob] = self._clamped(knob, value)
        signal = Signal(now, SignalKind.BOUNDS)
        self._tell(signal, Knob.CONNECTIONS, before[0], self.connections, reason)
        self._tell(signal, Knob.RATE, before[1], self.rate_per_second, reason)

    def take_changes(self) -> list[Change]:
        """What moved since the last call."""
        changes = list(self._changes)
        self._changes.clear()
        return changes

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The last SIGNALS_KEPT, oldest first."""
        return tuple(self._signals)

    def state(self) -> dict[str, object]:
        """What holds, between which bounds, why, and what is tried next: plain values for `queue explain`."""
        rate, window = self._rate, self._window
        return {
            "connections": self.connections,
            "connections_floor": window.floor,
            "connections_ceiling": window.ceiling,
            "connections_allowed": window.cap,
            "connections_why": self._why(Knob.CONNECTIONS),
            "connections_next_at": window.grow_at,
            "rate_per_second": self.rate_per_second,
            "rate_floor": rate.floor,
            "rate_ceiling": rate.ceiling,
            "rate_allowed": rate.estimate,
            "rate_phase": rate.phase.value,
            "rate_why": self._why(Knob.RATE),
            "rate_next_after_messages": rate.messages_to_probe,
            "paused_until": self.paused_until,
            "pinned": self.pinned,
        }

    def _begin(self, floor: int, ceiling: int, slowest: float, fastest: float | None, now: float) -> None:
        connections, per_second = self._start
        self._window = WindowControl(floor, ceiling, connections, now)
        self._rate = RateControl(slowest, fastest, per_second, now)
        self._asking = False
        self._told: dict[Knob, float | None] = {
            Knob.CONNECTIONS: self._window.value,
            Knob.RATE: self._rate.rate,
        }

    def _feed(self, signal: Signal, merge: bool = False) -> None:
        """Record `signal` with what was answered before it, and act on it."""
        if self._delivered or self._seconds:
            signal = replace(signal, delivered=self._delivered, seconds=self._seconds)
            self._delivered, self._seconds = 0, 0.0
        if merge and self._signals and signal.at < self._rate.paused_until:
            last = self._signals[-1]
            if signal == replace(last, at=signal.at, delivered=0, seconds=0.0, count=1):
                self._signals[-1] = replace(last, count=last.count + 1)
                self._act(signal)
                return
        self._signals.append(signal)
        self._act(signal)

    def _act(self, signal: Signal) -> None:
        now, rate, window = signal.at, self._rate, self._window
        before = self.connections, self.rate_per_second
        rate.accepted += signal.delivered
        reasons = {Knob.CONNECTIONS: "", Knob.RATE: ""}
        said = signal.text[:REASON_TEXT_MAX]
        match signal.kind:
            case SignalKind.TICK:
                reasons = self._tick(signal)
            case SignalKind.ACCEPTED:
                if rate.asking:
                    rate.recover(now)
                    allowed = _rate_text(rate.estimate)
                    reasons[Knob.RATE] = f"accepted again after a pause; about {allowed} are allowed"
            case SignalKind.RATE_LIMITED:
                if rate.refused(now, signal.retry_after_seconds):
                    reasons[Knob.RATE] = said or "refused for rate"
            case SignalKind.CONNECTION_REFUSED:
                reasons[Knob.CONNECTIONS] = window.refused(now, signal.open_connections) and (
                    said or "too many connections"
                )
            case SignalKind.CLOSED:
                reasons[Knob.CONNECTIONS] = window.closed(now)
            case SignalKind.REPUTATION:
                if rate.refused(now, signal.retry_after_seconds, REPUTATION_SHARE):
                    window.reputation(now)
                    reasons = dict.fromkeys(Knob, said or "the receiver thinks ill of this path")
            case SignalKind.PIN:
                assert signal.value is not None
                knob = Knob(signal.knob)
                self._pins[knob] = self._clamped(knob, signal.value)
                reasons[knob] = f"pinned: {said}"
            case SignalKind.UNPIN:
                knob = Knob(signal.knob)
                self._pins.pop(knob, None)
                reasons[knob] = f"no longer pinned: {said}"
            case SignalKind.RESET:
                self._pins.clear()
                self._begin(window.floor, window.ceiling, rate.floor, rate.ceiling, now)
                reasons = dict.fromkeys(Knob, f"started anew: {said}")
        self._asking = self._rate.asking
        self._tell(signal, Knob.CONNECTIONS, before[0], self.connections, reasons[Knob.CONNECTIONS])
        self._tell(signal, Knob.RATE, before[1], self.rate_per_second, reasons[Knob.RATE])

    def _tick(self, signal: Signal) -> dict[Knob, str]:
        now, rate = signal.at, self._rate
        allowed = self.rate_per_second
        seconds, self._ticked_at = now - self._ticked_at, now
        rate_bound = rate.asking or (
            allowed is not None and signal.delivered >= RATE_BOUND_SHARE * allowed * seconds
        )
        rate.tick(now, signal.busy)
        window = self._window.tick(
            now, signal.busy, rate_bound, signal.open_connections, signal.delivered, signal.seconds
        )
        return {Knob.CONNECTIONS: window, Knob.RATE: rate.phase.value}

    def _tell(
        self, signal: Signal, knob: Knob, before: float | None, after: float | None, reason: str
    ) -> None:
        if before == after or not reason:
            return
        told = self._told[knob]
        growing = signal.kind is SignalKind.TICK and knob is Knob.RATE
        if growing and told is not None and after is not None:
            if abs(after - told) < CHANGE_SHARE * told:
                return
            before = told
        if knob is Knob.RATE:
            move = f"from {_rate_text(before)} to {_rate_text(after)}"
        else:
            move = f"from {before} to {after}"
        word = "up" if (after or float("inf")) > (before or float("inf")) else "down"
        change = Change(signal.at, knob, before, after, f"{reason}: {word} {move}", signal.rule)
        self._told[knob] = after
        self._last[knob] = change
        self._changes.append(change)

    def _why(self, knob: Knob) -> str:
        last = self._last.get(knob)
        return "as it started" if last is None else last.reason

    def _clamped(self, knob: Knob, value: float) -> float:
        if knob is Knob.CONNECTIONS:
            return max(self._window.floor, min(int(value), self._window.ceiling))
        ceiling = self._rate.ceiling
        return max(self._rate.floor, value if ceiling is None else min(value, ceiling))


def replay(
    signals: Iterable[Signal],
    connections: CountRange,
    rate: RateRange | None,
    began: float,
    *,
    start_connections: int = FIRST_CONNECTIONS,
    start_per_second: float = START_PER_SECOND,
) -> list[Change]:
    """What a loop that began at `began` does when it is told `signals`.

    With all signals since its beginning and the same bounds these are the changes that happened; when
    the oldest signals are gone, or in other bounds, what would have happened.
    """
    governor = Governor(
        connections,
        rate,
        began,
        start_connections=start_connections,
        start_per_second=start_per_second,
    )
    changes = []
    for signal in signals:
        one = replace(signal, count=1)
        governor._act(one)
        for _ in range(signal.count - 1):
            governor._act(replace(one, delivered=0, seconds=0.0))
        changes += governor.take_changes()
    return changes


def _rate_bounds(rate: RateRange | None) -> tuple[float, float | None]:
    if rate is None:
        return FLOOR_PER_SECOND, None
    return rate.floor.per_second, rate.ceiling.per_second


def _rate_text(per_second: float | None) -> str:
    if per_second is None:
        return "unlimited"
    if per_second < 1:
        return f"{per_second * 60:.3g}/min"
    return f"{per_second:.3g}/s"
