"""When will it be done? For each provider and in all, under present limits and warm-up plans.

Each egress path has so many messages waiting and may send so fast; a pause comes before, the retries of
those put off come after, a warm-up plan spreads the rest over days, and all paths share what the engine
can do. A forecast is three figures, and it says what binds it. A rate that was measured for long makes
the three close; where only bounds are known they lie far apart; where nothing is known, or a suspension
has no end, they are None and the sentence says why. Pure, and linear in the number of paths.
"""

from collections.abc import Iterable
from enum import Enum
from math import inf, isfinite, log, sqrt

from msgspec import Struct

MEASURED_BAND = 0.1  # rates of receivers differ by such a share from hour to hour
MEASURED_COUNT = 100.0  # messages; a count's own error is one in its root
BAND_MAX = 0.8
GUESS_BAND = 3.0  # an unmeasured path with one bound: three times faster or slower
DAY_SECONDS = 86_400.0
LEFT_OVER = 0.5  # less than half a message still put off is none


class Bound(Enum):
    """What a forecast hangs on most."""

    RATE = "rate"
    CONNECTIONS = "connections"
    WARM_UP = "warm-up"
    SUSPENDED = "suspended"
    ENGINE = "engine"
    RETRIES = "retries"
    UNKNOWN = "unknown"
    NOTHING = "nothing"


class Span(Struct, frozen=True):
    """Three figures, `low` <= `expected` <= `high`; inf is a figure too."""

    low: float
    expected: float
    high: float


class PathOutlook(Struct, frozen=True):
    """What is known of one egress path.

    `waiting` messages; `per_second` accepted lately while the path was busy, over `measured_count`
    messages (0: not measured). `rate_floor` and `rate_ceiling`: bounds of its shaping, None = none.
    `connections` may be open, a message takes one of them `message_seconds` (0: not measured).
    `quotas`: what the warm-up plan allows today and on each later day, () = no limit; its day ends in
    `day_seconds_left`. `deferred_share` of the attempts is put off, the k-th time until
    `retry_seconds[k]` after the first. `paused_seconds`: until it may send; inf = until somebody resumes.
    """

    provider: str
    waiting: int
    per_second: float = 0.0
    measured_count: int = 0
    rate_floor: float | None = None
    rate_ceiling: float | None = None
    connections: int = 0
    message_seconds: float = 0.0
    quotas: tuple[int, ...] = ()
    day_seconds_left: float = DAY_SECONDS
    deferred_share: float = 0.0
    retry_seconds: tuple[float, ...] = ()
    paused_seconds: float = 0.0


class Forecast(Struct, frozen=True):
    """Seconds until `messages` are done; None = cannot be told, `sentence` says why."""

    provider: str
    messages: int
    low_seconds: float | None
    expected_seconds: float | None
    high_seconds: float | None
    bound_by: Bound
    sentence: str


class _Part(Struct, frozen=True):
    """One path's own time, were it alone on the engine. `demand`: messages a second that it would send."""

    messages: int
    attempts: float
    seconds: Span
    bound_by: Bound
    demand: float


def forecast(paths: Iterable[PathOutlook], engine: Span | None = None) -> list[Forecast]:
    """One forecast for each provider, the longest first. `engine`: messages a second that it can send."""
    parts: dict[str, list[_Part]] = {}
    for path in paths:
        if path.waiting > 0:
            parts.setdefault(path.provider, []).append(_part(path, engine))
    every = [part for group in parts.values() for part in group]
    shared = _Engine(engine, every)
    found = [_joined(provider, group, shared) for provider, group in parts.items()]
    return sorted(found, key=lambda one: -inf if one.expected_seconds is None else -one.expected_seconds)


def total(forecasts: Iterable[Forecast]) -> Forecast:
    """All of it: as long as the slowest provider. One that cannot be told leaves the whole untold."""
    found = list(forecasts)
    messages = sum(one.messages for one in found)
    if not found:
        return Forecast("", 0, 0.0, 0.0, 0.0, Bound.NOTHING, "nothing waits")
    untold = next((one for one in found if one.expected_seconds is None), None)
    slowest = untold or max(found, key=lambda one: one.expected_seconds or 0.0)
    low = max(one.low_seconds or 0.0 for one in found)
    highs = [one.high_seconds for one in found]
    known = [high for high in highs if high is not None]
    seconds = Span(
        low,
        inf if untold else max(one.expected_seconds or 0.0 for one in found),
        max(known) if len(known) == len(highs) else inf,
    )
    return _told("", messages, seconds, slowest.bound_by, slowest.provider)


def total_told(forecasts: Iterable[Forecast]) -> tuple[Forecast, int]:
    """All of what can be told, and how many messages cannot; where none can, all of it untold."""
    found = list(forecasts)
    told = [one for one in found if one.expected_seconds is not None]
    if not told:
        return total(found), 0
    return total(told), sum(one.messages for one in found) - sum(one.messages for one in told)


class _Engine:
    """How far the engine stretches what its paths would do alone."""

    def __init__(self, rate: Span | None, parts: list[_Part]) -> None:
        attempts = sum(part.attempts for part in parts)
        demand = sum(part.demand for part in parts)
        self.stretch = Span(1.0, 1.0, 1.0)
        self.least = Span(0.0, 0.0, 0.0)
        if rate is not None:
            self.stretch = Span(*(max(1.0, demand / one) for one in (rate.high, rate.expected, rate.low)))
            self.least = Span(*(attempts / one for one in (rate.high, rate.expected, rate.low)))

    def share(self, alone: Span) -> Span:
        """A path slows down with the others, but no longer than it takes to do everything."""
        low = alone.low  # the others may be done soon
        expected = min(alone.expected * self.stretch.expected, max(alone.expected, self.least.expected))
        high = min(alone.high * self.stretch.high, max(alone.high, self.least.high))
        return Span(low, max(low, expected), max(low, expected, high))


