"""The world of a real list: invented providers in the proportions of a consumer list, each with the class
of limits that its model keeps.

`real_list(messages, seconds)` scales every limit to the list: a provider whose `fill` is 1 takes its part
in just `seconds`, others are done in that share of it. So the shape of the problem stays the same for a
short run and a long one. The limits are of all kinds that senders meet: even rates with a small or a
large burst, fixed windows, caps on connections and on messages for each, answers that grow slow under
load, greylisting, and reputation that shuts out who hammers. Names are reserved ones (RFC 2606, 6761).
One provider serves three MX sets with one limit over all; one wants TLS, the rest is in the clear for speed.
"""

from typing import Any

from msgspec import Struct

from bench.world.manners import Gate, Manners, Reputation, Starttls, Trouble, bounced, busy, mailbox_full
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec

TAIL_WEIGHT = 4.5
TAIL_SITES = 40
TAIL_DOMAINS = 300
SERVICE_SECONDS_MAX = 1.0  # a receiver slower than this would be called broken
SECONDS = 150.0  # the length that the waits and windows below are meant for; shorter runs shrink them
GREYLIST_SECONDS = 8.0
BLOCK_SECONDS = 30.0


class Kind(Struct, frozen=True, kw_only=True):
    """One provider of the mix. `rated` False: no rate, the answers' time under load is the limit."""

    name: str
    weight: float  # per cent of the list
    domains: tuple[str, ...]
    fill: float  # share of the run that its part takes at its limit
    rated: bool = True
    burst_seconds: float = 0.5  # what of its rate may come at once
    window_seconds: float = 0.0
    connections: int = 10
    messages_per_connection: int = 100
    content_seconds: float = 0.0  # how long it looks at each message, besides
    hosts: int = 2
    mx_sets: int = 1
    rate_reply: str = "421 4.7.0 Rate limit exceeded for your address, try again later"
    block_reply: str = "421 4.7.0 Temporarily deferred due to the poor reputation of your address"
    connections_reply: str = "421 4.7.0 Too many connections from your address"
    block_gate: Gate = Gate.MAIL
    unknown: str = "550 5.1.1 No such user here"
    chunking: bool = False
    tls: bool = False


