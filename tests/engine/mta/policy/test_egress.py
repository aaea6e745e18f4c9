"""Ways and sources: the narrowest rule, and a loss that moves nobody else."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.egress import RouteRule
from engine.model.egress import Relay, RelayTls, Source
from engine.model.tls import HostTls
from engine.mta.policy.egress import DEFAULT_WAY, Egress, Way, relay_demand

A, B, C = (Source(name, f"{name}.test", weight=weight) for name, weight in (("a", 1), ("b", 3), ("c", 0)))
SMART = Relay("smart", "relay.test", 587)
DOMAINS = [f"{number}.example" for number in range(4_000)]


def everything(source: Source) -> bool:
    return True


def egress(*routes: RouteRule) -> Egress:
    pools = {"main": {"a": 1, "b": 1, "c": 2}, "second": {"c": 1}}
    return Egress((A, B, C), pools, (SMART,), routes)


ROUTES = (
    RouteRule(pool="main"),
    RouteRule(workspace="acme", relay="smart"),
    RouteRule(domain=".Example", pool="second"),
    RouteRule(domain=".deep.example", relay="smart"),
    RouteRule(domain="deep.example", pool="main"),
    RouteRule(campaign=7, pool="second"),
)
POOL, SECOND, RELAY = Way("main"), Way("second"), Way("smart", "smart")


@pytest.mark.parametrize(
    ("campaign", "workspace", "domain", "way"),
    [
        (7, "acme", "deep.example", SECOND),
        (8, "acme", "deep.example", POOL),
        (8, "acme", "very.deep.example", RELAY),
        (8, "", "other.example", SECOND),
        (8, "acme", "example", RELAY),  # the suffix is of what is below
        (8, "acme", "x.test", RELAY),
        (8, "other", "x.test", POOL),
    ],
)
def test_the_narrowest_route_decides(campaign: int, workspace: str, domain: str, way: Way) -> None:
    assert egress(*ROUTES).way(campaign, workspace, domain) == way


def test_an_operators_word_comes_first_while_it_names_something() -> None:
    found = egress(*ROUTES)
    assert found.way(7, "acme", "deep.example", "smart") == RELAY
    assert found.way(7, "acme", "deep.example", "gone") == SECOND
    assert found.targets == ("main", "second", "smart")


def test_without_routes_all_mail_leaves_by_the_default_way() -> None:
    assert egress().plain
    assert egress().way(1, "acme", "x.test") == DEFAULT_WAY == Way()
    assert not egress(ROUTES[0]).plain
    assert not egress(ROUTES[5]).plain


def test_a_source_of_weight_0_leaves_by_pools_only() -> None:
    assert egress().sources(DEFAULT_WAY) == (A, B)
    assert egress().sources(RELAY) == (A, B)
    assert egress().sources(SECOND) == (C,)
    assert egress().sources(Way("gone")) == (A, B)


def test_shares_follow_weights() -> None:
    counts = Counter(egress().source_for(DEFAULT_WAY, domain, everything).name for domain in DOMAINS)
    assert counts["b"] / counts["a"] == pytest.approx(3.0, rel=0.15)
    counts = Counter(egress().source_for(POOL, domain, everything).name for domain in DOMAINS)
    assert counts["c"] / len(DOMAINS) == pytest.approx(0.5, rel=0.1)


def test_a_lost_source_moves_only_its_own_domains() -> None:
    found = egress()
    before = {domain: found.source_for(POOL, domain, everything) for domain in DOMAINS}
    after = {domain: found.source_for(POOL, domain, lambda each: each is not B) for domain in DOMAINS}
    assert all(after[domain] is source for domain, source in before.items() if source is not B)
    moved = Counter(after[domain].name for domain, source in before.items() if source is B)
    assert set(moved) == {"a", "c"}


def test_where_nothing_is_usable_it_is_the_first_choice() -> None:
    found = egress()
    for domain in DOMAINS[:50]:
        first = found.source_for(POOL, domain, everything)
        assert found.source_for(POOL, domain, lambda each: False) is first


@given(domain=st.text(), weights=st.dictionaries(st.sampled_from("abc"), st.integers(1, 1_000), min_size=1))
def test_any_domain_has_a_source_of_its_pool(domain: str, weights: dict[str, int]) -> None:
    found = Egress((A, B, C), {"pool": weights})
    assert found.source_for(Way("pool"), domain, everything).name in weights


def test_a_relay_demands_what_its_table_says() -> None:
    assert egress().relay("smart") is SMART
    assert egress().relay("gone") is None
    assert egress().relay_at("smart@relay.test:587") is SMART
    assert egress().relay_at("relay.test:587") is None
    assert relay_demand(SMART) is None
    for tls, wanted in ((RelayTls.REQUIRED, HostTls.ENCRYPTED), (RelayTls.VERIFIED, HostTls.VERIFIED)):
        demand = relay_demand(Relay("smart", "relay.test", 587, tls=tls))
        assert demand is not None
        assert demand.hosts["relay.test"].tls is wanted
        assert demand.enforced
        assert demand.lane
