"""When will it be done? The forecast of `emass send` and `emass demo`, before the start and while it runs.

Before: the list is counted by domain, the largest domains' MX are looked up, what is beyond both is
extrapolated; providers with limits in the shaping have those, others a wide guess, so the band is wide
where nothing is known. While it runs: the engine's own figures, and what the events say of retries.
`policy.forecast` does the sums. Touches: the list and DNS, both for a limited time; nothing fails.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice

import trio
from msgspec import Struct
from msgspec.structs import replace

from control.cli.csv_source import CsvSource
from control.cli.errors import CliError
from control.cli.fold import Fold
from control.cli.people import People, Refused
from control.cli.visible import short
from control.cli.words import seconds_words, site_words
from engine.app import Engine, resolver_config
from engine.config import Config
from engine.model.egress import Source
from engine.model.reply import FailureKind
from engine.mta.net.addresses import is_public
from engine.mta.net.egress import egress_sources
from engine.mta.net.mx import Route
from engine.mta.net.resolver import Resolver
from engine.mta.policy.egress import DEFAULT_WAY, Egress
from engine.mta.policy.forecast import (
    DAY_SECONDS,
    Bound,
    Forecast,
    PathOutlook,
    Span,
    forecast,
    total,
    total_told,
)
from engine.mta.policy.shaping import ShapingRules, shaping_rules
from engine.runtime.clock import SystemClock

COUNT_SECONDS, COUNT_EVERY = 1.5, 2_000  # of the list: some 300,000 lines
DOMAINS_LOOKED_UP, LOOK_UP_SECONDS = 20, 2.0
RETRIES_AHEAD = 20
# What one engine sends where nothing else holds it: signed mail on two to eight cores.
ENGINE_PER_SECOND = Span(300.0, 1_500.0, 5_000.0)
GUESS_PER_SECOND = 10.0  # of a receiver whose limits nobody knows: the least of them, with the engine's most
MESSAGE_SECONDS = 0.3  # a message over the internet, on one connection
DEFERRED_SHARE = 0.03  # greylisting and full mailboxes, before anything was measured
MEASURED_MIN = 50  # attempts before their own share counts
REFRESH_SECONDS, REFRESH_COST_SHARE = 1.0, 0.01
SMALLER, PUT_OFF, RELAY = "the other domains", "what was put off", "the relay"


class Bounds:
    """Which limits hold for whom: by a running engine, or by the configuration alone."""

    def __init__(
        self,
        config: Config,
        rules: ShapingRules,
        source_for: Callable[[str, str], Source],
        quotas: Callable[[str, Source], tuple[int, ...]],
        day_seconds_left: float,
        *,
        relay: bool,
    ) -> None:
        self.rules = rules
        self.source_for = source_for
        self.quotas = quotas
        self.day_seconds_left = day_seconds_left
        self.relay = relay
        self.retry_seconds = _retry_seconds(config)

    def __repr__(self) -> str:
        return f"<Bounds {self.rules!r}>"

    @classmethod
    def of_engine(cls, engine: Engine) -> "Bounds":
        """With what the engine knows of warm-up days that were."""
        parts = engine.parts

        def quotas(provider: str, source: Source) -> tuple[int, ...]:
            account = parts.warm_up(provider, source)
            return () if account is None else account.ahead()

        left = DAY_SECONDS - parts.clock.now() % DAY_SECONDS
        relay = parts.static_route() is not None
        source_for = partial(parts.source_for, DEFAULT_WAY)
        return cls(parts.config, parts.shaping, source_for, quotas, left, relay=relay)

    @classmethod
    def of_config(cls, config: Config, *, relay: bool) -> "Bounds":
        """As if today were each warm-up plan's first day."""
        egress, rules = Egress(egress_sources(config)), shaping_rules(config)

        def quotas(provider: str, source: Source) -> tuple[int, ...]:
            plan = rules.warm_up(source.name, provider)
            return () if plan is None else plan.per_day

        def source_for(domain: str, provider: str) -> Source:
            return egress.source_for(DEFAULT_WAY, domain, lambda each: True)

        left = DAY_SECONDS - time.time() % DAY_SECONDS
        return cls(config, rules, source_for, quotas, left, relay=relay)

    def provider_of(self, route: Route, domain: str) -> str:
        return self.rules.provider_of([host.name for host in route.hosts], domain) or route.site