KINDS = (
    Kind(
        name="googol",
        weight=45,
        domains=("googol.example", "goglemail.example", "poplars-school.example", "ferry-club.example"),
        fill=1.0,
        burst_seconds=1.0,
        connections=20,
        messages_per_connection=500,
        content_seconds=0.008,
        hosts=5,
        rate_reply="421 4.7.28 We see an unusual rate of mail from your address; it is rate limited for now",
        block_reply="421 4.7.0 Mail from your address is temporarily deferred: its reputation is very low",
        unknown="550 5.1.1 The account that you tried to reach does not exist",
        chunking=True,
    ),
    Kind(
        name="outlike",
        weight=12,
        domains=("outlike.example", "hotmeal.example", "alive.example"),
        fill=1.0,
        window_seconds=5.0,
        connections=10,
        messages_per_connection=40,
        rate_reply="451 4.7.0 [RP-001] Too many messages: your address has exceeded its rate limit, "
        "try again later",
        block_reply="451 4.7.650 The mail server of your address is rate limited due to its reputation",
        unknown="550 5.5.0 Requested action not taken: mailbox unavailable",
        chunking=True,
    ),
    Kind(
        name="tenants",
        weight=9,
        domains=("acorn-bank.example", "birch-travel.example", "cedar-homes.example", "dune-energy.example"),
        fill=0.6,
        connections=20,
        messages_per_connection=30,
        mx_sets=3,
        rate_reply="451 4.7.500 Server busy: too many messages from your address, please try again later",
        block_reply="451 4.7.550 Access temporarily limited: unusual rate from your address",
        chunking=True,
        tls=True,
    ),
    Kind(
        name="yoohoo",
        weight=9,
        domains=("yoohoo.test", "aool.test", "rocketpost.test"),
        fill=1.0,
        burst_seconds=0.25,
        connections=15,
        messages_per_connection=20,
        hosts=3,
        rate_reply="421 4.7.0 [TSS04] Messages from your address temporarily deferred: unusual traffic, "
        "too many at once",
        block_reply="421 4.7.0 [TSS05] Messages from your address temporarily deferred due to complaints",
        unknown="554 5.1.1 This user has no mailbox here",
    ),
    Kind(
        name="pomme",
        weight=5,
        domains=("pomme.example", "moi-pomme.example"),
        fill=0.8,
        rated=False,
        connections=12,
        chunking=True,
    ),
    Kind(
        name="gmix",
        weight=5,
        domains=("gmix.test", "wab.test"),
        fill=0.7,
        burst_seconds=2.0,
        connections=6,
        rate_reply="450 4.7.0 Rate limit of your address reached, too many messages; try again later",
        connections_reply="421 4.7.0 Service not available: too many connections from your address",
        block_gate=Gate.BANNER,
    ),
    Kind(
        name="mandarine",
        weight=2.5,
        domains=("mandarine.test", "wanadou.test"),
        fill=0.7,
        rated=False,
        connections=2,
        messages_per_connection=50,
        connections_reply="421 4.3.2 Too many connections, slow down",
    ),
    Kind(
        name="comkast",
        weight=2,
        domains=("comkast.test",),
        fill=0.5,
        connections=25,
        messages_per_connection=1_000,
        rate_reply="421 4.1.0 Throttled: too many messages from your address, rate limit in force",
        block_gate=Gate.RCPT,
    ),
    Kind(
        name="maily",
        weight=2,
        domains=("maily.example", "inbocks.example"),
        fill=0.6,
        window_seconds=10.0,
        connections=10,
        rate_reply="451 4.7.1 Rate limit of your address exceeded, retry later",
    ),
    Kind(
        name="yandeks",
        weight=1.5,
        domains=("yandeks.example",),
        fill=0.5,
        burst_seconds=3.0,
        connections=10,
        rate_reply="451 4.5.1 The recipient gets too many messages from your address, rate limit",
    ),
    Kind(
        name="libera",
        weight=1,
        domains=("libera.test",),
        fill=0.5,
        connections=5,
        messages_per_connection=20,
        rate_reply="421 4.7.1 Too many messages from your address, rate limit, try later",
    ),
    Kind(
        name="magenta",
        weight=1.5,
        domains=("magenta.test",),
        fill=0.7,
        connections=8,
        messages_per_connection=5,
        rate_reply="450 4.7.2 Rate limit: too many messages from your address",
    ),
)


def real_list(messages: int, seconds: float, seed: int = 1) -> WorldSpec:
    """The world whose slowest providers need about `seconds` for their part of `messages`."""
    assert messages > 0 < seconds
    total = sum(kind.weight for kind in KINDS) + TAIL_WEIGHT
    providers = [_provider(kind, messages * kind.weight / total, seconds) for kind in KINDS]
    return WorldSpec(
        name="real list",
        seed=seed,
        providers=(*providers, *_tail(messages * TAIL_WEIGHT / total, seconds)),
    )


def _provider(kind: Kind, messages: float, seconds: float) -> ProviderSpec:
    per_second = messages / (kind.fill * seconds)
    if kind.rated:
        limits = _rated(kind, per_second, min(1.0, seconds / SECONDS))
    else:
        limits = _slow(kind.connections, per_second)
    manners = Manners(
        chunking=kind.chunking,
        starttls=Starttls.OFFERED if kind.tls else Starttls.ABSENT,
        connections_max=kind.connections,
        connections_reply=kind.connections_reply,
        messages_per_connection=kind.messages_per_connection,
        troubles=_troubles(kind.unknown),
        **limits,
    )
    sites = []
    for number in range(kind.mx_sets):
        domains = kind.domains if kind.mx_sets == 1 else kind.domains[number :: kind.mx_sets]
        base = f"{kind.name}-mx.example" if kind.mx_sets == 1 else f"set{number + 1}.{kind.name}-mx.example"
        hosts = tuple(Host(f"mx{host + 1}.{base}") for host in range(kind.hosts))
        # The first domain is the large one, as everywhere.
        weights = {
            domain: kind.weight * (2.0 if domain == kind.domains[0] else 1.0) / (len(kind.domains) + 1)
            for domain in domains
        }
        sites.append(Site(hosts, weights))
    return ProviderSpec(kind.name, tuple(sites), manners)