def _joined(provider: str, parts: list[_Part], engine: _Engine) -> Forecast:
    slowest = max(parts, key=lambda part: part.seconds.expected)
    spans = [engine.share(part.seconds) for part in parts]
    seconds = Span(
        max(span.low for span in spans),
        max(span.expected for span in spans),
        max(span.high for span in spans),
    )
    bound = slowest.bound_by
    if isfinite(seconds.expected) and seconds.expected > 1.2 * slowest.seconds.expected:
        bound = Bound.ENGINE
    return _told(provider, sum(part.messages for part in parts), seconds, bound, provider)


def _part(path: PathOutlook, engine: Span | None) -> _Part:
    attempts = path.waiting / (1 - min(max(path.deferred_share, 0.0), 0.95))
    rate, bound = _rate(path, engine)
    if path.paused_seconds == inf:
        return _Part(path.waiting, attempts, Span(inf, inf, inf), Bound.SUSPENDED, 0.0)
    if rate is None:
        return _Part(path.waiting, attempts, Span(0.0, inf, inf), Bound.UNKNOWN, 0.0)
    pause = max(path.paused_seconds, 0.0)
    moving = [attempts / one for one in (rate.high, rate.expected, rate.low)]
    tails = [_tail(path, less) for less in (1, 0, -1)]
    days = _days(path, pause)
    sums = []
    for work, tail in zip(moving, tails, strict=True):
        sums.append(max(pause + work, days) + tail)
    main = moving[1]
    weights = {
        bound: main,
        Bound.SUSPENDED: pause,
        Bound.WARM_UP: days - pause - main,
        Bound.RETRIES: tails[1],
    }
    heaviest = max(weights, key=lambda one: weights[one])
    return _Part(path.waiting, attempts, Span(*sums), heaviest, rate.expected)


def _rate(path: PathOutlook, engine: Span | None) -> tuple[Span | None, Bound]:
    """Messages a second of the path, and what holds it there. None: nobody knows."""
    by_connections = inf
    if path.message_seconds > 0 and path.connections > 0:
        by_connections = path.connections / path.message_seconds
    if path.per_second > 0:
        band = min(MEASURED_BAND + sqrt(1 / max(path.measured_count, 1)), BAND_MAX)
        most = inf if path.rate_ceiling is None else path.rate_ceiling
        expected = min(path.per_second, most)
        near = by_connections < 1.25 * expected
        low, high = expected * (1 - band), min(expected * (1 + band), max(most, expected))
        return Span(low, expected, high), Bound.CONNECTIONS if near else Bound.RATE
    ceiling = min(by_connections, inf if path.rate_ceiling is None else path.rate_ceiling)
    if not isfinite(ceiling):
        if engine is None:
            return None, Bound.UNKNOWN
        return Span(engine.low / GUESS_BAND, engine.expected, engine.high), Bound.ENGINE
    floor = ceiling / GUESS_BAND**2 if path.rate_floor is None else min(path.rate_floor, ceiling)
    bound = Bound.CONNECTIONS if ceiling == by_connections else Bound.RATE
    return Span(floor, sqrt(floor * ceiling), ceiling), bound


def _days(path: PathOutlook, pause: float) -> float:
    """Seconds until the warm-up plan has let everything go: the start of the day on which the last goes."""
    left = path.waiting
    for index, quota in enumerate(path.quotas):
        left -= quota
        if left <= 0:
            begins = 0.0 if index == 0 else path.day_seconds_left + (index - 1) * DAY_SECONDS
            return max(begins, pause)
    if not path.quotas:
        return 0.0
    return path.day_seconds_left + (len(path.quotas) - 1) * DAY_SECONDS


def _tail(path: PathOutlook, less: int) -> float:
    """Seconds that the last ones put off still wait, one round fewer or more for a margin."""
    share = min(path.deferred_share, 0.95)
    if share <= 0 or not path.retry_seconds or path.waiting * share < LEFT_OVER:
        return 0.0
    rounds = log(LEFT_OVER / path.waiting) / log(share)
    index = min(max(int(rounds) - 1 - less, 0), len(path.retry_seconds) - 1)
    return path.retry_seconds[index]


def _told(provider: str, messages: int, seconds: Span, bound: Bound, where: str) -> Forecast:
    """The forecast with its sentence; inf becomes None, since nobody can wait for it."""
    whom = f" to {provider}" if provider else " in all"
    told = f"{messages:,} messages{whom}: "
    low, expected, high = (
        one if isfinite(one) else None for one in (seconds.low, seconds.expected, seconds.high)
    )
    if expected is None:
        why = {
            Bound.SUSPENDED: "suspended without an end",
            Bound.UNKNOWN: "nothing has been measured and no limit is set",
        }.get(bound, "a part of it has no end")
        at = f" ({where})" if where and not provider else ""
        return Forecast(provider, messages, low, None, None, bound, f"{told}cannot be told, {why}{at}")
    far = "no end in the worst case" if high is None else _duration_text(high)
    band = f"{_duration_text(low or 0.0)} to {far}"
    by = {Bound.ENGINE: "what the engine can do", Bound.RETRIES: "the retries of what is put off"}
    what = by.get(bound, f"its {bound.value}" if bound is not Bound.SUSPENDED else "a suspension")
    at = f" at {where}" if where and not provider else ""
    sentence = f"{told}about {_duration_text(expected)} ({band}), bound by {what}{at}"
    return Forecast(provider, messages, low, expected, high, bound, sentence)


def _duration_text(seconds: float) -> str:
    """Two units at most: "2 h 10 min", "45 s"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
