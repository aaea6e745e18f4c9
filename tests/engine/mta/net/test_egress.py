"""From the configuration to what mail leaves by: passwords are read once, and what cannot be used is said."""

import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.config.egress import RelayRule, RouteRule, SourceRule
from engine.config.tables import Config
from engine.config.units import HostPort
from engine.model.egress import Credentials, Proxy, ProxyKind, Relay, RelayTls, Source
from engine.mta.net.egress import (
    EgressError,
    check_sources,
    egress_sources,
    host_name,
    read_egress,
    read_relays,
    unlocked,
)
from engine.mta.policy.egress import DEFAULT_WAY, Way


def config_of(folder: Path, **engine: Any) -> Config:
    config = Config()
    return replace(
        config, keys=replace(config.keys, folder=str(folder)), engine=replace(config.engine, **engine)
    )


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    path.write_bytes(data)
    path.chmod(mode)


SOCKS = SourceRule(
    name="a", ehlo_name="a.test", proxy="socks5://127.0.0.1:1080", proxy_user="me", proxy_password_file="pw"
)
SMART = RelayRule(
    name="smart", host=HostPort.parse("Relay.test:587"), user="me", password_file="pw", tls=RelayTls.REQUIRED
)


def test_sources_come_from_the_configuration_or_are_the_system_s(tmp_path: Path) -> None:
    two = (SourceRule(name="a", address="127.0.0.2"), SourceRule(name="b", ehlo_name="b.test"))
    config = config_of(tmp_path, source=two)
    assert egress_sources(config) == (Source("a", host_name(), "127.0.0.2"), Source("b", "b.test"))
    assert egress_sources(config_of(tmp_path)) == (Source("default", host_name()),)


@pytest.mark.parametrize(
    ("system", "name"),
    [
        ("mx.example.org", "mx.example.org"),
        ("MX.Example.org", "mx.example.org"),
        ("localhost", "localhost.localdomain"),
        ("10.0.0.1", "localhost.localdomain"),
        ("odd name", "localhost.localdomain"),
        ("", "localhost.localdomain"),
    ],
)
def test_the_ehlo_name_is_the_host_s_if_it_is_one(
    system: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.getfqdn", lambda: system)
    assert host_name() == name


def test_a_source_knows_its_proxy_and_its_password_when_it_is_to_be_used(tmp_path: Path) -> None:
    config = config_of(tmp_path, source=(SOCKS,))
    (source,) = egress_sources(config)
    assert source.proxy == Proxy(ProxyKind.SOCKS5, "127.0.0.1", 1080, "me")
    write(tmp_path / "pw", b"secret\n")
    (source,) = unlocked(config, (source,))
    assert source.proxy == Proxy(ProxyKind.SOCKS5, "127.0.0.1", 1080, "me", "secret")
    plain = (Source("b", "b.test"),)
    assert unlocked(config, plain) == plain


@pytest.mark.parametrize(
    ("data", "mode", "words"),
    [
        (None, 0o600, "does not exist (write"),
        (b"secret\n", 0o640, "chmod 600"),
        (b"", 0o600, "one line"),
        (b"two\nlines\n", 0o600, "one line"),
        (b"x" * 256, 0o600, "1 to 255 octets"),
        (b"\xff\n", 0o600, "UTF-8"),
    ],
)
def test_a_password_file_that_will_not_do_is_named_with_its_cure(
    data: bytes | None, mode: int, words: str, tmp_path: Path
) -> None:
    config = config_of(tmp_path, source=(SOCKS,))
    if data is not None:
        write(tmp_path / "pw", data, mode)
    with pytest.raises(EgressError) as caught:
        unlocked(config, egress_sources(config))
    assert words in str(caught.value)
    assert str(caught.value).startswith("[[engine.source]] a: proxy_password_file: ")


def test_relays_come_with_their_credentials(tmp_path: Path) -> None:
    write(tmp_path / "pw", b"secret")
    near = RelayRule(
        name="near", host=HostPort.parse("[::1]:25"), user="me", password_file="pw", connections=3
    )
    bare = RelayRule(name="bare", host=HostPort.parse("10.0.0.1:25"))
    assert read_relays(config_of(tmp_path, relay=(SMART, near, bare))) == [
        Relay("smart", "relay.test", 587, Credentials("me", "secret"), RelayTls.REQUIRED),
        Relay("near", "::1", 25, Credentials("me", "secret", clear_allowed=True), connections=3),
        Relay("bare", "10.0.0.1", 25),
    ]
    os.unlink(tmp_path / "pw")
    with pytest.raises(EgressError, match=r"\[\[engine.relay\]\] smart: password_file: .*does not exist"):
        read_relays(config_of(tmp_path, relay=(SMART,)))


def test_ways_come_from_the_tables(tmp_path: Path) -> None:
    write(tmp_path / "pw", b"secret")
    sources = (SourceRule(name="a", weight=0), SourceRule(name="b", weight=5))
    config = config_of(
        tmp_path,
        source=sources,
        pools={"main": {"a": 2}, "both": ["a", "b"]},
        relay=(SMART,),
        route=(RouteRule(campaign=3, pool="both"), RouteRule(relay="smart")),
    )
    made = egress_sources(config)
    egress = read_egress(config, made)
    assert egress.way(3, "", "x.test") == Way("both")
    assert egress.way(4, "", "x.test") == Way("smart", "smart")
    assert egress.sources(Way("both")) == made
    assert egress.sources(DEFAULT_WAY) == made[1:]
    relay = egress.relay("smart")
    assert relay is not None
    assert relay.host == "relay.test"


def test_an_address_that_is_not_ours_is_refused_with_the_cure() -> None:
    check_sources((Source("a", "a.test"), Source("b", "b.test", "127.0.0.9")))
    proxy = Proxy(ProxyKind.HAPROXY, "127.0.0.1", 9)
    check_sources((Source("c", "c.test", "192.0.2.77", proxy),))  # the proxy's to have
    with pytest.raises(EgressError, match=r"\[\[engine.source\]\] d: address: 192.0.2.77 .*ip address add"):
        check_sources((Source("d", "d.test", "192.0.2.77"),))
