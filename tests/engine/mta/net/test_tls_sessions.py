"""Sessions to resume: kept by demand, bounded in number and age."""

import ssl
from typing import cast

from engine.model.tls import HostDemand, HostTls, TlsaRecord
from engine.mta.net.tls_sessions import SESSION_SECONDS_MAX, TlsSessions


class FakeSession:
    def __init__(self, timeout: int = 7_200) -> None:
        self.timeout = timeout


def session(timeout: int = 7_200) -> ssl.SSLSession:
    return cast(ssl.SSLSession, FakeSession(timeout))


def test_a_session_is_offered_again_and_again_until_a_newer_one_comes() -> None:
    sessions, first, second = TlsSessions(), session(), session()
    assert sessions.take("mx", 0.0) is None
    sessions.keep("mx", first, 0.0)
    assert sessions.take("mx", 1.0) is first
    assert sessions.take("mx", 1.0) is first
    sessions.keep("mx", second, 2.0)
    assert sessions.take("mx", 3.0) is second
    assert sessions.taken == 3
    assert repr(sessions) == "<TlsSessions 1 kept, 0 of 3 resumed>"


def test_it_is_too_old_after_the_peer_s_time_or_ours() -> None:
    sessions = TlsSessions()
    sessions.keep("short", session(60), 0.0)
    sessions.keep("long", session(10**6), 0.0)
    assert sessions.take("short", 59.0)
    assert sessions.take("short", 60.0) is None
    assert sessions.take("long", SESSION_SECONDS_MAX - 1)
    assert sessions.take("long", SESSION_SECONDS_MAX) is None
    assert len(sessions) == 0


def test_the_one_that_was_not_used_for_longest_makes_room() -> None:
    sessions = TlsSessions(sessions_max=2)
    sessions.keep("a", session(), 0.0)
    sessions.keep("b", session(), 0.0)
    sessions.take("a", 1.0)
    sessions.keep("c", session(), 2.0)
    assert sessions.take("b", 3.0) is None
    assert sessions.take("a", 3.0)
    assert sessions.take("c", 3.0)


def test_what_failed_is_forgotten() -> None:
    sessions = TlsSessions()
    sessions.keep("a", session(), 0.0)
    sessions.forget("a")
    sessions.forget("a")
    assert sessions.take("a", 0.0) is None


def test_another_demand_is_another_key() -> None:
    keys = {
        ("mx", 25, HostDemand(HostTls.OPPORTUNISTIC)),
        ("mx", 25, HostDemand(HostTls.VERIFIED, ("mx",))),
        ("mx", 25, HostDemand(HostTls.VERIFIED, ("mx", "example.org"))),
        ("mx", 25, HostDemand(HostTls.DANE, ("mx",), (TlsaRecord(3, 1, 1, b"a"),))),
        ("mx", 25, HostDemand(HostTls.DANE, ("mx",), (TlsaRecord(3, 1, 1, b"b"),))),
    }
    assert len(keys) == 5
