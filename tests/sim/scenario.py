"""What one seed means: a world, an engine's configuration, campaigns, and what goes wrong.

Everything here is a value that follows from the seed, so a scenario can be told in words. Numbers are
small and times short (seconds where the world has minutes): what matters is the order of things. Most
seeds have no fault of a rare kind, so that each kind is also met alone.
"""

from random import Random
from typing import Any

from msgspec import Struct

from bench.world.manners import (
    Manners,
    Moment,
    Starttls,
    Trouble,
    bounced,
    busy,
    hang_up,
    mailbox_full,
    refused_content,
    shutting_down,
)
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec
from engine.config.shaping import ProviderRule, ShapingRule, TlsPolicy
from engine.config.tables import AmbiguousPolicy, RetryTable
from engine.config.units import CountRange, Duration, Rate, RateRange
from engine.model.content import MessageClass
from engine.model.egress import Source
from engine.mta.net.mx import site_key

MESSAGES = (60, 240)
SOURCE_NAMES = ("one", "two")


class DiskManners(Struct, frozen=True):
    """`failing`: the share of commits that fail."""

    group_seconds: float
    sync_seconds: tuple[float, float]
    failing: float


class NetManners(Struct, frozen=True):
    """Shares are of connections (or dials); what is cut is cut at an octet drawn up to `cut_octets`."""

    latency_seconds: tuple[float, float]
    window_octets: int
    resets: float
    closes: float
    silences: float
    slow_readers: float
    refusals: float
    black_holes: float
    cut_octets: int


class DnsManners(Struct, frozen=True):
    failing: float
    timeouts: float
    ttl_seconds: float


class Ceiling(Struct, frozen=True):
    """What is configured for one site over each source, never to be exceeded. `rate` None = any."""

    connections: int
    messages_per_connection: int
    rate: Rate | None
    burst_seconds: float
    provider: str
    provider_connections: int | None  # over all its sites


class Mailing(Struct, frozen=True):
    """One campaign: chunks of recipients, fed at times."""

    campaign: int
    workspace: str
    message_class: MessageClass
    recipients: tuple[str, ...]
    chunk_size: int
    starts_at: float
    lives_seconds: float


class Blow(Struct, frozen=True):
    """The saboteur strikes at the n-th step of any task. `kind`: actor, dynamic, bug, process or clock."""

    step: int
    kind: str
    whom: str = ""
    seconds: float = 0.0


class Scenario(Struct, frozen=True):
    seed: int
    world: WorldSpec
    ceilings: dict[str, Ceiling]  # by site
    sources: tuple[Source, ...]
    engine: dict[str, Any]
    net: NetManners
    disk: DiskManners
    dns: DnsManners
    bus_refusing: float
    mailings: tuple[Mailing, ...]
    blows: tuple[Blow, ...]
    resubmits: bool

    @property
    def messages(self) -> int:
        return sum(len(mailing.recipients) for mailing in self.mailings)

    @property
    def ambiguous(self) -> AmbiguousPolicy:
        policy: AmbiguousPolicy = self.engine["ambiguous"]
        return policy

    def in_words(self) -> str:
        """The scenario for a person who has to understand a failure."""
        lines = [f"seed {self.seed}: {self.messages} messages in {len(self.mailings)} campaigns"]
        for mailing in self.mailings:
            lines.append(
                f"  campaign {mailing.campaign} ({mailing.message_class.value}): "
                f"{len(mailing.recipients)} in chunks of {mailing.chunk_size} from "
                f"{mailing.starts_at:.1f} s on, each given up after {mailing.lives_seconds:.0f} s"
            )
        for provider in self.world.providers:
            usual = Manners()
            manners = {
                name: getattr(provider.manners, name)
                for name in Manners.__struct_fields__
                if getattr(provider.manners, name) != getattr(usual, name)
            }
            lines.append(f"  {provider.name} serves {', '.join(sorted(provider.domains))}: {manners}")
        for name in ("null_mx", "missing", "failing"):
            if domains := getattr(self.world, name):
                lines.append(f"  {name}: {', '.join(domains)}")
        lines.append(f"  engine: {self.engine}")
        lines += [f"  {self.net}", f"  {self.disk}", f"  {self.dns}", f"  bus refuses {self.bus_refusing}"]
        lines += [f"  {blow}" for blow in self.blows]
        return "\n".join(lines)


