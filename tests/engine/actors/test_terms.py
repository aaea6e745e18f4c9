"""How long an envelope is tried: the path's word, the campaign's word, and never past its own expiry."""

from msgspec.structs import replace
from trio.testing import MockClock

from engine.actors.memory import PathMemory
from engine.actors.parts import Parts
from engine.actors.terms import Terms
from engine.config.shaping import ShapingRule
from engine.config.units import Duration
from engine.model.envelope import Envelope
from tests.fakes.engine_house import SOURCE, host_route, letter, memory_parts

HOUR = 3_600.0


async def house(*rules: ShapingRule) -> tuple[Parts, PathMemory, Envelope]:
    parts = memory_parts(site=rules)
    await parts.spool.put_content(letter(7), 0.0)
    memory = parts.path("out>mx.test", host_route("127.0.0.1", 25), SOURCE, "", 0.0)
    now = parts.clock.now()
    return parts, memory, Envelope(11, 7, 1, "a@x.test", "x.test", (), now, now + 72 * HOUR)


async def test_without_rules_the_envelope_says_when_it_ends(autojump_clock: MockClock) -> None:
    parts, memory, envelope = await house()
    assert Terms(parts, memory).expires_at(envelope) == envelope.expires_at
    assert Terms(parts, None).expires_at(envelope) == envelope.expires_at


async def test_a_path_may_give_up_earlier_and_never_later(autojump_clock: MockClock) -> None:
    parts, memory, envelope = await house(ShapingRule(expire_after=Duration(4 * HOUR)))
    assert Terms(parts, memory).expires_at(envelope) == envelope.accepted_at + 4 * HOUR
    short = replace(envelope, expires_at=envelope.accepted_at + HOUR)
    assert Terms(parts, memory).expires_at(short) == short.expires_at


async def test_a_campaigns_rule_bends_the_curve_of_the_path(autojump_clock: MockClock) -> None:
    parts, memory, envelope = await house(
        ShapingRule(retry_first=Duration(600), retry_factor=1.0, retry_max=Duration(600)),
        ShapingRule(campaign=7, retry_first=Duration(60), retry_max=Duration(60)),
    )
    now = parts.clock.now()
    due = Terms(parts, memory).retry_at(envelope)
    assert due is not None
    assert 40 < due - now < 80
    due = Terms(parts, memory).retry_at(replace(envelope, campaign=8))
    assert due is not None
    assert 400 < due - now < 800


async def test_who_has_outlived_its_path_expires(autojump_clock: MockClock) -> None:
    parts, memory, envelope = await house(ShapingRule(expire_after=Duration(4 * HOUR)))
    old = replace(envelope, accepted_at=envelope.accepted_at - 5 * HOUR)
    assert Terms(parts, memory).retry_at(old) is None
