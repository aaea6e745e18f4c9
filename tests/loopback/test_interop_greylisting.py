"""Greylisting by Postgrey in front of Postfix: our retries pass it, and each letter is delivered once.

Postgrey remembers client, return path and recipient, and wants to see the same three again after its delay.
So this holds only when a retry comes from the same source with the same return path, token included.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from bench.peers import postfix, postgrey
from engine.config.egress import SourceRule
from engine.config.tables import EngineTable, RetryTable, SiteRule
from engine.config.units import Duration
from engine.model.event import Deferred, Delivered
from engine.mta.net.mx import Route
from engine.mta.net.smarthost import literal_route
from tests.fakes.hop_engine import misdelivered, write_to

pytestmark = [pytest.mark.slow, pytest.mark.peers]

HOST = "127.0.0.12"
DELAY_SECONDS = 2
PEOPLE = tuple(f"reader{number}@d{number}.example" for number in range(1, 31))
SECONDS = 40.0
SOURCES = tuple(
    SourceRule(name=f"ip-{number}", address=f"127.0.{number}.12", ehlo_name=f"out{number}.interop.example")
    for number in (1, 2, 3)
)


async def test_a_retry_passes_the_greylist_from_the_same_source_with_the_same_return_path(
    tmp_path: Path, require_peer: Callable[[str], None]
) -> None:
    require_peer("postfix")
    require_peer("postgrey")
    engine = EngineTable(
        signers=1,
        retry=RetryTable(first=Duration(DELAY_SECONDS + 1)),
        source=SOURCES,
        site=(SiteRule(connections=3),),
    )
    with (
        postgrey.greylisting(tmp_path / "postgrey", DELAY_SECONDS) as policy,
        postfix.receiving(tmp_path / "postfix", HOST, policy=policy) as receiver,
    ):
        route = await literal_route(f"{receiver.host}:{receiver.port}")
        assert isinstance(route, Route)
        told = await write_to(
            PEOPLE,
            tmp_path / "data",
            seconds=SECONDS,
            engine=engine,
            static_route=route,
            enough=lambda events: sum(isinstance(each, Delivered) for each in events) == len(PEOPLE),
        )
        arrived = await trio.to_thread.run_sync(lambda: receiver.wait_for(len(PEOPLE)))
        log = receiver.log.read_text()
    deferred = [event for event in told.events if isinstance(event, Deferred)]
    assert {event.subscriber for event in deferred} == set(range(1, len(PEOPLE) + 1))
    assert {event.category for event in deferred} == {"greylisted"}
    assert len(arrived) == len(PEOPLE)
    assert misdelivered(told, arrived) == []
    triplets = set(re.findall(r"unknown\[(127[.\d]+)\].*Greylisted.*from=<(\S+)> to=<(\S+)> ", log))
    assert len(triplets) == len(PEOPLE), "a recipient was met by two sources or with two return paths"
    assert len({client for client, _, _ in triplets}) == len(SOURCES)