def scenario(seed: int) -> Scenario:
    """The scenario of a seed."""
    dice = Random(seed)
    world = _world(dice, seed)
    rules = {"": _rule(dice, "")}
    for provider in world.providers:
        if dice.random() < 0.5:
            rules[provider.name] = _rule(dice, f"{provider.name}.test")
    doors = {each.name: dice.choice((1, 2, 4)) for each in world.providers if dice.random() < 0.25}
    return Scenario(
        seed=seed,
        world=world,
        ceilings={
            site_key([host.name for host in site.hosts]): _ceiling(
                provider.name, rules.get(provider.name, rules[""]), rules[""], doors.get(provider.name)
            )
            for provider in world.providers
            for site in provider.sites
        },
        sources=tuple(
            Source(name, f"{name}.sender.test", f"127.9.0.{number}")
            for number, name in enumerate(SOURCE_NAMES[: dice.choice((1, 1, 2))], 1)
        ),
        engine=_engine(dice, tuple(rules.values()), doors),
        net=_net(dice),
        disk=DiskManners(
            group_seconds=0.002,
            sync_seconds=dice.choice(((0.0, 0.001), (0.001, 0.01), (0.01, 0.2))),
            failing=_rarely(dice, 0.1, 0.005),
        ),
        dns=DnsManners(
            failing=_rarely(dice, 0.3, 0.3),
            timeouts=_rarely(dice, 0.2, 0.2),
            ttl_seconds=dice.choice((2.0, 20.0, 3600.0)),
        ),
        bus_refusing=_rarely(dice, 0.15, 0.1),
        mailings=_mailings(dice, world),
        blows=_blows(dice),
        resubmits=dice.random() < 0.2,
    )


def _rarely(dice: Random, share: float, most: float) -> float:
    """0 for most seeds, else something up to `most`."""
    return dice.uniform(0.1, 1.0) * most if dice.random() < share else 0.0


# --- the world -----------------------------------------------------------------------------------------


def _world(dice: Random, seed: int) -> WorldSpec:
    providers = tuple(_provider(dice, number) for number in range(dice.randint(1, 4)))
    return WorldSpec(
        name=f"sim-{seed}",
        seed=seed,
        providers=providers,
        null_mx={"noreply.test": 0.5} if dice.random() < 0.2 else {},
        missing={"nowhere.test": 0.5} if dice.random() < 0.2 else {},
        failing={"broken.test": 0.5} if dice.random() < 0.1 else {},
    )


def _provider(dice: Random, number: int) -> ProviderSpec:
    base = f"p{number}.test"
    sites = []
    for place in range(dice.choice((1, 1, 1, 2))):
        hosts = tuple(
            Host(f"mx{index}.s{place}.{base}", preference=10 * dice.randint(1, 2))
            for index in range(dice.choice((1, 1, 2)))
        )
        if dice.random() < 0.1:
            hosts = (Host(f"mx9.s{place}.{base}", preference=5, listens=False), *hosts)
        domains = {f"d{index}.s{place}.{base}": dice.uniform(0.2, 2.0) for index in range(dice.randint(1, 3))}
        sites.append(Site(hosts, domains))
    return ProviderSpec(f"p{number}", tuple(sites), _manners(dice))


