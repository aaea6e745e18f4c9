"""From a route to a peer that is Ready: which host is tried, and with what, over real sockets."""

import random

import pytest
import trio
from msgspec.structs import replace

from bench.world.manners import PLAIN, Manners, Starttls
from engine.actors.dialler import HOSTS_TRIED_MAX, Dialler, Reached, located
from engine.config.shaping import TlsPolicy
from engine.config.units import Duration
from engine.model.egress import MxHost, Source
from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from tests.fakes.smtp_line import Line, open_line


async def connect(line: Line, *, stop: trio.Event | None = None, source: Source | None = None) -> object:
    """Dial once more beside the line's own connection; a session that was reached is closed again."""
    dialler = Dialler(line.parts, line.memory, source or line.source, trio.Event() if stop is None else stop)
    with trio.fail_after(10):
        reached = await dialler.connect(line.route)
    if isinstance(reached, Reached):
        reached.session.close()
    return reached


async def test_the_first_host_that_is_ready_is_taken() -> None:
    async with open_line(dead_hosts=2) as line:
        reached = await connect(line)
        assert isinstance(reached, Reached)
        assert reached.host.name == "mx.plain.test"
        assert reached.address in line.route.hosts[-1].addresses


async def test_there_is_an_end_to_trying() -> None:
    async with open_line(dead_hosts=HOSTS_TRIED_MAX) as line:
        reached = await connect(line)
        assert isinstance(reached, TransportFailure)
        assert reached.kind is FailureKind.CONNECT_REFUSED


async def test_a_host_that_refuses_us_is_passed_over_and_its_word_is_kept() -> None:
    async with open_line(Manners(banner="554 5.7.1 blocked")) as line:
        reached = await connect(line)
        assert isinstance(reached, Reply)
        assert str(reached) == "554 5.7.1 blocked"


async def test_a_stop_between_two_hosts_ends_it_without_a_trouble() -> None:
    async with open_line() as line:
        stop = trio.Event()
        stop.set()
        assert await connect(line, stop=stop) is None


async def test_a_source_without_the_family_says_so() -> None:
    async with open_line() as line:
        reached = await connect(line, source=Source("six", "me.test", "::1"))
        assert isinstance(reached, TransportFailure)
        assert reached.kind is FailureKind.NO_ADDRESS
        assert "six" in reached.detail


async def test_the_connect_timeout_is_the_site_s() -> None:
    async with open_line(connect_timeout=Duration(0.2)) as line:
        hole = MxHost("hole.test", ("192.0.2.1",), 1, 25)  # RFC 5737: nobody answers, or no route at all
        line.route = replace(line.route, hosts=(hole,))
        began = trio.current_time()
        reached = await connect(line)
        assert isinstance(reached, TransportFailure)
        assert reached.verb is Verb.CONNECT
        assert trio.current_time() - began < 3


@pytest.mark.parametrize(
    ("policy", "starttls", "tls", "trouble"),
    [
        (TlsPolicy.OPPORTUNISTIC, Starttls.OFFERED, True, ""),
        (TlsPolicy.OPPORTUNISTIC, Starttls.ABSENT, False, ""),
        (TlsPolicy.OPPORTUNISTIC, Starttls.GARBLED, False, ""),
        (TlsPolicy.OPPORTUNISTIC, Starttls.UNAVAILABLE, False, ""),
        (TlsPolicy.NEVER, Starttls.OFFERED, False, ""),
        (TlsPolicy.REQUIRED, Starttls.OFFERED, True, ""),
        (TlsPolicy.REQUIRED, Starttls.ABSENT, False, "tls at starttls"),
        (TlsPolicy.REQUIRED, Starttls.GARBLED, False, "at tls"),
        (TlsPolicy.REQUIRED, Starttls.UNAVAILABLE, False, "454"),
    ],
)
async def test_what_tls_policy_and_host_make_of_each_other(
    policy: TlsPolicy, starttls: Starttls, tls: bool, trouble: str
) -> None:
    async with open_line(Manners(starttls=starttls), tls=policy) as line:
        reached = await connect(line)
        if trouble:
            assert not isinstance(reached, Reached)
            assert trouble in str(reached)
        else:
            assert isinstance(reached, Reached)
            assert bool(reached.client.tls) == tls


async def test_a_host_whose_tls_broke_is_met_in_clear_for_an_hour() -> None:
    async with open_line(Manners(starttls=Starttls.GARBLED)) as line:
        assert isinstance(await connect(line), Reached)
        before = line.world.statistics()["totals"]["connections"]
        assert isinstance(await connect(line), Reached)
        assert line.world.statistics()["totals"]["connections"] == before + 1, "not tried again"
        line.memory.tls_broken_until["mx.plain.test"] = trio.current_time() - 1
        await connect(line)
        assert line.world.statistics()["totals"]["connections"] == before + 3


async def test_hosts_of_one_preference_take_turns() -> None:
    async with open_line(PLAIN) as line:
        (host,) = line.route.hosts
        twins = tuple(replace(host, name=f"mx{number}.plain.test") for number in range(3))
        line.route = replace(line.route, hosts=twins)
        line.parts.dice = random.Random(4)
        found = set()
        for _ in range(12):
            reached = await connect(line)
            assert isinstance(reached, Reached)
            found.add(reached.host.name)
        assert len(found) == 3


@pytest.mark.parametrize(
    ("verb", "told"), [(Verb.IDLE, Verb.MAIL), (Verb.TLS, Verb.TLS), (Verb.CONNECT, Verb.CONNECT)]
)
def test_a_failure_gets_the_verb_that_the_session_did_not_know(verb: Verb, told: Verb) -> None:
    failure = TransportFailure(FailureKind.CLOSED, verb, "why")
    assert located(failure, Verb.MAIL) == TransportFailure(FailureKind.CLOSED, told, "why")
