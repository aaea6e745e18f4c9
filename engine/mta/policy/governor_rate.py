"""How fast one egress path may send: finds a receiver's unknown rate limit, and stays just below it.

It starts modestly and doubles while nobody objects and the path uses what it has. At the first refusal
it rests a second, and then lets single messages ask until one is accepted. What was accepted from
refusal to refusal, and from recovery to recovery, is what the receiver allows: both counts begin and
end with an empty allowance, whether the receiver counts with a leaking bucket or in fixed windows. The
rate then climbs in the manner of CUBIC (RFC 9438): fast towards the estimate, a plateau a little below
it, and after a while gently above. How long the plateau lasts is a matter of budget: all refusals must
be a small share of what was accepted, and the pauses that they cost a small share of the time.

Pure; `now` is monotonic seconds. A receiver that refuses everything is asked ever more rarely, at most
every PAUSE_SECONDS_MAX.
"""

from collections import deque
from enum import Enum

START_PER_SECOND = 20.0  # modest for every receiver; nine doublings to UNLIMITED_PER_SECOND
DOUBLING_SECONDS = 0.5
UNLIMITED_PER_SECOND = 10_000.0  # more than one engine sends: from here on the throttle would only cost
FLOOR_PER_SECOND = 1 / 60  # the slowest that shaping files of the trade set: 1 a minute
USED_SHARE = 0.25  # two doublings of lag: an answer a second away still counts as using the rate
CUT = 0.9  # CUBIC has 0.7, but the pause has already let the receiver recover
PLATEAU = 0.995
CLIMB_SECONDS = 10.0
PROBE_SECONDS, PROBE_STEP = 40.0, 0.04  # 4 % above the plateau after 40 s, 32 % after twice as long
LEARNING_EVENTS = 6  # the first estimates are bad, so the first probes are quick
PAUSE_SECONDS, PAUSE_FACTOR, PAUSE_SECONDS_MAX = 1.0, 1.5, 120.0
# A fast receiver's short window: a second too long costs more there than a refusal.
BRISK_PER_SECOND, BRISK_SECONDS, PAUSE_FACTOR_BRISK = 20.0, 6.0, 1.2
# Windows are a minute as a rule: for two minutes it asks often enough to see one end.
PAUSE_SECONDS_WINDOW, WINDOW_ENDS_SECONDS = 15.0, 120.0
ASK_PER_SECOND = 2.0
RELAPSE_SECONDS, RELAPSE_CUT = 5.0, 0.5  # refused so soon after its recovery: the event goes on
RELAPSES_TRUSTED = 3  # so long the last minute's mean may still be right: a sliding window is overfull
OUTAGE_SECONDS = 2.0  # refused for so long it was a window that had to end, and its length counts
CALM_FACTOR, CALM_SECONDS_MAX = 12.0, 1_500.0  # a pause may cost a twelfth of the time to the next
CALM_SECONDS_LEARNING = 10.0
BUDGET, BUDGET_FIRST = 300.0, 10.0  # accepted messages for each refusal: 0.33 %; less while it learns,
BUDGET_GROWTH = 1.5  # for eight events
CREDIBLE_SHARE = 0.2  # one event lowers it to a fifth at most: few messages measure badly
UNUSED_SHARE = 0.05  # of a rate that was hardly used: what was accepted says little then
PROBE_USED_SHARE = 0.7  # of the rate must be used before more is tried
WINDOW_SECONDS = 60.0  # receivers that count in windows count minutes most often
EARLY_STEP, EARLY_SHARE_MIN = 0.03, 0.7  # refused at or below the estimate: it was too high by 3 %, 6 %, ...
SAMPLES_MAX = 130  # a minute of ticks at two a second
RECENT_SECONDS, RECENT_COUNT, RECENT_SECONDS_MAX = 1.0, 20, 60.0


class Phase(Enum):
    STARTING = "slow start"
    PAUSED = "refused, asks again"
    CLIMBING = "climbs to its estimate"
    PLATEAU = "at its estimate"
    PROBING = "tries more"


