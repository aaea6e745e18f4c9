"""Taps: the next sessions that match are listened to, and a tap without a reader ends."""

import pytest
import trio
from trio.testing import MockClock

from bench.world.manners import Manners, Starttls
from engine.actors.dialler import Dialler, Reached
from engine.actors.memory import Place
from engine.actors.taps import FORGOTTEN_SECONDS, TAPS_MAX, Match, Taps, TooManyTaps
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.tap import Tape, TapedWire
from tests.fakes.engine_house import until
from tests.fakes.smtp_line import open_line

PLACE = Place("out", "mx.a.test", ("mx.a.test", "mx2.a.test"), "")


class Wire:
    closed = 0

    def close(self) -> None:
        self.closed += 1


def tape() -> Tape:
    return Tape(body_octets=0, mask=False)


@pytest.mark.parametrize(
    ("match", "wanted"),
    [
        (Match(), True),
        (Match(site="mx.a.test"), True),
        (Match(site="mx2.a.test"), True),
        (Match(site="mx.b.test"), False),
        (Match(source="out"), True),
        (Match(source="in"), False),
        (Match(host="mx.a.test"), True),
        (Match(host="192.0.2.1"), True),
        (Match(host="192.0.2.2"), False),
        (Match(domain="a.test"), True),
        (Match(domain="b.test"), False),
        (Match(domain="c.test", pooled=("c.test|special",)), True),
    ],
)
async def test_which_sessions_a_tap_takes(match: Match, wanted: bool, autojump_clock: MockClock) -> None:
    to_a, to_b = "out>mx.a.test", "out>mx.b.test"
    taps = Taps({"a.test": to_a, "b.test": to_b, "c.test": to_b, "c.test|special": to_a})
    taps.put(match, tape(), 1)
    wire = Wire()
    got = taps.wrap(wire, "out>mx.a.test", PLACE, "mx.a.test", "192.0.2.1")  # type: ignore[arg-type]
    assert isinstance(got, TapedWire) == wanted


async def test_so_many_sessions_and_then_the_trace_is_over(autojump_clock: MockClock) -> None:
    taps = Taps({})
    number = taps.put(Match(), tape(), 1)
    wire = Wire()
    taped = taps.wrap(wire, "p", PLACE, "mx.a.test", "192.0.2.1")  # type: ignore[arg-type]
    assert taps.wrap(wire, "p", PLACE, "mx.a.test", "192.0.2.1") is wire  # type: ignore[arg-type]
    lines, more = taps.fetch(number, 10) or ([], False)
    assert ([line.text for line in lines], more) == (["connected to mx.a.test [192.0.2.1] from out"], True)
    taped.close()
    taped.close()
    assert wire.closed == 2
    assert taps.fetch(number, 10) is not None
    assert taps.fetch(number, 10) == ([], False)
    taps.remove(number)
    assert not taps
    assert taps.fetch(number, 10) is None


async def test_a_tap_that_nobody_reads_ends_by_itself(autojump_clock: MockClock) -> None:
    taps = Taps({})
    number = taps.put(Match(), tape(), 5)
    await trio.sleep(FORGOTTEN_SECONDS - 1)
    assert taps.fetch(number, 1) == ([], True)
    await trio.sleep(FORGOTTEN_SECONDS + 1)
    wire = Wire()
    assert taps.wrap(wire, "p", PLACE, "mx.a.test", "192.0.2.1") is wire  # type: ignore[arg-type]
    assert not taps


async def test_a_dial_that_fails_is_told_and_is_no_session(autojump_clock: MockClock) -> None:
    taps = Taps({})
    number = taps.put(Match(), tape(), 1)
    failure = TransportFailure(FailureKind.CONNECT_REFUSED, Verb.CONNECT)
    assert taps.wrap(failure, "p", PLACE, "mx.a.test", "192.0.2.1") is failure
    lines, more = taps.fetch(number, 10) or ([], False)
    assert [line.text for line in lines] == [f"no connection to mx.a.test [192.0.2.1] from out: {failure}"]
    assert more


@pytest.mark.parametrize("starttls", [Starttls.OFFERED, Starttls.ABSENT])
async def test_a_real_session_is_heard_from_its_first_octet(starttls: Starttls) -> None:
    async with open_line(Manners(starttls=starttls), dead_hosts=1) as line:
        await until(lambda: line.holder.reached)  # its own connection is none of ours
        number = line.parts.taps.put(Match(), tape(), 1)
        dialler = Dialler(line.parts, line.memory, line.source, trio.Event())
        with trio.fail_after(10):
            reached = await dialler.connect(line.route)
        assert isinstance(reached, Reached)
        reached.close()
        heard = line.parts.taps.fetch(number, 100)
        assert heard is not None
        texts = [f"{each.way} {each.text}" for each in heard[0]]
        assert "no connection to dead0.plain.test" in texts[0]
        assert texts[1].startswith("- connected to mx.plain.test")
        assert texts[2].startswith("< 220 ")
        assert texts[3] == f"> EHLO {line.source.ehlo_name}"
        assert texts[-1] == "- closed"
        encrypted = starttls is Starttls.OFFERED
        assert ("> STARTTLS" in texts) == encrypted
        assert any(text.startswith("- TLS for mx.plain.test: TLSv1") for text in texts) == encrypted
        assert texts.count(texts[3]) == 1 + encrypted


async def test_there_are_only_so_many(autojump_clock: MockClock) -> None:
    taps = Taps({})
    for _ in range(TAPS_MAX):
        taps.put(Match(), tape(), 1)
    with pytest.raises(TooManyTaps):
        taps.put(Match(), tape(), 1)
