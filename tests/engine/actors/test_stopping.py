"""An operator's word on mail is kept, felt and noted, or refused with what would make sense."""

from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from engine.actors.messages import StopsChanged
from engine.actors.operating import Refused
from engine.actors.requests import Request
from engine.actors.stopping import DRAIN_SECONDS, Stopping, acts
from engine.actors.stops import StopKind, Stops
from engine.model.egress import Source
from engine.mta.policy.egress import Egress
from tests.fakes.engine_house import SOURCE, Desk, accepted, host_route, letter, memory_parts

BY: dict[str, Any] = {"reason": "we agreed so", "author": "ann"}
SEVEN: dict[str, Any] = {"subject": "campaign", "subject_value": "7"}
X: dict[str, Any] = {"subject": "domain", "subject_value": "x.test"}


class Office:
    def __init__(self) -> None:
        self.parts = memory_parts()
        self.parts.egress = Egress((Source("out", "mail.letter.example"),), {"special": {"out": 1}})
        self.desk = Desk()
        self._acts = acts(self.parts, self.desk.peer)

    async def open(self) -> "Office":
        await accepted(self.parts, ["a@x.test"], letter(7))
        return self

    async def ask(self, command: str, **facts: Any) -> Any:
        facts = BY | facts
        return await self._acts[command](msgspec.convert({"command": command} | facts, Request))

    def noted(self) -> list[str]:
        return [f"{each.change.knob}: {each.change.reason}" for each in self.parts.changes]


async def test_a_suspension_is_kept_told_and_noted(autojump_clock: MockClock) -> None:
    office = await Office().open()
    done = await office.ask("suspend", seconds=7_200.0, **SEVEN)
    assert done == {"done": "campaign 7 is suspended for 2 h", "warnings": []}
    (order,) = Stops(office.parts.bus).all()
    assert (order.kind, order.until) == (StopKind.SUSPEND, office.parts.clock.now() + 7_200)
    assert office.desk.take("scheduler") == [StopsChanged()]
    assert office.parts.stops.version == 1
    (noted,) = office.parts.changes
    assert (noted.change.author, noted.change.campaign) == ("ann", 7)
    assert office.noted() == ["suspend: campaign 7 suspended for 2 h: we agreed so"]
    office.parts.queues.add(7, "x.test", 1)
    assert (await office.ask("suspend", **X))["done"] == "domain x.test is suspended until it is resumed"


async def test_a_resume_ends_all_that_was_said(autojump_clock: MockClock) -> None:
    office = await Office().open()
    await office.ask("suspend", **SEVEN)
    await office.ask("cancel", **SEVEN)
    done = await office.ask("resume", **SEVEN)
    assert done["done"] == "campaign 7: suspend and cancel ended"
    assert not office.parts.stops
    assert len(office.desk.take("scheduler")) == 3
    with pytest.raises(Refused, match="nothing is said of campaign 7; nothing stands"):
        await office.ask("resume", **SEVEN)


async def test_what_the_engine_no_longer_knows_is_resumed_too(autojump_clock: MockClock) -> None:
    office = await Office().open()
    await office.ask("suspend", **SEVEN)
    office.parts.spool.disk.contents.clear()  # type: ignore[attr-defined]
    with pytest.raises(Refused, match=r"no campaign is called '8'; .*; what stands: suspend campaign 7"):
        await office.ask("resume", subject="campaign", subject_value="8")
    assert "ended" in (await office.ask("resume", **SEVEN))["done"]


async def test_a_cancel_is_about_what_is_there_and_of_a_campaign_about_all(
    autojump_clock: MockClock,
) -> None:
    office = await Office().open()
    done = await office.ask("cancel", **SEVEN)
    assert done["done"].endswith("what waits is being ended, and what comes later, too")
    done = await office.ask("cancel", **X)
    assert done["done"] == "domain x.test is cancelled: what waits is being ended"
    assert done["warnings"] == ["no mail is on its way to x.test at the moment"]
    of_all, of_domain = office.parts.stops.of(StopKind.CANCEL)
    assert (of_all.before_id, of_domain.before_id) == (0, office.parts.spool.next_id)


async def test_a_retry_says_which_mail_and_what_of_it(autojump_clock: MockClock) -> None:
    office = await Office().open()
    done = await office.ask("retry", asked={"states": ["ambiguous"], "assume": "failed"}, **SEVEN)
    assert done["done"] == "campaign 7: what is ambiguous is taken for failed"
    (order,) = office.parts.stops.all()
    assert (order.states, order.assume, order.before_id) == (("ambiguous",), "failed", 2)
    assert office.desk.take("scheduler") == [], "nothing is stopped"
    done = await office.ask("retry", **SEVEN)
    assert done == {"done": "campaign 7: what is deferred is tried again", "warnings": []}