def _rated(kind: Kind, per_second: float, scale: float) -> dict[str, Any]:
    return {
        "rate_per_minute": per_second * 60.0,
        "rate_burst": max(1, round(per_second * kind.burst_seconds * scale)),
        "rate_window_seconds": kind.window_seconds * scale,
        "rate_reply": kind.rate_reply,
        "tarpit": {"content": kind.content_seconds} if kind.content_seconds else {},
        "reputation": Reputation(
            throttle_refusals=max(20.0, 3.0 * per_second),
            block_refusals=max(60.0, 8.0 * per_second),
            forgets_per_second=max(0.2, 0.02 * per_second),
            block_seconds=BLOCK_SECONDS * scale,
            block_gate=kind.block_gate,
            block_reply=kind.block_reply,
        ),
    }


def _slow(connections: int, per_second: float) -> dict[str, Any]:
    """Answers so slow that all connections together take `per_second`; half of it grows with the load."""
    service_seconds = min(SERVICE_SECONDS_MAX, connections / per_second)
    return {
        "tarpit": {"content": service_seconds / 2},
        "tarpit_per_connection": service_seconds / 2 / connections,
    }


def _troubles(unknown: str) -> tuple[Trouble, ...]:
    return (
        bounced(0.015, unknown),
        mailbox_full(0.003, "552 5.2.2 Mailbox full"),
        busy(0.004, 3.0, "450 4.2.1 The mailbox is busy, please try again"),
    )


def _tail(messages: float, seconds: float) -> list[ProviderSpec]:
    """Small companies: few domains to a site, small machines, every fourth greylists."""
    weights = [1.0 / (1.0 + number / 10.0) for number in range(TAIL_SITES)]
    providers = []
    for number, weight in enumerate(weights):
        share = weight / sum(weights)
        per_second = messages * share / (0.5 * seconds)
        base = f"firm{number:02}.test"
        domains = [f"d{each:03}.{base}" for each in range(number, TAIL_DOMAINS, TAIL_SITES)]
        site = Site(
            tuple(Host(f"mx{host}.{base}") for host in (1, 2)),
            dict.fromkeys(domains, TAIL_WEIGHT * share / len(domains)),
        )
        providers.append(ProviderSpec(f"firm{number:02}", (site,), _small(number % 4, per_second, seconds)))
    return providers


def _small(habit: int, per_second: float, seconds: float) -> Manners:
    troubles = _troubles("550 5.1.1 User unknown")
    match habit:
        case 0:
            greylist_seconds = GREYLIST_SECONDS * min(1.0, seconds / SECONDS)
            return Manners(connections_max=5, greylist_seconds=greylist_seconds, troubles=troubles)
        case 1:
            slow = {"content": min(SERVICE_SECONDS_MAX, 2 / per_second) / 2}
            return Manners(connections_max=2, messages_per_connection=10, tarpit=slow, troubles=troubles)
        case 2:
            return Manners(
                connections_max=3,
                rate_per_minute=per_second * 60.0,
                rate_burst=20,
                rate_reply="450 4.7.1 Rate limit: too many messages from your address, try again later",
                troubles=troubles,
            )
        case _:
            return Manners(connections_max=5, messages_per_connection=20, troubles=troubles)
