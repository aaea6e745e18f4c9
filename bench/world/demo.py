"""The world of `emass demo`: a dozen invented providers under reserved names (RFC 2606, RFC 6761).

Each shows one habit of real providers: several domains on one MX set, greylisting, busy and missing
mailboxes, hang-ups, STARTTLS in its variants, CHUNKING, no cross-message pipelining, a dead first MX, a
null MX, a domain that does not exist. Waiting times are seconds, where the world has minutes and hours,
so that deferred mail finishes while one watches. Rates and slow answers are mild: the demo should move.
"""

from bench.world.manners import (
    Manners,
    Moment,
    Starttls,
    bounced,
    busy,
    hang_up,
    mailbox_full,
    refused_content,
    shutting_down,
)
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec


def demo_world(seed: int = 1) -> WorldSpec:
    """Weights sum to about 100; roughly 95 % is delivered in the end and 4 % bounces."""
    return WorldSpec(
        name="demo",
        seed=seed,
        providers=_PROVIDERS,
        null_mx={"noreply.example": 0.4},
        missing={"lanternpots.example": 0.4},  # a typing error for lanternpost.example
    )


def _site(base: str, hosts: int, **domains: float) -> Site:
    """`hosts` equal MX hosts under `base`; keywords are domains with __ for the dot."""
    named = {name.replace("__", ".").replace("_", "-"): weight for name, weight in domains.items()}
    return Site(tuple(Host(f"mx{number}.{base}") for number in range(1, hosts + 1)), named)


_PROVIDERS = (
    ProviderSpec(
        "lanternpost",  # the giant: two MX sets, everything modern
        (
            _site("lanternpost.example", 3, lanternpost__example=30, lanternmail__example=8),
            _site("hosted.lanternpost.example", 2, bakery_ruth__example=2, tidewater_school__example=2),
        ),
        Manners(
            chunking=True,
            smtputf8=True,
            dsn=True,
            starttls=Starttls.OFFERED,
            messages_per_connection=500,
            troubles=(
                bounced(0.012, "550 5.1.1 The account you tried to reach does not exist"),
                mailbox_full(0.004, "552 5.2.2 The recipient's inbox is out of storage space"),
                busy(0.01, 3.0, "450 4.2.1 The user is receiving mail at a rate too high"),
            ),
        ),
    ),
    ProviderSpec(
        "papercrane",  # plain and quick, no TLS
        (_site("papercrane.test", 2, papercrane__test=14, crane_mail__test=4),),
        Manners(dsn=True, troubles=(bounced(0.01), busy(0.02, 4.0), hang_up(Moment.REPLY, 0.002))),
    ),
    ProviderSpec(
        "cobaltbox",  # takes pipelining, but not across messages
        (_site("cobaltbox.example", 2, cobaltbox__example=9),),
        Manners(
            pipelining_across=False,
            starttls=Starttls.OFFERED,
            troubles=(bounced(0.015), refused_content(0.006)),
        ),
    ),
    ProviderSpec(
        "fernhill",  # greylists
        (_site("fernhill.test", 1, fernhill__test=5),),
        Manners(greylist_seconds=3.0, troubles=(bounced(0.02),)),
    ),
    ProviderSpec(
        "moonriver",  # hangs up and restarts
        (_site("moonriver.example", 2, moonriver__example=6),),
        Manners(
            messages_per_connection=60,
            troubles=(
                hang_up(Moment.RCPT, 0.01),
                hang_up(Moment.CONTENT, 0.005),
                hang_up(Moment.REPLY, 0.005, accepts=True),
                shutting_down(Moment.RCPT, 0.01),
                bounced(0.02),
            ),
        ),
    ),
    ProviderSpec(
        "oldmill",  # an old machine: no PIPELINING, no enhanced codes, few connections
        (_site("oldmill.test", 1, oldmill__test=2),),
        Manners(
            banner="220 {host} ESMTP ready",
            pipelining=False,
            eight_bit=False,
            enhanced_codes=False,
            connections_max=8,
            troubles=(bounced(0.03, "550 unknown user"),),
        ),
    ),
    ProviderSpec(
        "quarrynet",  # a message limit per connection that it announces
        (_site("quarrynet.example", 1, quarrynet__example=4, quarry_club__example=1),),
        Manners(limits_mailmax=50, chunking=True, starttls=Starttls.OFFERED, troubles=(busy(0.03, 3.0),)),
    ),
    ProviderSpec(
        "saltmarsh",  # the first MX is dead, the second works
        (
            Site(
                (Host("mx1.saltmarsh.example", 10, listens=False), Host("mx2.saltmarsh.example", 20)),
                {"saltmarsh.example": 5},
            ),
        ),
        Manners(troubles=(bounced(0.01),)),
    ),
    ProviderSpec(
        "tinderbox",  # wants TLS
        (_site("tinderbox.test", 1, tinderbox__test=3),),
        Manners(starttls=Starttls.REQUIRED, troubles=(mailbox_full(0.02, seconds=5.0),)),
    ),
    ProviderSpec(
        "wobblynet",  # announces TLS that does not work: opportunistic senders go on in the clear
        (_site("wobblynet.test", 1, wobblynet__test=2),),
        Manners(starttls=Starttls.GARBLED, troubles=(bounced(0.02),)),
    ),
    ProviderSpec(
        "slowlane",  # thinks before it answers, limits its rate
        (_site("slowlane.example", 1, slowlane__example=1),),
        Manners(
            tarpit={"banner": 0.2, "rcpt": 0.01},
            rate_per_minute=1200,
            rate_burst=40,
            rate_reply="451 4.7.1 Too many messages from your address, slow down",
            connections_max=5,
        ),
    ),
)
