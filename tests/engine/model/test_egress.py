"""Facts about ways out: passwords stay in them."""

from engine.model.egress import Credentials, Proxy, ProxyKind, Relay, Source


def test_a_password_is_not_printed() -> None:
    credentials = Credentials("user", "secret")
    assert "secret" not in repr(credentials)
    assert "secret" not in str([credentials, Relay("smart", "relay.test", 587, credentials)])
    proxy = Proxy(ProxyKind.SOCKS5, "127.0.0.1", 1080, "me", "secret")
    assert "secret" not in f"{proxy} {proxy!r} {Source('a', 'a.test', None, proxy)!r}"
    assert repr(proxy) == "<Proxy socks5://127.0.0.1:1080 as me>"


def test_an_ipv6_address_is_in_brackets_before_its_port() -> None:
    assert str(Relay("smart", "::1", 587)) == "[::1]:587"
    assert str(Proxy(ProxyKind.HAPROXY, "::1", 9)) == "haproxy://[::1]:9"
