"""The shortest time in which a world's limits allow a list to be delivered.

A lower bound, on purpose: the best sender cannot beat it, and none reaches it quite. For each provider
it is the longest of

- attempts over the rate: (attempts - burst) / rate for an even rate, (windows needed - 1) x window for
  fixed windows, where a recipient that is greylisted, busy or hung up on costs a second attempt;
- attempts x time of service / connections, at the cap of connections, with the time that grows with them;
- the waits that somebody must sit out: greylisting, and then the longest trouble that passes by time.

Not counted: round trips, TLS, connecting and reconnecting, how long a retry waits beyond what it must, and
the sender's own speed. Of several sources it knows nothing: this is for one address. Providers are
independent, so the whole list takes as long as the slowest of them.
"""

import math
from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from bench.world.manners import Manners
from bench.world.spec import ProviderSpec, WorldSpec


class Bound(Struct, frozen=True):
    """What one provider's limits allow. `attempts` counts the repeats that its manners force."""

    messages: int
    attempts: int
    rate_seconds: float
    connections_seconds: float
    wait_seconds: float

    @property
    def seconds(self) -> float:
        return max(self.rate_seconds, self.connections_seconds, self.wait_seconds)


def bounds(spec: WorldSpec, recipients: Iterable[str]) -> dict[str, Bound]:
    """By provider; recipients without one (no such domain, null MX) cost nothing."""
    provider_of = {domain: each for each in spec.providers for domain in each.domains}
    messages, repeats = Counter[str](), Counter[str]()
    waits: dict[str, float] = {}
    for recipient in recipients:
        whom = recipient.lower()
        provider = provider_of.get(whom.rpartition("@")[2])
        if provider is None:
            continue
        again, wait_seconds = _repeats(provider, spec.seed, whom)
        messages[provider.name] += 1
        repeats[provider.name] += again
        waits[provider.name] = max(waits.get(provider.name, 0.0), wait_seconds)
    return {
        each.name: _bound(each.manners, messages[each.name], repeats[each.name], waits[each.name])
        for each in spec.providers
        if messages[each.name]
    }


def optimum_seconds(spec: WorldSpec, recipients: Iterable[str]) -> float:
    """The longest of all providers' bounds."""
    return max((bound.seconds for bound in bounds(spec, recipients).values()), default=0.0)


def allowed_per_second(manners: Manners) -> float:
    """What one source may send in the long run; infinite where nothing limits it."""
    rate = manners.rate_per_minute / 60.0 or math.inf
    if manners.rate_per_minute and manners.rate_window_seconds:
        rate = _window_count(manners) / manners.rate_window_seconds
    service = _service_seconds(manners)
    return min(rate, manners.connections_max / service if service and manners.connections_max else math.inf)


def _repeats(provider: ProviderSpec, seed: int, whom: str) -> tuple[int, float]:
    manners = provider.manners
    passing = [t for t in manners.troubles if not t.lasts and not t.accepts and t.hits(seed, whom)]
    again = sum(max(1, trouble.times) for trouble in passing)
    wait_seconds = max((trouble.seconds for trouble in passing), default=0.0)
    if manners.greylist_seconds:
        return again + 1, wait_seconds + manners.greylist_seconds
    return again, wait_seconds


def _bound(manners: Manners, messages: int, repeats: int, wait_seconds: float) -> Bound:
    attempts = messages + repeats
    rate_seconds = 0.0
    if manners.rate_per_minute and manners.rate_window_seconds:
        rate_seconds = (math.ceil(attempts / _window_count(manners)) - 1) * manners.rate_window_seconds
    elif manners.rate_per_minute:
        rate_seconds = max(0.0, attempts - manners.rate_burst) * 60.0 / manners.rate_per_minute
    service = _service_seconds(manners)
    connections_seconds = messages * service / manners.connections_max if manners.connections_max else 0.0
    return Bound(messages, attempts, rate_seconds, connections_seconds, wait_seconds)


def _window_count(manners: Manners) -> int:
    return max(1, int(manners.rate_per_minute / 60.0 * manners.rate_window_seconds))


def _service_seconds(manners: Manners) -> float:
    """How long one message keeps a connection busy when all that are allowed are open."""
    fixed = sum(manners.tarpit.get(verb, 0.0) for verb in ("mail", "rcpt", "data", "content"))
    return fixed + manners.tarpit_per_connection * manners.connections_max
