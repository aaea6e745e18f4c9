"""Tables of ways out: what one says about another, and what cannot be, is refused with key and cure."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.config import ConfigError, load_config
from engine.config.egress import RelayRule, RouteRule, SourceRule, members_of, plain_domain
from engine.config.shaping import TlsPolicy
from engine.config.units import HostPort
from engine.model.egress import Proxy, ProxyKind, RelayTls

HOST = HostPort.parse("relay.test:587")


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: SourceRule(name="a b"), "name"),
        (lambda: SourceRule(name="a", address="nowhere"), "address"),
        (lambda: SourceRule(name="a", ehlo_name="no dot"), "ehlo_name"),
        (lambda: SourceRule(name="a", weight=-1), "weight"),
        (lambda: SourceRule(name="a", proxy="http://127.0.0.1:80"), "proxy: is no proxy: write socks5"),
        (lambda: SourceRule(name="a", proxy="socks5://127.0.0.1"), "proxy: is no proxy"),
        (
            lambda: SourceRule(name="a", proxy="socks5://proxy.test:1080"),
            "proxy: names a host: write its addr",
        ),
        (lambda: SourceRule(name="a", proxy="haproxy://127.0.0.1:1"), "address: is what a haproxy"),
        (lambda: SourceRule(name="a", proxy_user="me"), "proxy_user: is of use with proxy"),
        (
            lambda: SourceRule(name="a", proxy="socks5://127.0.0.1:1", proxy_user="me"),
            "proxy_password_file: and proxy_user",
        ),
        (
            lambda: SourceRule(name="a", address="::1", proxy="haproxy://[::1]:1", proxy_user="me"),
            "proxy_user: is of use with a socks5",
        ),
        (
            lambda: SourceRule(
                name="a", proxy="socks5://127.0.0.1:1", proxy_user="é" * 128, proxy_password_file="f"
            ),
            "proxy_user: is longer",
        ),
        (lambda: RelayRule(name="a", host=HOST, user="me"), "password_file"),
        (
            lambda: RelayRule(name="a", host=HOST, user="me", password_file="-----BEGIN"),
            "password_file: holds",
        ),
        (lambda: RelayRule(name="a", host=HOST, connections=0), "connections"),
        (
            lambda: RelayRule(name="a", host=HOST, user="me", password_file="f", tls=RelayTls.NEVER),
            "tls: would",
        ),
        (
            lambda: RelayRule(name="a", host=HostPort.parse("10.0.0.1:25"), tls=RelayTls.VERIFIED),
            "tls: a cert",
        ),
        (lambda: RouteRule(campaign=1, workspace="acme", pool="x"), "workspace: one route"),
        (lambda: RouteRule(campaign=-1, pool="x"), "campaign"),
        (lambda: RouteRule(campaign=1), "pool: or relay"),
        (lambda: RouteRule(pool="x", relay="y"), "pool: or relay"),
        (lambda: RouteRule(domain="no dot", pool="x"), "domain"),
    ],
)
def test_an_impossible_table_names_its_key(make: Callable[[], object], key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}"):
        make()


A = '[[engine.source]]\nname = "ip-1"\n'
SMART = '[[engine.relay]]\nname = "smart"\nhost = "relay.test:587"\n'


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        (A + A, "source", "'ip-1' stands there twice"),
        ('[[engine.source]]\nname = "a"\nweight = 0', "source", "no weight above 0"),
        (A + '[engine.pools]\nmain = { "ip-2" = 1 }', "pools", 'did you mean "ip-1"?'),
        (A + "[engine.pools]\nmain = []", "pools", "main is empty"),
        (A + '[engine.pools]\nmain = ["ip-1", "ip-1"]', "pools", "main names a source twice"),
        (A + "[engine.pools]\nmain = { ip-1 = 0 }", "pools", "weight that is not from 1"),
        ('[engine.pools]\nmain = ["x"]', "pools", "there is none"),
        (A + '[engine.pools]\n"a|b" = ["ip-1"]', "pools", "use letters"),
        (A + '[engine.pools]\nsmart = ["ip-1"]\n' + SMART, "relay", "is the name of a pool, too"),
        (SMART + SMART, "relay", "stands there twice"),
        (
            '[[engine.route]]\ncampaign = 3\npool = "main"',
            "route",
            "campaign 3: no pool 'main' in [engine.pools]",
        ),
        (SMART + '[[engine.route]]\nrelay = "smrt"', "route", 'did you mean "smart"?'),
        (
            SMART + 2 * '[[engine.route]]\ndomain = ".X.test"\nrelay = "smart"\n',
            "route",
            "domain .x.test' stands",
        ),
    ],
)
def test_relations_that_cannot_be_are_refused(text: str, key: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "emass.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    assert (caught.value.table, caught.value.key) == ("engine", key)
    assert problem in caught.value.problem


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        (A + '[engine.pools]\nmain = "ip-1"', ("engine", "pools"), "must be a table or a list in [ ]"),
        (A + '[engine.pools]\nmain = { ip-1 = "x" }', ("engine", "pools"), "must be a whole number"),
        (A + "[engine.pools]\nmain = [1]", ("engine", "pools[0]"), "must be a text in quotes"),
        ("[engine]\npools = 3", ("engine", "pools"), "must be a table"),
        (SMART + 'tls = "verify"', ("engine.relay[0]", "tls"), '"verified"'),
    ],
)
def test_a_mistake_in_the_form_is_placed(
    text: str, place: tuple[str, str], problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "emass.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    assert problem in str(caught.value)
    assert (caught.value.table, caught.value.key) == place


def test_pools_can_be_set_by_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "emass.toml"
    path.write_text(A)
    config = load_config(path, {"EMASS_ENGINE__POOLS__MAIN": '["ip-1"]'})
    assert config.engine.pools == {"main": ["ip-1"]}


def test_a_proxy_is_read_from_its_text() -> None:
    rule = SourceRule(name="a", address="::1", proxy="haproxy://[::1]:2525")
    assert rule.proxy_facts() == Proxy(ProxyKind.HAPROXY, "::1", 2525)
    assert SourceRule(name="a").proxy_facts() is None


def test_a_listed_member_has_the_weight_of_its_source() -> None:
    assert members_of(["a", "b"], {"a": 3, "b": 0}) == {"a": 3, "b": 1}
    assert members_of({"a": 7}, {"a": 3}) == {"a": 7}


def test_a_relay_says_its_limits_as_a_rule_of_its_site() -> None:
    assert RelayRule(name="a", host=HOST).shaping() is None
    rule = RelayRule(name="a", host=HOST, tls=RelayTls.VERIFIED, connections=5).shaping()
    assert rule is not None
    assert rule.connections is not None
    assert (rule.site, rule.tls, rule.connections.ceiling) == ("a@relay.test:587", TlsPolicy.REQUIRED, 5)
    never = RelayRule(name="a", host=HOST, tls=RelayTls.NEVER).shaping()
    assert never is not None
    assert never.tls is TlsPolicy.NEVER


@pytest.mark.parametrize(
    ("text", "plain"),
    [("X.test", "x.test"), (".X.test", ".x.test"), (".de", ".de"), (".bücher.de", ".xn--bcher-kva.de")],
)
def test_a_domain_with_a_dot_in_front_is_all_below_it(text: str, plain: str) -> None:
    assert plain_domain(text) == plain
