"""STARTTLS with each real server: letters arrive once, the event names the version, tickets are used again.

Certificates are nobody's, as most receivers' are: opportunistic TLS asks for nothing. Debian's OpenSMTPD
cannot do a private-key operation (see `bench.peers.opensmtpd`), so it is met in clear, and once is enough to
know that.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from bench.peers import exim, haraka, opensmtpd, postfix
from engine.config.tables import EngineTable, SiteRule
from engine.model.event import Delivered
from engine.mta.net.mx import Route
from engine.mta.net.smarthost import literal_route
from tests.fakes.hop_engine import misdelivered, write_to

pytestmark = [pytest.mark.slow, pytest.mark.peers]

HOST = "127.0.0.11"
PEOPLE = tuple(f"reader{number}@d{number % 5}.example" for number in range(1, 61))
PER_CONNECTION = 5  # so that there are a dozen connections, and sessions to take up again
SECONDS = 30.0
SERVERS = {"postfix": postfix, "exim": exim, "opensmtpd": opensmtpd, "haraka": haraka}


@pytest.mark.parametrize(
    ("name", "version", "resumes"),
    [
        ("postfix", "TLSv1.3", True),
        ("exim", "TLSv1.3", True),
        ("haraka", "TLSv1.3", False),  # gives tickets that it does not take back
        ("opensmtpd", "", False),
    ],
)
async def test_letters_arrive_once_over_starttls(
    name: str, version: str, resumes: bool, tmp_path: Path, require_peer: Callable[[str], None]
) -> None:
    require_peer(name)
    engine = EngineTable(signers=1, site=(SiteRule(connections=1, messages_per_connection=PER_CONNECTION),))
    with SERVERS[name].receiving(tmp_path / name, HOST, tls=True) as receiver:
        route = await literal_route(f"{receiver.host}:{receiver.port}")
        assert isinstance(route, Route)
        told = await write_to(PEOPLE, tmp_path / "data", seconds=SECONDS, engine=engine, static_route=route)
        arrived = await trio.to_thread.run_sync(lambda: receiver.wait_for(len(PEOPLE)))
    assert len(told.events) == len(arrived) == len(PEOPLE)
    assert all(isinstance(event, Delivered) for event in told.events)
    assert {event.tls.partition(" ")[0] for event in told.events} == {version}
    assert misdelivered(told, arrived) == []
    resumed = sum("resumed" in event.tls.split() for event in told.events)
    if resumes:
        assert told.resumed >= 1
        assert resumed >= PER_CONNECTION
    else:
        assert told.resumed == resumed == 0