class Counted(Struct, frozen=True):
    """How many people of each domain the list has; `share` of it was read for that."""

    domains: Mapping[str, int]
    people: int
    share: float


def count_domains(source: CsvSource, now: Callable[[], float] = time.monotonic) -> Counted:
    """Read the list, for COUNT_SECONDS at most, and scale up what was read."""
    people, found, ends = People(source, ()), Counter[str](), now() + COUNT_SECONDS
    whole = True
    lines = iter(people)
    try:
        while some := list(islice(lines, COUNT_EVERY)):
            found.update(one.domain for one in some if not isinstance(one, Refused))
            if now() > ends:
                whole = False
                break
    except CliError:  # the run itself says what is wrong with the list
        pass
    read = people.accepted + people.refused
    share = 1.0 if whole or not read else min(1.0, read / max(people.total_estimate, read))
    scaled = {name: round(count / share) for name, count in found.items()}
    return Counted(scaled, round(sum(found.values()) / share), share)


def new_resolver(config: Config) -> Resolver:
    """One for the look-ups before the start; the engine has its own."""
    return Resolver(resolver_config(config, egress_sources(config)), SystemClock().monotonic)


async def find_routes(counted: Counted, resolver: Resolver) -> dict[str, Route | None]:
    """Of the largest domains: the route, or None where no mail can go. Where DNS fails: neither."""
    found: dict[str, Route | None] = {}

    async def look_up(domain: str) -> None:
        route = await resolver.mail_hosts(domain)
        if isinstance(route, Route):
            found[domain] = route
        elif route.kind is not FailureKind.DNS:
            found[domain] = None

    largest = sorted(counted.domains, key=lambda name: -counted.domains[name])
    with trio.move_on_after(LOOK_UP_SECONDS):
        async with trio.open_nursery() as nursery:
            for domain in largest[:DOMAINS_LOOKED_UP]:
                nursery.start_soon(look_up, domain)
    return found


def first_outlooks(
    counted: Counted, routes: Mapping[str, Route | None], bounds: Bounds, share_left: float = 1.0
) -> list[PathOutlook]:
    """What shaping and warm-up plans say of a list of which `share_left` is to be sent."""

    def outlook(provider: str, waiting: float) -> PathOutlook:
        return PathOutlook(
            provider,
            round(waiting * share_left),
            deferred_share=DEFERRED_SHARE,
            retry_seconds=bounds.retry_seconds,
        )

    if bounds.relay:
        return [outlook(RELAY, counted.people)]
    rest = counted.people
    waiting: Counter[str] = Counter()
    known: dict[str, PathOutlook] = {}
    for domain, route in routes.items():
        rest -= counted.domains[domain]
        if route is None:
            continue  # refused at once, and no receiver is asked
        name = bounds.provider_of(route, domain)
        waiting[name] += counted.domains[domain]
        if name not in known:
            known[name] = _bounded(bounds, outlook(name, 0), route, domain)
    found = [replace(one, waiting=round(waiting[name] * share_left)) for name, one in known.items()]
    if rest > 0:
        found.append(outlook(SMALLER, rest))
    return found


def _bounded(bounds: Bounds, outlook: PathOutlook, route: Route, domain: str) -> PathOutlook:
    source = bounds.source_for(domain, outlook.provider)
    shaping = bounds.rules.path(source.name, route.site, [host.name for host in route.hosts], domain)
    rates = [each for each in (shaping.rate, shaping.provider_rate) if each is not None]
    connections = shaping.connections.ceiling
    if shaping.provider_connections is not None:
        connections = min(connections, shaping.provider_connections)
    far = any(is_public(address) for host in route.hosts for address in host.addresses)
    return replace(
        outlook,
        rate_floor=min((each.floor.per_second for each in rates), default=GUESS_PER_SECOND),
        rate_ceiling=min((each.ceiling.per_second for each in rates), default=ENGINE_PER_SECOND.expected),
        connections=connections,
        message_seconds=MESSAGE_SECONDS if far else 0.0,
        quotas=bounds.quotas(outlook.provider, source),
        day_seconds_left=bounds.day_seconds_left,
    )


