"""Who a large list goes to, and what each provider lets one address, and one sending domain, do.

What a sender of ours allows itself at each provider (connections, messages for each, rates) is not
written here: it is looked up in the built-in shaping rules by the provider's MX hosts, as a running engine
does. What the *receivers* allow is an assumption, since nearly none publishes it: `per_second` and
`connections` hold for one address of ours, `shared_per_second` for a sending domain over all addresses,
`service_seconds` is one message on one connection with its round trips. The values are of the order that
senders with warm addresses report; the figures of a run are as good as they are, and `--limits` scales them.
`of_world` makes the same things out of the receivers of `bench.world`, whose limits are known.
"""

import math
from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from bench.world.manners import Manners, Moment
from bench.world.spec import ProviderSpec, WorldSpec
from engine.config.tables import Config
from engine.mta.policy.shaping import RetryCurve, Shaping, shaping_rules

REST = "others"
MIXES = ("real", "even", "uneven")
UNEVEN_SHARE = 0.6  # of the list at its largest provider
LOOPBACK_SECONDS = 0.004  # a transaction between two processes of one machine
BUSY_SHARE = 0.004  # of all recipients: put off once, whoever the provider is


class Provider(Struct, frozen=True, kw_only=True):
    """One mailbox provider: its part of the list, what it allows, and what we allow ourselves there.

    `sites` above 1: many small sites together, each far below any limit that an engine would have to
    find; `per_second` and `connections` then hold for each of them. 0: nothing limits, nothing is felt out.
    """

    name: str
    share: float
    shaping: Shaping
    domains: tuple[tuple[str, float], ...] = ()  # recipient domains and their parts of it; () = one domain
    per_second: float = math.inf
    burst_seconds: float = 1.0
    window_seconds: float = 0.0  # > 0: counted in fixed windows of this length
    connections: int = 1_000
    service_seconds: float = 0.1
    loaded_seconds: float = 0.0  # is added to it for each connection that is open
    setup_seconds: float = 0.2  # connecting, TLS, EHLO
    messages_per_connection: int = 1_000
    shared_per_second: float = math.inf
    greylisted_share: float = 0.0
    busy_share: float = BUSY_SHARE
    sites: int = 1

    @property
    def connections_usable(self) -> int:
        """What is open at best: what we allow ourselves, and what they let in."""
        ours = self.shaping.connections.ceiling
        if self.shaping.provider_connections is not None and self.sites == 1:
            ours = min(ours, self.shaping.provider_connections)
        return min(ours, self.connections)

    def message_seconds(self, connections: int) -> float:
        """One message's time on one of so many connections, its part of the set-up included."""
        per_connection = min(self.messages_per_connection, self.shaping.messages_per_connection)
        return self.service_seconds + self.loaded_seconds * connections + self.setup_seconds / per_connection

    @property
    def source_per_second(self) -> float:
        """What one address can do here at best, in the long run."""
        if not self.sites:
            return math.inf
        rates = [self.per_second, self.connections_usable / self.message_seconds(self.connections_usable)]
        if self.shaping.rate is not None:
            rates.append(self.shaping.rate.ceiling.per_second)
        if self.shaping.provider_rate is not None and self.sites == 1:
            rates.append(self.shaping.provider_rate.ceiling.per_second)
        return min(rates) * self.sites


class Known(Struct, frozen=True, kw_only=True):
    """A row of the table below: a provider of the built-in rules and what is assumed of it."""

    name: str
    share: float  # per cent of a consumer list of Europe and America
    hosts: tuple[str, ...]
    per_second: float
    domains: tuple[tuple[str, float], ...] = ()
    connections: int = 100
    service_seconds: float = 0.1
    greylisted_share: float = 0.0
    sites: int = 1


def _firms(name: str, count: int, share: float) -> tuple[tuple[str, float], ...]:
    """Domains of companies that a provider hosts."""
    return tuple((f"{name}-{number}.example", share / count) for number in range(count))