class RateControl:
    """The rate of one path between `floor` and `ceiling` messages a second (None = no ceiling)."""

    def __init__(self, floor: float, ceiling: float | None, start: float, now: float) -> None:
        assert floor > 0
        assert ceiling is None or ceiling >= floor
        self.floor = floor
        self.ceiling = ceiling
        self.estimate: float | None = None  # what the receiver allows, once it has refused
        self.paused_until = now
        self.phase = Phase.STARTING
        self.accepted = 0
        self._rate: float | None = None
        self._set(start)
        self._samples = deque([(now, 0)], maxlen=SAMPLES_MAX)
        self._ticked_at = now
        self._pause_seconds = PAUSE_SECONDS
        self._events = 0
        self._calm_seconds = 0.0
        self._imposed_until = now
        self._imposed_seconds = 0.0  # pauses that the receiver asked for: no measure of what it allows
        self._paid_at = 0  # the count of accepted messages that makes up for all refusals
        self._refused_at = self._recovered_at = now
        self._refused = self._recovered = (now, 0)  # the clock then, and the count of accepted messages
        self._earlies = 0  # events in a row at or below the estimate
        self._most = 0.0
        self._relapses = 0
        self._climbed_seconds = 0.0
        self._probed_seconds = 0.0

    def __repr__(self) -> str:
        rate = "unlimited" if self._rate is None else f"{self._rate:.3g}/s"
        return f"<RateControl {rate}, {self.phase.value}>"

    @property
    def rate(self) -> float | None:
        """What holds now; while it asks, the pace of asking."""
        if self.phase is Phase.PAUSED and self._rate is not None:
            return min(self._rate, max(self.floor, ASK_PER_SECOND))
        return self._rate

    @property
    def asking(self) -> bool:
        """The next accepted message ends the event."""
        return self.phase is Phase.PAUSED

    def set_bounds(self, floor: float, ceiling: float | None) -> None:
        self.floor, self.ceiling = floor, ceiling
        if self._rate is not None or ceiling is not None:
            self._rate = self._bounded(UNLIMITED_PER_SECOND if self._rate is None else self._rate)

    def refused(self, now: float, retry_after_seconds: float, share: float = 1.0) -> bool:
        """The receiver refused for its rate. True: a new event; False: one more of the last one.

        `share` below 1 cuts deeper than the measurement says: the receiver thinks ill of us.
        """
        budget = min(BUDGET, BUDGET_FIRST * BUDGET_GROWTH ** min(self._events, 16))
        self._paid_at = max(self._paid_at, self.accepted) + int(budget)
        if self.phase is Phase.PAUSED:
            if now >= self.paused_until:  # it had been asked, and said no again
                self._pause_longer(now)
            self._impose(now, retry_after_seconds)
            return False
        if self.phase is not Phase.STARTING and now - self._recovered_at < RELAPSE_SECONDS:
            self._relapse(now)
        else:
            self._begin_event(now)
            self._pause_seconds = PAUSE_SECONDS
            self.paused_until = now + PAUSE_SECONDS
        assert self.estimate is not None
        self.estimate *= share
        self._rate = self._bounded(CUT * self.estimate)
        self.phase = Phase.PAUSED
        self._impose(now, retry_after_seconds)
        return True

    def _begin_event(self, now: float) -> None:
        probing = self.phase is Phase.PROBING
        measured = self._recent(now, self._probe_seconds if probing else RECENT_SECONDS)
        rate = measured if self._rate is None else self._rate
        if self.estimate is None:
            self.estimate = max(measured, UNUSED_SHARE * rate)
        elif probing:  # the limit lies between what went of late on average and what went at the end
            went = (measured + min(rate, 2 * measured)) / 2
            self.estimate = max(went, CREDIBLE_SHARE * self.estimate)
        else:
            self._most = rate * max(1 - EARLY_STEP * 2 ** min(self._earlies, 8), EARLY_SHARE_MIN)
            allowed = max(self._since(self._refused, now), self._recent(now, WINDOW_SECONDS))
            least = (self.accepted - self._refused[1]) / max(now - self._refused_at, 1e-3)
            self.estimate = max(min(allowed, self._most), least, CREDIBLE_SHARE * self.estimate)
        self._earlies = 0 if probing or not self._events else self._earlies + 1
        self._events += 1
        self._relapses = 0
        self._refused = self._mark(now)
        self._refused_at = now

    def _relapse(self, now: float) -> None:
        """Recovered too early. Once may be chance; then what is let in since the event began counts."""
        assert self.estimate is not None
        self._relapses += 1
        if self._relapses > 1 or self._events == 1:
            allowed = max(self._since(self._refused, now), RELAPSE_CUT * self.estimate)
            measured_seconds = self._clock(now) - self._samples[0][0]
            if self._relapses <= RELAPSES_TRUSTED and measured_seconds >= WINDOW_SECONDS:
                allowed = max(allowed, self._recent(now, WINDOW_SECONDS))
            self.estimate = min(self.estimate, allowed)
        self._pause_longer(now)

    def _pause_longer(self, now: float) -> None:
        most = PAUSE_SECONDS_WINDOW if now - self._refused_at < WINDOW_ENDS_SECONDS else PAUSE_SECONDS_MAX
        brisk = now - self._refused_at < BRISK_SECONDS and (self.estimate or 0.0) >= BRISK_PER_SECOND
        self._pause_seconds = min(self._pause_seconds * (PAUSE_FACTOR_BRISK if brisk else PAUSE_FACTOR), most)
        self.paused_until = now + self._pause_seconds

    def _impose(self, now: float, retry_after_seconds: float) -> None:
        """Rest for as long as the receiver asks."""
        until = now + retry_after_seconds
        if until > self.paused_until:
            self._imposed_seconds += until - max(now, self._imposed_until)
            self.paused_until = self._imposed_until = until

    def recover(self, now: float) -> None:
        """A message that asked was accepted: the event is over, and its length tells the limit."""
        assert self.phase is Phase.PAUSED
        assert self.estimate is not None
        allowed = self._since(self._recovered, now)
        if self._relapses:
            pass  # too short a time to measure
        elif self._events == 1:
            if self._clock(now) - self._refused[0] > OUTAGE_SECONDS:
                self.estimate = min(self.estimate, allowed)
                self._paid_at = self.accepted  # a first measure may be far off: it may look again soon
        elif self._earlies:
            self.estimate = max(self.estimate, min(allowed, self._most))
        calm = (now - self._refused_at) * CALM_FACTOR * self._learnt
        calm += max(0.0, self._calm_seconds - self._climbed_seconds)
        learning = self._events < LEARNING_EVENTS
        self._calm_seconds = min(calm, CALM_SECONDS_LEARNING if learning else CALM_SECONDS_MAX)
        self._recovered = self._mark(now)
        self._recovered_at = now
        self._rate = self._bounded(CUT * self.estimate)
        self.phase = Phase.CLIMBING
        self._climbed_seconds = self._probed_seconds = 0.0

    def tick(self, now: float, busy: bool) -> None:
        """Time has passed; `busy`: there was more to send than went. Growth happens here alone."""
        if now < self.paused_until:
            self._ticked_at = now
            return
        seconds, self._ticked_at = now - self._ticked_at, now
        accepted = self._samples[-1][1]
        self._samples.append(self._mark(now))
        if not busy or self._rate is None or self.phase is Phase.PAUSED:
            return
        if self.phase is Phase.STARTING:
            if self.accepted - accepted >= USED_SHARE * self._rate * seconds:
                self._set(self._rate * min(4.0, 2 ** (seconds / DOUBLING_SECONDS)))
            return
        assert self.estimate is not None
        self._climbed_seconds += seconds
        if self._climbed_seconds < CLIMB_SECONDS:
            missing = (1 - self._climbed_seconds / CLIMB_SECONDS) ** 3
            self._set(self.estimate * (PLATEAU - (PLATEAU - CUT) * missing))
            return
        calm = self._climbed_seconds >= self._calm_seconds and not self.messages_to_probe
        if self.phase is not Phase.PROBING and not calm:
            self.phase = Phase.PLATEAU
            self._set(PLATEAU * self.estimate)
            return
        self.phase = Phase.PROBING
        if self._recent(now, RECENT_SECONDS) < PROBE_USED_SHARE * self._rate:
            return
        self._probed_seconds += seconds
        share = PLATEAU + PROBE_STEP * (self._probed_seconds / self._probe_seconds) ** 3
        self._set(self.estimate * share)

    @property
    def messages_to_probe(self) -> int:
        """How many messages must be accepted before more is tried: the refusals' budget."""
        return max(0, self._paid_at - self.accepted)

    @property
    def _probe_seconds(self) -> float:
        return PROBE_SECONDS * self._learnt

    @property
    def _learnt(self) -> float:
        return min(1.0, self._events / LEARNING_EVENTS)

    def _set(self, rate: float) -> None:
        if self.ceiling is None and rate > UNLIMITED_PER_SECOND:
            self._rate = None
            return
        self._rate = self._bounded(rate)

    def _bounded(self, rate: float) -> float:
        return max(self.floor, rate if self.ceiling is None else min(rate, self.ceiling))

    def _clock(self, now: float) -> float:
        """Time as far as we were free to send."""
        return now - self._imposed_seconds

    def _mark(self, now: float) -> tuple[float, int]:
        return self._clock(now), self.accepted

    def _since(self, mark: tuple[float, int], now: float) -> float:
        return (self.accepted - mark[1]) / max(self._clock(now) - mark[0], 1e-3)

    def _recent(self, now: float, least_seconds: float) -> float:
        """Accepted messages a second in the last `least_seconds`, or as many as it takes to count 20."""
        found = 0.0
        for mark in reversed(self._samples):
            found = self._since(mark, now)
            seconds, count = self._clock(now) - mark[0], self.accepted - mark[1]
            if (seconds >= least_seconds and count >= RECENT_COUNT) or seconds >= RECENT_SECONDS_MAX:
                break
        return max(found if self._rate is None else min(found, self._rate), self.floor)