def predict(outlooks: list[PathOutlook]) -> Forecast:
    """One forecast of it all."""
    return total(forecast(outlooks, ENGINE_PER_SECOND))


def announce(found: Forecast, outlooks: list[PathOutlook]) -> str:
    """The forecast before the start, in a line; it says so where it is a guess."""
    guessed = sum(one.waiting > 0 and one.rate_floor == GUESS_PER_SECOND for one in outlooks)
    guess = f"; the limits of {guessed} of the large receivers are not known yet" if guessed else ""
    return f"Forecast: {short(site_words(found.sentence), 300)}{guess}"


class Running:
    """The forecast while it runs, renewed every second, or more rarely where that would cost the engine."""

    def __init__(self, engine: Engine, fold: Fold) -> None:
        self._engine = engine
        self._fold = fold
        self._at = 0.0
        self._slowest = ""
        self._untold = 0
        self.latest: Forecast | None = None

    def __repr__(self) -> str:
        return f"<Running forecast: {'none yet' if self.latest is None else self.latest.sentence}>"

    def look(self, left: int, now: float) -> str:
        """In words, for `left` messages; "" while nothing can be said."""
        if now >= self._at:
            began = time.perf_counter()
            providers = forecast(self._outlooks(left), ENGINE_PER_SECOND)
            self.latest, self._untold = total_told(providers)
            self._slowest = max(
                (one for one in providers if one.expected_seconds is not None),
                key=lambda one: one.expected_seconds or 0.0,
                default=self.latest,
            ).provider
            cost = time.perf_counter() - began
            self._at = now + max(REFRESH_SECONDS, cost / REFRESH_COST_SHARE)
        assert self.latest is not None
        more = f"; {self._untold:,} to receivers that cannot be reached" if self._untold else ""
        return describe(self.latest, self._slowest) + more

    def _outlooks(self, left: int) -> list[PathOutlook]:
        """The engine's, scaled to what is left: what is still being read goes where the rest went."""
        engine, fold = self._engine, self._fold
        found = [one for one in engine.outlooks() if one.waiting]
        put_off = min(fold.retrying, left)
        routed, fresh = sum(one.waiting for one in found), left - put_off
        share = fold.put_off / fold.attempts if fold.attempts >= MEASURED_MIN else DEFERRED_SHARE
        if routed and fresh > routed:
            found = [replace(one, waiting=round(one.waiting * fresh / routed)) for one in found]
        elif fresh > routed:
            found.append(PathOutlook(SMALLER, fresh))
        found = [replace(one, deferred_share=share) for one in found]
        if put_off:
            again = fold.put_off_again / fold.retries if fold.retries >= MEASURED_MIN else share
            due = engine.parts.spool.next_due()
            wait = 0.0 if due is None else max(0.0, due - engine.parts.clock.now())
            retries = _retry_seconds(engine.parts.config)
            found.append(
                PathOutlook(
                    PUT_OFF, put_off, deferred_share=again, retry_seconds=retries, paused_seconds=wait
                )
            )
        return found


def describe(found: Forecast, slowest: str) -> str:
    """ "done in about 12 min (8-20 min), held up by lanternpost: rate"."""
    if found.expected_seconds is None or found.low_seconds is None:
        return f"when it is done cannot be told ({short(site_words(slowest), 40)}: {found.bound_by.value})"
    high = "?" if found.high_seconds is None else seconds_words(found.high_seconds)
    band = f"{seconds_words(found.low_seconds)} to {high}"
    if slowest == PUT_OFF or found.bound_by is Bound.RETRIES:
        what = "retries"
    elif found.bound_by is Bound.ENGINE:
        what = "what this engine can do"
    else:
        what = f"{short(site_words(slowest), 40)}: {found.bound_by.value}"
    return f"done in about {seconds_words(found.expected_seconds)} ({band}), held up by {what}"


def _retry_seconds(config: Config) -> tuple[float, ...]:
    """When the first, second, ... retry is over, by the node's own curve."""
    curve = config.engine.retry
    found, at, wait = [], 0.0, float(curve.first)
    for _ in range(RETRIES_AHEAD):
        at += wait
        found.append(at)
        wait = min(wait * curve.factor, float(curve.max))
    return tuple(found)
