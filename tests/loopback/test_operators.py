"""What an operator does to a running job, over the bus: it is felt within a second, and nothing is lost.

A whole engine on real sockets, and a receiver in another process that notes each RCPT with its time. Mail
of one kind is stopped while other mail flows beside it; what is parked is tried again or taken for
delivered; and what an operator said outlives a kill -9.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from msgspec.structs import replace

from engine.app import Engine, open_engine
from engine.config.egress import RouteRule, SourceRule
from engine.config.tables import AmbiguousPolicy, RetryTable, SiteRule
from engine.config.units import CountRange, Duration
from engine.model.submission import SubmitChunk, SubmitContent
from engine.mta.compose.message import CompiledContent
from tests.fakes.engine_house import (
    CAMPAIGN,
    chunks,
    engine_config,
    letter,
    numbered,
    submit,
    until,
    until_finished,
)
from tests.fakes.engine_process import started
from tests.fakes.operator_house import MailWorld, Operator, mail_world, operating
from tests.fakes.recorder import Recorder, recording

pytestmark = pytest.mark.slow

HOSTS = {"a.test": "127.0.0.51", "b.test": "127.0.0.52"}
HUB = "127.0.0.61"
SOURCES = (
    SourceRule(name="one", ehlo_name="one.letter.example", address="127.0.0.31"),
    SourceRule(name="two", ehlo_name="two.letter.example", address="127.0.0.32"),
)
ROUTES = (RouteRule(domain="a.test", pool="east"), RouteRule(domain="b.test", pool="west"))
STOPPED, FLOWING = 7, 8  # campaigns: of workspace shop to a.test, of another one to b.test
SECONDS = 80.0
THINK_SECONDS = 0.02
FELT_SECONDS = 2.0
QUIET_SECONDS = 0.6  # without an RCPT where a hundred came before: it has stopped
PATIENT = RetryTable(first=Duration(3_600))

TOML = """
[node]
name = "node"
[engine]
smtp_port = {port}
site = [{{ connections = "2..2" }}]
relay = [{{ name = "hub", host = "{hub}" }}]
retry = {{ first = "1 s", max = "2 s" }}
[resolver]
servers = ["{resolver}"]
allow_private = true
"""


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with structlog.testing.capture_logs() as lines:
        yield lines


@asynccontextmanager
async def working(
    folder: Path, *, think_seconds: float = 0.0, **engine: Any
) -> AsyncIterator[tuple[Engine, Operator, MailWorld]]:
    facts: dict[str, Any] = {
        "source": SOURCES,
        "pools": {"east": ["one"], "west": ["two"]},
        "route": ROUTES,
        "site": (SiteRule(connections=CountRange(4, 4)),),
    }
    with trio.fail_after(SECONDS):
        async with mail_world(folder / "mail", HOSTS, think_seconds=think_seconds) as world:
            config = engine_config(folder, world, **(facts | engine))
            async with open_engine(config) as running, operating(folder / "data") as operator:
                yield running, operator, world


async def falls_quiet(recorder: Recorder, domain: str) -> float:
    """Seconds from now until the last RCPT for a domain, 0 = none came; a TooSlowError if they go on."""
    asked = time.monotonic()

    def last() -> float:
        return max(asked, recorder.rcpts(domain)[-1].at)

    await until(lambda: time.monotonic() - last() > QUIET_SECONDS, FELT_SECONDS + QUIET_SECONDS)
    return last() - asked


async def flows_again(recorder: Recorder, domain: str) -> float:
    """Seconds until mail for a domain comes (again), from now."""
    before, asked = len(recorder.rcpts(domain)), time.monotonic()
    await until(lambda: len(recorder.rcpts(domain)) > before + 5)
    return recorder.rcpts(domain)[before].at - asked


# --- stops ---------------------------------------------------------------------------------------------


async def test_what_is_suspended_stops_within_a_second_while_other_mail_flows(tmp_path: Path) -> None:
    aims = (
        ("site", "mx.a.test"),
        ("source", "one"),
        ("domain", "a.test"),
        ("workspace", "shop"),
        ("campaign", str(STOPPED)),
    )
    stopped, flowing = numbered(800, "a.test"), numbered(1_400, "b.test")
    async with working(tmp_path, think_seconds=THINK_SECONDS) as (engine, operator, world):
        recorder = world.recorder
        await submit(engine, replace(letter(STOPPED), workspace="shop"), stopped)
        await submit(engine, letter(FLOWING), flowing)
        await until(lambda: len(recorder.rcpts("@a.test")) > 50)
        for scope, value in aims:
            await operator.on("suspend", scope, value)
            said = time.monotonic()
            felt = await falls_quiet(recorder, "@a.test")
            beside = sum(one.at > said for one in recorder.rcpts("@b.test"))
            await operator.on("resume", scope, value)
            back = await flows_again(recorder, "@a.test")
            print(f"{scope}: last RCPT {felt:.3f} s after, {beside} others; back {back:.3f} s after")
            assert back < FELT_SECONDS
            assert beside > 20
        assert len(recorder.rcpts("@b.test")) < len(flowing), "it flowed all the time"
        counts = [
            await until_finished(engine, len(people), campaign=campaign)
            for campaign, people in ((STOPPED, stopped), (FLOWING, flowing))
        ]
        assert [each.delivered for each in counts] == [len(stopped), len(flowing)]
        assert recorder.took() == dict.fromkeys(stopped + flowing, 1)


async def test_what_is_cancelled_ends_and_other_mail_is_delivered(tmp_path: Path) -> None:
    gone, stays = numbered(2_000, "a.test"), numbered(300, "b.test")
    async with working(tmp_path, think_seconds=THINK_SECONDS) as (engine, operator, world):
        recorder = world.recorder
        await submit(engine, letter(), gone + stays)
        await until(lambda: len(recorder.rcpts("@a.test")) > 50)
        await operator.on("cancel", "domain", "a.test")
        said = time.monotonic()
        counts = await until_finished(engine, len(gone) + len(stays))
        await until(lambda: not engine.parts.stops, FELT_SECONDS * 5)
        last = recorder.rcpts("@a.test")[-1].at - said
        took = recorder.took()
        # What comes later for that domain is no longer meant.
        await submit(engine, letter(FLOWING), numbered(5, "a.test"))
        assert (await until_finished(engine, 5, campaign=FLOWING)).delivered == 5
    assert last < FELT_SECONDS
    assert took.keys() >= set(stays)
    assert set(took.values()) == {1}
    assert counts.delivered == len(took)
    assert counts.cancelled == len(gone) + len(stays) - len(took) > 1_000


# --- what is parked ------------------------------------------------------------------------------------


async def test_deferred_mail_is_tried_at_once_when_an_operator_says_so(tmp_path: Path) -> None:
    later = [f"later.{who}" for who in numbered(40, "a.test")]
    async with working(tmp_path, retry=PATIENT) as (engine, operator, world):
        world.recorder.moody.touch()
        await submit(engine, letter(), later + numbered(40, "b.test"))
        await until(lambda: engine.counts(CAMPAIGN).delivered == 40)
        await until(lambda: states(engine) == {"deferred": 40})
        world.recorder.moody.unlink()
        await operator.on("retry", "domain", "a.test", states=["deferred"])
        counts = await until_finished(engine, 80)
        assert counts.delivered == 80
        assert world.recorder.took("@a.test") == dict.fromkeys(later, 1)


async def test_ambiguous_mail_waits_for_a_word_and_is_taken_for_delivered_or_sent_again(
    tmp_path: Path,
) -> None:
    doubtful = [f"doubt.{number}@{domain}" for number in range(6) for domain in HOSTS]
    async with working(tmp_path, ambiguous=AmbiguousPolicy.HOLD, retry=PATIENT) as (engine, operator, world):
        world.recorder.moody.touch()
        await submit(engine, letter(), doubtful)
        await until(lambda: states(engine).get("ambiguous", 0) == len(doubtful))
        world.recorder.moody.unlink()
        assert engine.counts(CAMPAIGN).ambiguous == len(doubtful)
        await operator.on("retry", "domain", "a.test", states=["ambiguous"], assume="delivered")
        await operator.on("retry", "domain", "b.test", states=["ambiguous"])
        await until(lambda: engine.counts(CAMPAIGN).delivered == len(doubtful))
        counts = engine.counts(CAMPAIGN)
        assert (counts.ambiguous, counts.was_ambiguous) == (0, len(doubtful))
        assert world.recorder.took().keys() == {who for who in doubtful if who.endswith("b.test")}


async def test_a_quarantined_envelope_is_released_when_its_trouble_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = True
    honest = CompiledContent.compose

    def poisoned(self: CompiledContent, envelope: Any, *facts: Any) -> Any:
        if poison and envelope.recipient.startswith("victim"):
            raise RuntimeError("a planted bug")
        return honest(self, envelope, *facts)

    monkeypatch.setattr(CompiledContent, "compose", poisoned)
    people = ["victim@a.test", *numbered(50, "a.test")]
    async with working(tmp_path) as (engine, operator, world):
        await submit(engine, letter(), people)
        await until(lambda: engine.counts(CAMPAIGN).quarantined == 1)
        await until(lambda: engine.counts(CAMPAIGN).delivered == 50)
        assert states(engine) == {"quarantined": 1}
        poison = False
        await operator.on("retry", "campaign", str(CAMPAIGN), states=["quarantined"])
        await until(lambda: engine.counts(CAMPAIGN).delivered == 51)
        assert engine.counts(CAMPAIGN).quarantined == 0
        assert world.recorder.took() == dict.fromkeys(people, 1)


def states(engine: Engine) -> dict[str, int]:
    """How many envelopes that have not ended are in each state."""
    found: dict[str, int] = {}
    for item in engine.parts.spool.listing(0, 10_000):
        found[item.state] = found.get(item.state, 0) + 1
    return found


# --- a kill -9 -----------------------------------------------------------------------------------------


async def test_a_suspension_and_a_reroute_hold_after_kill_nine(tmp_path: Path) -> None:
    stopped, moved = numbered(200, "a.test"), numbered(500, "b.test")
    with trio.fail_after(SECONDS):
        async with (
            mail_world(tmp_path / "mail", HOSTS, think_seconds=THINK_SECONDS) as world,
            recording(tmp_path / "hub", HUB, think_seconds=THINK_SECONDS) as hub,
        ):
            facts = TOML.format(
                port=world.smtp_port, hub=f"{HUB}:{hub.port}", resolver="{}:{}".format(*world.resolver)
            )
            (tmp_path / "emass.toml").write_text(facts)
            process = await started(tmp_path)
            try:
                async with operating(tmp_path / "data") as operator:
                    await operator.submit([SubmitContent(letter())])
                    await operator.submit([SubmitChunk(chunk) for chunk in chunks(stopped + moved)])
                    await until(flowing(world.recorder, "@a.test"))
                    await until(flowing(world.recorder, "@b.test"))
                    await operator.on("suspend", "domain", "a.test")
                    await operator.on("reroute", "domain", "b.test", to="hub")
                    process.kill()
                    await trio.to_thread.run_sync(process.wait)
                    before = len(world.recorder.rcpts())
                    process = await started(tmp_path)
                    await until(flowing(hub, "@b.test", 100))
                    assert len(world.recorder.rcpts()) == before, "nothing for a.test, nothing by b.test's MX"
                    standing = (await operator.ask("stops"))["stops"]
                    assert {(one["kind"], one["value"]) for one in standing} == {
                        ("suspend", "a.test"),
                        ("reroute", "b.test"),
                    }
                    await operator.on("resume", "domain", "a.test")
                    await operator.on("resume", "domain", "b.test")
                    relayed = len(hub.rcpts())
                    everybody = set(stopped + moved)
                    await until(lambda: (world.recorder.took() + hub.took()).keys() == everybody)
                    assert len(world.recorder.rcpts("@b.test")) > 100
                    assert len(hub.rcpts()) < relayed + 100
                    assert not hub.rcpts("@a.test")
                    # What was on the wire at the kill is tried again: nothing else is doubled.
                    took = world.recorder.took() + hub.took()
            finally:
                process.terminate()
                await trio.to_thread.run_sync(process.wait)
    assert sum(took.values()) - len(took) <= 4 * 8


def flowing(recorder: Recorder, domain: str, count: int = 20) -> Callable[[], bool]:
    return lambda: len(recorder.rcpts(domain)) > count
