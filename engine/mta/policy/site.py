"""Which limits hold for a site: the rules of `[[engine.site]]`, most specific first.

Order of strength: a rule for the recipient domain, then one for the site's name, then one whose `mx`
suffix all of the site's hosts share (the longest suffix first), then one without a match. Each value
comes from the strongest rule that says it; what no rule says is `SITE_DEFAULTS`.
"""

from collections.abc import Sequence

from msgspec import Struct

from engine.config.tables import SITE_DEFAULTS, SiteRule, TlsPolicy
from engine.config.units import Rate


class SiteLimits(Struct, frozen=True):
    """What may be done to one site over one egress path. `rate` None = unlimited."""

    connections: int
    messages_per_connection: int
    rate: Rate | None
    connect_timeout_seconds: float
    tls: TlsPolicy
    pipelining: bool
    chunking: bool


def site_limits(rules: Sequence[SiteRule], site: str, hosts: Sequence[str], domain: str = "") -> SiteLimits:
    """The limits of `site` with MX `hosts`. `domain` is the recipient domain, where one is asked about."""
    ranked = sorted(
        ((_strength(rule, site, hosts, domain), rule) for rule in rules),
        key=lambda pair: pair[0],
        reverse=True,
    )
    layers = [rule for strength, rule in ranked if strength > 0]
    layers.append(SITE_DEFAULTS)

    def value(key: str) -> object:
        return next((said for rule in layers if (said := getattr(rule, key)) is not None), None)

    connections, messages = value("connections"), value("messages_per_connection")
    timeout, tls = value("connect_timeout"), value("tls")
    rate = value("rate")
    assert isinstance(connections, int)
    assert isinstance(messages, int)
    assert isinstance(timeout, float)
    assert isinstance(tls, TlsPolicy)
    assert rate is None or isinstance(rate, Rate)
    return SiteLimits(
        connections=connections,
        messages_per_connection=messages,
        rate=rate,
        connect_timeout_seconds=timeout,
        tls=tls,
        pipelining=bool(value("pipelining")),
        chunking=bool(value("chunking")),
    )


def _strength(rule: SiteRule, site: str, hosts: Sequence[str], domain: str) -> int:
    """0 = does not match. Suffix rules are stronger the longer their suffix."""
    if rule.domain:
        return 10_000 if rule.domain == domain else 0
    if rule.site:
        return 5_000 if rule.site == site else 0
    if rule.mx:
        suffix = rule.mx.strip(".").lower()
        matches = bool(hosts) and all(host == suffix or host.endswith("." + suffix) for host in hosts)
        return 2 + len(suffix) if matches else 0
    return 1