def _manners(dice: Random) -> Manners:
    plain = dice.random() < 0.15
    pipelining = dice.random() < 0.85
    esmtp = dice.random() > 0.05
    return Manners(
        esmtp=esmtp,
        pipelining=pipelining,
        pipelining_across=dice.random() < 0.75,
        chunking=dice.random() < 0.5,
        size=dice.random() < 0.8,
        eight_bit=dice.random() < 0.9,
        smtputf8=dice.random() < 0.3,
        dsn=dice.random() < 0.3,
        enhanced_codes=dice.random() < 0.8,
        starttls=dice.choice((Starttls.ABSENT,) * 4 + tuple(Starttls)),
        limits_mailmax=dice.randint(1, 30) if esmtp and dice.random() < 0.15 else 0,
        messages_per_connection=dice.randint(1, 40) if dice.random() < 0.3 else 0,
        connections_max=dice.randint(1, 4) if dice.random() < 0.3 else 0,
        rate_per_minute=dice.choice((120.0, 600.0, 3000.0)) if dice.random() < 0.2 else 0.0,
        rate_burst=dice.choice((1, 10, 30)),
        greylist_seconds=dice.uniform(0.5, 6.0) if dice.random() < 0.2 else 0.0,
        tarpit=_tarpit(dice),
        troubles=() if plain else _troubles(dice),
    )


def _tarpit(dice: Random) -> dict[str, float]:
    if dice.random() > 0.3:
        return {}
    verbs = ("banner", "ehlo", "mail", "rcpt", "data", "content", "quit")
    return {verb: dice.choice((0.001, 0.05, 0.5)) for verb in verbs if dice.random() < 0.3}


def _troubles(dice: Random) -> tuple[Trouble, ...]:
    share = dice.choice((0.01, 0.05, 0.2))
    possible = [
        bounced(share),
        refused_content(share),
        mailbox_full(share),
        mailbox_full(share, "552 5.2.2 Mailbox is full") if dice.random() < 0.3 else busy(share, 3.0),
        busy(share, dice.uniform(0.5, 8.0)),
        *(hang_up(moment, share / 2, times=dice.randint(1, 3)) for moment in Moment),
        hang_up(Moment.REPLY, share / 2, accepts=True),
        *(shutting_down(moment, share / 2, times=dice.randint(1, 2)) for moment in Moment),
    ]
    chosen = [trouble for trouble in possible if dice.random() < 0.25]
    return tuple({trouble.kind: trouble for trouble in chosen}.values())


# --- the engine ----------------------------------------------------------------------------------------


def _engine(dice: Random, rules: tuple[ShapingRule, ...], doors: dict[str, int]) -> dict[str, Any]:
    first = dice.choice((0.5, 1.0, 2.0))
    return {
        "retry": RetryTable(
            first=Duration(first),
            factor=dice.choice((1.0, 1.5, 2.0)),
            max=Duration(8.0),
            jitter=0.2,
            expire_after=Duration(600.0),
        ),
        "provider": tuple(ProviderRule(name=name, mx=(f"{name}.test",)) for name in doors),
        "site": (
            *rules,
            *(ShapingRule(provider=name, provider_connections=door) for name, door in doors.items()),
        ),
        "active_set_max": dice.choice((20, 200, 20_000)),
        "lookups_max": dice.choice((1, 3, 100)),
        "connections_max": dice.choice((20, 50)),
        "ambiguous": dice.choice((AmbiguousPolicy.RETRY, AmbiguousPolicy.RETRY, AmbiguousPolicy.HOLD)),
    }


def _rule(dice: Random, suffix: str) -> ShapingRule:
    connections = dice.choice((1, 2, 3, 5, 10))
    rate = dice.choice((None, None, Rate(5, 1.0), Rate(20, 1.0), Rate(100, 1.0), Rate(300, 60.0)))
    return ShapingRule(
        mx=suffix,
        connections=CountRange(1, connections),
        messages_per_connection=dice.choice((1, 2, 5, 20, 100)),
        rate=None if rate is None else RateRange.up_to(rate),
        burst=Duration(dice.choice((0.25, 1.0))),
        connect_timeout=Duration(dice.choice((1.0, 5.0))),
        reply_timeout=Duration(30.0),
        final_timeout=Duration(60.0),
        tls=dice.choice((TlsPolicy.NEVER, TlsPolicy.OPPORTUNISTIC, TlsPolicy.OPPORTUNISTIC)),
        pipelining=dice.random() < 0.9,
        chunking=dice.random() < 0.9,
    )


