"""Which limits hold for a site: rules by strength, value by value."""

from typing import Any

import pytest
from msgspec.structs import asdict

from engine.config.tables import SITE_DEFAULTS, SiteRule, TlsPolicy
from engine.config.units import Duration, Rate
from engine.mta.policy.site import SiteLimits, site_limits

HOSTS = ["mx1.mail.giant.test", "mx2.mail.giant.test"]
SITE = "+".join(HOSTS)
DEFAULTS = SiteLimits(
    connections=20,
    messages_per_connection=500,
    rate=None,
    connect_timeout_seconds=30.0,
    tls=TlsPolicy.OPPORTUNISTIC,
    pipelining=True,
    chunking=True,
)


def rule(connections: int, **match: str) -> SiteRule:
    return SiteRule(connections=connections, **match)


@pytest.mark.parametrize(
    ("rules", "connections"),
    [
        ([], 20),
        ([rule(1)], 1),
        ([rule(1), rule(2)], 1),  # alike: the first in the file
        ([rule(1), rule(2, mx="giant.test")], 2),
        ([rule(2, mx="mail.giant.test"), rule(1, mx="giant.test")], 2),  # the longest suffix
        ([rule(1, mx="giant.test"), rule(2, mx=".MAIL.giant.test.")], 2),  # however it is written
        ([rule(2, mx="iant.test")], 20),  # a suffix of names, not of letters
        ([rule(2, mx="mx1.mail.giant.test")], 20),  # all hosts must share it
        ([rule(2, mx="other.test"), rule(1)], 1),
        ([rule(3, site=SITE), rule(2, mx="mail.giant.test"), rule(1)], 3),
        ([rule(3, site="elsewhere"), rule(2, mx="giant.test")], 2),
        ([rule(4, domain="giant.test"), rule(3, site=SITE), rule(2, mx="giant.test"), rule(1)], 4),
        ([rule(4, domain="small.test"), rule(3, site=SITE)], 3),
    ],
)
def test_the_strongest_rule_that_matches_says_it(rules: list[SiteRule], connections: int) -> None:
    assert site_limits(rules, SITE, HOSTS, "giant.test").connections == connections


def test_a_rule_for_a_domain_holds_for_that_domain_only() -> None:
    assert site_limits([rule(4, domain="giant.test")], SITE, HOSTS) == DEFAULTS


def test_a_site_without_hosts_matches_no_suffix() -> None:
    assert site_limits([rule(4, mx="giant.test")], SITE, []) == DEFAULTS


def test_each_value_comes_from_the_strongest_rule_that_says_it() -> None:
    rules = [
        SiteRule(rate=Rate(100, 60.0), tls=TlsPolicy.REQUIRED, chunking=False),
        SiteRule(mx="giant.test", connections=3, tls=TlsPolicy.NEVER, pipelining=False),
        SiteRule(site=SITE, connect_timeout=Duration(7), messages_per_connection=9, pipelining=True),
    ]
    assert site_limits(rules, SITE, HOSTS) == SiteLimits(
        connections=3,
        messages_per_connection=9,
        rate=Rate(100, 60.0),
        connect_timeout_seconds=7.0,
        tls=TlsPolicy.NEVER,
        pipelining=True,
        chunking=False,
    )


@pytest.mark.parametrize("key", sorted(set(asdict(SITE_DEFAULTS)) - {"domain", "mx", "site", "rate"}))
def test_the_defaults_say_everything_but_a_rate(key: str) -> None:
    value: Any = getattr(SITE_DEFAULTS, key)
    assert value is not None