KNOWN = (
    Known(
        name="google",
        share=45,
        hosts=("gmail-smtp-in.l.google.com", "alt1.gmail-smtp-in.l.google.com"),
        per_second=60,
        domains=(("gmail.com", 0.85), ("googlemail.com", 0.05), *_firms("workspace", 20, 0.10)),
        service_seconds=0.15,
    ),
    Known(
        name="outlook",
        share=12,
        hosts=("outlook-com.olc.protection.outlook.com",),
        per_second=30,
        domains=(("hotmail.com", 0.55), ("outlook.com", 0.30), ("live.com", 0.10), ("msn.com", 0.05)),
    ),
    Known(
        name="microsoft",
        share=9,
        hosts=("acorn-bank.mail.protection.outlook.com",),
        per_second=40,
        domains=_firms("tenant", 40, 1.0),
        service_seconds=0.15,
    ),
    Known(
        name="yahoo",
        share=9,
        hosts=("mta5.am0.yahoodns.net", "mta6.am0.yahoodns.net"),
        per_second=20,
        domains=(("yahoo.com", 0.75), ("aol.com", 0.20), ("ymail.com", 0.05)),
    ),
    Known(
        name="apple",
        share=5,
        hosts=("mx01.mail.icloud.com", "mx02.mail.icloud.com"),
        per_second=25,
        domains=(("icloud.com", 0.80), ("me.com", 0.20)),
    ),
    Known(
        name="gmx",
        share=5,
        hosts=("mx00.gmx.net", "mx01.gmx.net"),
        per_second=15,
        domains=(("web.de", 0.50), ("gmx.de", 0.40), ("gmx.net", 0.10)),
        connections=10,
    ),
    Known(name="orange", share=2.5, hosts=("smtp-in.orange.fr",), per_second=15, connections=2),
    Known(name="comcast", share=2, hosts=("mx1.comcast.net", "mx2.comcast.net"), per_second=20),
    Known(name="mailru", share=2, hosts=("mxs.mail.ru",), per_second=15, connections=10),
    Known(name="yandex", share=1.5, hosts=("mx.yandex.ru",), per_second=15, connections=10),
    Known(name="tonline", share=1.5, hosts=("mx00.t-online.de",), per_second=10, connections=5),
    Known(name="libero", share=1, hosts=("smtp-in.libero.it",), per_second=10, connections=5),
    Known(
        name=REST,
        share=3.5,
        hosts=("mx1.small-company.example",),
        per_second=5,
        connections=5,
        service_seconds=0.3,
        greylisted_share=0.25,
        sites=5_000,
    ),
)


def known_providers(mix: str = "real", limits: float = 1.0) -> tuple[Provider, ...]:
    """The table's providers with the shares of `mix`; `limits` scales every rate, 0 = nobody limits."""
    rules = shaping_rules(Config())
    shares = _shares(mix)
    made = []
    for known in KNOWN:
        shaping = rules.path("ip-1", known.hosts[0], known.hosts)
        provider = Provider(
            name=known.name,
            share=shares[known.name],
            shaping=shaping,
            domains=known.domains,
            per_second=known.per_second * (limits or 1.0),
            connections=known.connections,
            service_seconds=known.service_seconds,
            greylisted_share=known.greylisted_share,
            sites=known.sites,
        )
        made.append(provider if limits else unlimited(provider))
    return tuple(made)


def unlimited(provider: Provider) -> Provider:
    """The same receiver without any limit, and a sender that knows it: `sites` 0 asks no policy."""
    return replace(provider, per_second=math.inf, sites=0, greylisted_share=0.0, busy_share=0.0)


def with_shared_limit(
    providers: Iterable[Provider], per_second: float, name: str = "google"
) -> tuple[Provider, ...]:
    """The same, where `name` lets a sending domain do no more than `per_second` over all its addresses."""
    return tuple(
        replace(each, shared_per_second=per_second) if each.name == name else each for each in providers
    )


def _shares(mix: str) -> dict[str, float]:
    total = sum(known.share for known in KNOWN)
    shares = {known.name: known.share / total for known in KNOWN}
    match mix:
        case "real":
            return shares
        case "even":
            return dict.fromkeys(shares, 1 / len(shares))
        case "uneven":
            largest = max(shares, key=lambda name: shares[name])
            rest = (1 - UNEVEN_SHARE) / (1 - shares[largest])
            return {name: UNEVEN_SHARE if name == largest else share * rest for name, share in shares.items()}
    raise ValueError(f"no such mix: {mix}")


def of_world(spec: WorldSpec, messages: Mapping[str, int], retry: RetryCurve) -> tuple[Provider, ...]:
    """The receivers of a world with so many recipients each, met by an engine without rules for them."""
    shaping = replace(shaping_rules(Config()).path("ip-1", "mx.invented.example", ()), retry=retry)
    total = sum(messages.values())
    return tuple(
        _of_manners(each, messages[each.name] / total, shaping)
        for each in spec.providers
        if messages.get(each.name)
    )


def _of_manners(spec: ProviderSpec, share: float, shaping: Shaping) -> Provider:
    manners: Manners = spec.manners
    per_second = manners.rate_per_minute / 60.0 or math.inf
    busy = sum(
        trouble.share
        for trouble in manners.troubles
        if trouble.moment is Moment.RCPT and not trouble.lasts and not trouble.accepts
    )
    return Provider(
        name=spec.name,
        share=share,
        shaping=shaping,
        per_second=per_second,
        burst_seconds=manners.rate_burst / per_second,
        window_seconds=manners.rate_window_seconds,
        connections=manners.connections_max or 1_000,
        service_seconds=LOOPBACK_SECONDS
        + sum(manners.tarpit.get(verb, 0.0) for verb in ("mail", "rcpt", "data", "content")),
        loaded_seconds=manners.tarpit_per_connection,
        setup_seconds=2 * LOOPBACK_SECONDS,
        messages_per_connection=manners.messages_per_connection or 1_000,
        greylisted_share=1.0 if manners.greylist_seconds else 0.0,
        busy_share=busy,
    )