def _ceiling(provider: str, rule: ShapingRule, usual: ShapingRule, door: int | None) -> Ceiling:
    """What a provider's rule leaves open the rule for everybody says."""
    rate = rule.rate or usual.rate
    assert rule.connections is not None
    assert rule.messages_per_connection is not None
    assert rule.burst is not None
    return Ceiling(
        rule.connections.ceiling,
        rule.messages_per_connection,
        None if rate is None else rate.ceiling,
        rule.burst,
        provider,
        door,
    )


# --- what goes wrong -----------------------------------------------------------------------------------


def _net(dice: Random) -> NetManners:
    return NetManners(
        latency_seconds=dice.choice(((0.0, 0.001), (0.001, 0.02), (0.02, 0.06), (0.0, 0.5))),
        window_octets=dice.choice((300, 2_000, 65_536)),
        resets=_rarely(dice, 0.3, 0.3),
        closes=_rarely(dice, 0.3, 0.3),
        silences=_rarely(dice, 0.06, 0.05),
        slow_readers=_rarely(dice, 0.2, 1.0),
        refusals=_rarely(dice, 0.2, 0.3),
        black_holes=_rarely(dice, 0.2, 0.2),
        cut_octets=dice.choice((200, 3_000, 30_000)),
    )


STATIC = (
    *("committing", "signers", "spooler", "journal", "suppressor", "resolver", "connections", "sites"),
    *("scheduler", "domains", "intake", "commands"),
)
BUGGY = ("network", "network", "spool")
DYNAMIC = ("connections", "connections", "connections", "sites", "domains")


def _blows(dice: Random) -> tuple[Blow, ...]:
    """A third of the seeds are left alone; the others are struck up to a few times."""
    if dice.random() < 0.33:
        return ()
    blows = []
    for _ in range(dice.choice((1, 1, 2, 4, 8))):
        kind = dice.choice(("actor", "actor", "dynamic", "dynamic", "bug", "bug", "process", "clock"))
        whom = dice.choice({"actor": STATIC, "dynamic": DYNAMIC, "bug": BUGGY}.get(kind, ("",)))
        step = int(2 ** dice.uniform(7.0, 13.0))
        blows.append(Blow(step, kind, whom, dice.uniform(-20.0, 20.0) if kind == "clock" else 0.0))
    return tuple(sorted(blows, key=lambda blow: blow.step))


# --- the mail ------------------------------------------------------------------------------------------


def _mailings(dice: Random, world: WorldSpec) -> tuple[Mailing, ...]:
    domains, weights = list(world.domains), list(world.domains.values())
    left = dice.randint(*MESSAGES)
    made = []
    for campaign in range(1, dice.randint(1, 3) + 1):
        count = dice.randint(1, max(1, left))
        left = max(1, left - count)
        made.append(
            Mailing(
                campaign=campaign,
                workspace=dice.choice(("a", "b")),
                message_class=dice.choice(tuple(MessageClass)),
                recipients=tuple(
                    f"r{number}.c{campaign}@{domain}"
                    for number, domain in enumerate(dice.choices(domains, weights, k=count))
                ),
                chunk_size=dice.choice((1, 7, 30, 100)) if count < 60 else dice.choice((10, 50, 200)),
                starts_at=dice.choice((0.0, 0.0, dice.uniform(0.0, 5.0))),
                lives_seconds=dice.choice((10.0, 20.0, 40.0)),
            )
        )
    return tuple(made)
