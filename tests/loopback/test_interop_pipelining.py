"""Hundreds of messages to each real server, every seventh recipient refused: none lost, doubled or crossed.

Each server is met as the engine meets it by itself, and it learns on the way: Haraka answers 503 to what
stands behind a final dot, Exim takes BDAT units and flights of DATA with refused recipients in their midst,
OpenSMTPD wants one command at a time. What arrived is checked by person: mailbox, To line, text and the
token in the return path.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from bench.peers import exim, haraka, opensmtpd, postfix
from engine.config.tables import EngineTable, RetryTable, SiteRule
from engine.config.units import Duration
from engine.model.event import Bounced, Delivered
from engine.model.reply import Verb
from engine.mta.net.mx import Route
from engine.mta.net.smarthost import literal_route
from tests.fakes.hop_engine import misdelivered, write_to

pytestmark = [pytest.mark.slow, pytest.mark.peers]

HOST = "127.0.0.10"
MESSAGES = 420
REFUSED_EACH = 7
REFUSED = "nobody"
DOMAINS = 20
SECONDS = 40.0
SERVERS = {"postfix": postfix, "exim": exim, "opensmtpd": opensmtpd, "haraka": haraka}

PEOPLE = tuple(
    f"{REFUSED if number % REFUSED_EACH == 0 else 'reader'}{number}@d{number % DOMAINS}.example"
    for number in range(1, MESSAGES + 1)
)
READERS = {who for who in PEOPLE if not who.startswith(REFUSED)}


@pytest.mark.parametrize(
    ("name", "chunking", "form"),
    [
        ("postfix", True, Verb.BDAT),
        ("postfix", False, Verb.CONTENT),
        ("exim", True, Verb.BDAT),
        ("exim", False, Verb.CONTENT),
        ("haraka", True, Verb.CONTENT),
        ("opensmtpd", True, Verb.CONTENT),
    ],
)
async def test_every_seventh_recipient_refused_and_nobody_gets_anothers_message(
    name: str, chunking: bool, form: Verb, tmp_path: Path, require_peer: Callable[[str], None]
) -> None:
    require_peer(name)
    engine = EngineTable(
        signers=1,
        retry=RetryTable(first=Duration(0.5)),
        site=(SiteRule(connections=3, chunking=chunking, messages_per_connection=60),),
    )
    with SERVERS[name].receiving(tmp_path / name, HOST, refuse=REFUSED) as receiver:
        route = await literal_route(f"{receiver.host}:{receiver.port}")
        assert isinstance(route, Route)
        told = await write_to(
            PEOPLE,
            tmp_path / "data",
            seconds=SECONDS,
            engine=engine,
            static_route=route,
            enough=lambda events: sum(isinstance(each, Delivered | Bounced) for each in events) == MESSAGES,
        )
        arrived = await trio.to_thread.run_sync(lambda: receiver.wait_for(len(READERS)))
    ends = {told.people[event.subscriber - 1]: type(event) for event in told.events}
    assert {who for who, end in ends.items() if end is Bounced} == set(PEOPLE) - READERS
    assert form.value in {event.verb for event in told.events if isinstance(event, Delivered)}
    assert {one.recipient for one in arrived} == READERS
    assert misdelivered(told, arrived) == []