async def test_a_retry_warns_of_paths_that_rest(autojump_clock: MockClock) -> None:
    office, now = await Office().open(), trio.current_time()
    for number in range(5):
        site = f"mx{number}.test"
        memory = office.parts.path(f"out>{site}", host_route("192.0.2.1", 25, site), SOURCE, "", now)
        memory.suspend(now + 300 * bool(number), "no connection succeeded")
    (warning,) = (await office.ask("retry", **SEVEN))["warnings"]
    assert warning.startswith(
        "mail that goes over out>mx1.test, out>mx2.test, out>mx3.test and 1 more waits on"
    )
    assumed = {"states": ["ambiguous"], "assume": "failed"}
    assert (await office.ask("retry", asked=assumed, **SEVEN))["warnings"] == []


async def test_a_reroute_names_a_pool_or_relay(autojump_clock: MockClock) -> None:
    office = await Office().open()
    done = await office.ask("reroute", seconds=60.0, asked={"to": "special"}, **SEVEN)
    assert done["done"] == "campaign 7 goes over special for 1 min"
    assert office.parts.stops.reroute(7, "default", "x.test", office.parts.clock.now()) == "special"


@pytest.mark.parametrize(
    ("command", "facts", "error"),
    [
        ("suspend", {"reason": " "} | SEVEN, "say why"),
        ("suspend", {"seconds": 0.0} | SEVEN, "longer than 0 s"),
        ("suspend", {"seconds": float("inf")} | SEVEN, "longer than 0 s"),
        ("suspend", {"subject": "campaign", "subject_value": "8"}, "no campaign is called '8'"),
        ("suspend", {}, "mail is named by"),
        ("retry", {"asked": {"states": ["delivered"]}} | SEVEN, "'delivered' cannot be tried again"),
        ("retry", {"asked": {"states": "deferred"}} | SEVEN, "cannot be tried again"),
        ("retry", {"asked": {"states": [["x"]]}} | SEVEN, "cannot be tried again"),
        ("retry", {"asked": {"states": ["ambiguous"], "assume": "maybe"}} | SEVEN, "cannot be assumed"),
        ("retry", {"asked": {"assume": "failed"}} | SEVEN, "cancel it"),
        ("reroute", {"asked": {"to": "specail"}} | SEVEN, "'specail'; there are: special"),
        ("reroute", SEVEN, "no pool or relay is called ''"),
        ("reroute", {"subject": "source", "subject_value": "out"}, "a source is a place"),
        ("resume", {"asked": {"drain": True}}, "not being drained"),
        ("drain", {"seconds": -1.0}, "longer than 0 s"),
        ("drain", {"reason": ""}, "say why"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(
    command: str, facts: dict[str, Any], error: str, autojump_clock: MockClock
) -> None:
    office = await Office().open()
    with pytest.raises(Refused, match=error):
        await office.ask(command, **facts)
    assert (office.parts.stops.all(), office.noted()) == ([], [])


async def test_what_stands_is_listed(autojump_clock: MockClock) -> None:
    office = await Office().open()
    await office.ask("suspend", **SEVEN)
    listed = await office.ask("stops")
    (one,) = listed["stops"]
    kept = ("number", "kind", "scope", "value", "reason", "author", "until")
    assert [one[key] for key in kept] == [1, "suspend", "campaign", "7", "we agreed so", "ann", None]
    assert (listed["hidden"], listed["draining"]) == (0, None)


async def test_a_drain_tells_what_is_left_and_may_be_ended(autojump_clock: MockClock) -> None:
    office = await Office().open()
    office.parts.queues.add(7, "x.test", 1)
    told = await office.ask("drain")
    assert (told["left"], told["draining"], told["seconds_left"]) == (1, True, DRAIN_SECONDS)
    await trio.sleep(10)
    assert (await office.ask("drain-status"))["seconds_left"] == DRAIN_SECONDS - 10
    assert (await office.ask("stops"))["draining"]["author"] == "ann"
    await office.ask("resume", asked={"drain": True})
    assert (await office.ask("drain-status"))["draining"] is False
    await office.ask("drain")
    office.parts.drained.set()
    with pytest.raises(Refused, match="is stopping"):
        await office.ask("resume", asked={"drain": True})


async def test_it_says_what_stands(autojump_clock: MockClock) -> None:
    office = Office()
    assert repr(Stopping(office.parts, office.desk.peer)) == "<Stopping <Stops: none>>"
