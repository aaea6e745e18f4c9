"""What answers do to a path, its provider and whoever sent the mail: each reply hits what it names alone."""

import pytest
import trio
from trio.testing import MockClock

from engine.actors.feedback import Feedback
from engine.actors.memory import PathMemory
from engine.actors.parts import Parts
from engine.model.category import Category
from engine.model.disposition import DelayReason, Outcome
from engine.model.event import Adapted
from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from engine.mta.policy.breaker import OPEN_SECONDS, BreakerState
from engine.mta.policy.classify import Verdict
from engine.mta.policy.governor_rate import START_PER_SECOND
from engine.mta.policy.governor_window import FIRST_CONNECTIONS
from tests.fakes.engine_house import CAMPAIGN, DOMAIN, SOURCE, host_route, letter, memory_parts

OTHER = 8  # a campaign that nobody complains of
SLOWER = Reply(451, (4, 7, 1), ("rate limit exceeded, try again in 90 seconds",))
TOO_MANY = Reply(421, None, ("too many connections",))
LISTED = Reply(550, (5, 7, 1), ("rejected: 192.0.2.1 is listed at zen.spamhaus.org",))
SPAM = Reply(550, (5, 7, 1), ("message identified as spam",))
UNSIGNED = Reply(550, (5, 7, 26), ("unauthenticated email is not accepted due to the DMARC policy",))
NO_USER = Reply(550, (5, 1, 1), ("no such user",))
GREY = Reply(451, None, ("greylisted",))
FULL_SESSION = Reply(452, (4, 5, 3), ("too many recipients",))
BUSY_PERSON = Reply(450, (4, 2, 1), ("the user you are trying to contact is receiving mail too quickly",))
GONE = TransportFailure(FailureKind.CLOSED, Verb.BANNER, "gone")


class House:
    """One path's memory and what reports to it."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.memory = self.path("mx.test")
        self.feedback = Feedback(parts, self.memory)

    def path(self, site: str) -> PathMemory:
        route = host_route("127.0.0.1", 25, site)
        return self.parts.path(f"out>{site}", route, SOURCE, "", trio.current_time())

    def refuse(
        self, reply: Reply, verb: Verb = Verb.RCPT, campaign: int = CAMPAIGN, count: int = 1
    ) -> Verdict:
        for _ in range(count):
            verdict = self.feedback.refused(self.parts.judge.reply(verb, reply), str(reply), campaign)
        return verdict

    def deliver(self, count: int, campaign: int = CAMPAIGN) -> None:
        self.feedback.delivered(trio.current_time(), campaign, count, 0.1 * count)

    def notes(self) -> list[Adapted]:
        found = [note for note in self.parts.notes if isinstance(note, Adapted)]
        self.parts.notes.clear()
        return found

    def held(self, campaign: int, domain: str = DOMAIN, provider: str = "mx.test") -> str:
        hold = self.parts.holds.of(provider, "", campaign, domain, trio.current_time())
        return "" if hold is None else f"{hold.subject.value} {hold.value}"

    @property
    def untouched(self) -> bool:
        governor = self.memory.governor
        return (
            not self.memory.rest(trio.current_time())[0]
            and governor.connections == FIRST_CONNECTIONS
            and governor.rate_per_second == START_PER_SECOND
            and not self.parts.holds
        )


@pytest.fixture
async def house(autojump_clock: MockClock) -> House:
    parts = memory_parts()
    for campaign, domain in ((CAMPAIGN, DOMAIN), (OTHER, "other.example")):
        await parts.spool.put_content(letter(campaign, return_path_domain=domain), 0.0)
    return House(parts)


# --- the rate and the window -----------------------------------------------------------------------------


async def test_a_refusal_for_rate_slows_the_path_for_as_long_as_it_says_and_is_noted(
    house: House, autojump_clock: MockClock
) -> None:
    house.deliver(100)
    verdict = house.refuse(SLOWER)
    assert (verdict.outcome, verdict.reason) == (Outcome.DEFERRED, DelayReason.RATE_LIMITED)
    now = trio.current_time()
    until, why = house.memory.rest(now)
    assert (round(until - now), why) == (90, "the receiver asked for a pause")
    (note,) = house.notes()
    assert (note.path, note.provider, note.knob, note.rule) == (
        "out>mx.test",
        "mx.test",
        "rate",
        verdict.rule,
    )
    assert note.reason.startswith("451 4.7.1 rate limit exceeded")
    assert note.after is not None
    assert note.after < START_PER_SECOND
    assert house.memory.throttle.per_second == pytest.approx(note.after), "the throttle keeps to it"


async def test_the_refusals_of_one_flight_are_one_event(house: House, autojump_clock: MockClock) -> None:
    house.refuse(SLOWER, count=20)
    assert len(house.notes()) == 1


async def test_a_message_accepted_after_the_pause_ends_the_event(
    house: House, autojump_clock: MockClock
) -> None:
    house.deliver(100)
    house.refuse(SLOWER)
    await trio.sleep(91)
    assert house.memory.governor.state()["rate_phase"] == "refused, asks again"
    house.deliver(1)
    assert house.memory.governor.state()["rate_phase"] == "climbs to its estimate"


async def test_a_dial_refused_while_others_stand_narrows_the_window_and_not_the_rate(
    house: House, autojump_clock: MockClock
) -> None:
    verdict = house.feedback.not_served(TOO_MANY, Verb.BANNER, 1, "mx.test")
    assert verdict.category is Category.RATE_LIMITED
    governor = house.memory.governor
    assert governor.connections == 1
    assert governor.rate_per_second == START_PER_SECOND
    (note,) = house.notes()
    assert (note.knob, note.before, note.after, note.rule) == ("connections", 2.0, 1.0, verdict.rule)


async def test_a_refusal_of_the_only_dial_makes_the_path_pause(
    house: House, autojump_clock: MockClock
) -> None:
    house.feedback.not_served(TOO_MANY, Verb.BANNER, 0, "mx.test")
    assert house.memory.rest(trio.current_time())[0]


async def test_a_host_that_is_down_says_nothing_about_our_rate(
    house: House, autojump_clock: MockClock
) -> None:
    house.feedback.not_served(GONE, Verb.BANNER, 0, "mx.test")
    assert house.untouched
    assert not house.notes()


async def test_sessions_that_break_off_in_numbers_narrow_the_window(
    house: House, autojump_clock: MockClock
) -> None:
    house.feedback.closed(GONE, 2)
    assert house.untouched, "one is no sign"
    house.feedback.closed(GONE, 2)
    house.feedback.closed(GONE, 2)
    assert house.memory.governor.connections == 1
    (note,) = house.notes()
    assert "3 sessions broke off" in note.reason


# --- whom a complaint names --------------------------------------------------------------------------------


async def test_a_block_of_our_address_rests_every_path_to_that_provider_and_no_other(
    house: House, autojump_clock: MockClock
) -> None:
    verdict = house.refuse(LISTED)
    assert (verdict.outcome, verdict.reason) == (Outcome.DEFERRED, DelayReason.REPUTATION)
    now = trio.current_time()
    until, why = house.memory.rest(now)
    assert until >= now + 600
    assert "zen.spamhaus.org" in why
    assert house.path("elsewhere.test").rest(now) == (0.0, "")
    (rest,) = [note for note in house.notes() if note.knob == "rest"]
    assert rest.after == pytest.approx(until - now)
    assert rest.rule == verdict.rule
    assert not house.held(CAMPAIGN)


async def test_a_block_at_the_banner_rests_the_path_like_one_of_a_message(
    house: House, autojump_clock: MockClock
) -> None:
    banner = Reply(554, (5, 7, 1), ("your IP has a poor reputation",))
    house.feedback.not_served(banner, Verb.BANNER, 1, "mx.test")
    now = trio.current_time()
    assert house.memory.rest(now)[0] >= now + 600


async def test_a_block_that_is_told_many_times_is_noted_once(house: House, autojump_clock: MockClock) -> None:
    house.refuse(LISTED, count=10)
    assert len([note for note in house.notes() if note.knob == "rest"]) == 1


async def test_spam_content_holds_that_campaign_at_that_provider_and_nothing_else(
    house: House, autojump_clock: MockClock
) -> None:
    house.deliver(50)
    house.refuse(SPAM, Verb.CONTENT, count=4)
    assert not house.held(CAMPAIGN), "four may be chance"
    house.refuse(SPAM, Verb.CONTENT)
    assert house.held(CAMPAIGN) == f"campaign {CAMPAIGN}"
    assert not house.held(OTHER)
    assert not house.held(CAMPAIGN, provider="elsewhere.test")
    assert not house.memory.rest(trio.current_time())[0]
    (hold,) = [note for note in house.notes() if note.knob == "hold"]
    assert (hold.campaign, hold.after) == (CAMPAIGN, 3_600.0)
    assert "identified as spam" in hold.reason
    await trio.sleep(3_601)
    assert not house.held(CAMPAIGN)


async def test_a_few_refusals_among_thousands_hold_no_campaign(
    house: House, autojump_clock: MockClock
) -> None:
    house.deliver(5_000)
    house.refuse(SPAM, Verb.CONTENT, count=10)
    assert not house.held(CAMPAIGN)


async def test_failed_authentication_holds_the_sending_domain(
    house: House, autojump_clock: MockClock
) -> None:
    verdict = house.refuse(UNSIGNED, Verb.CONTENT, count=3)
    assert verdict.category is Category.AUTH_FAILED
    assert house.held(CAMPAIGN) == f"domain {DOMAIN}"
    assert not house.held(OTHER, "other.example")
    assert [note.knob for note in house.notes()] == ["hold"]


@pytest.mark.parametrize("reply", [GREY, FULL_SESSION, BUSY_PERSON, NO_USER])
async def test_what_is_about_one_recipient_touches_nobody_else(
    reply: Reply, house: House, autojump_clock: MockClock
) -> None:
    house.deliver(100)
    house.refuse(reply, count=50)
    assert house.untouched
    assert not house.notes()


# --- a provider that is not to be believed ----------------------------------------------------------------


async def test_a_provider_that_refuses_us_is_not_believed_about_addresses(
    house: House, autojump_clock: MockClock
) -> None:
    assert house.refuse(NO_USER).outcome is Outcome.BOUNCED
    house.refuse(UNSIGNED, Verb.CONTENT, count=20)
    (opened,) = [note for note in house.notes() if note.knob == "breaker"]
    assert opened.reason.startswith("open: 20 of the last 21 attempts")
    verdict = house.refuse(NO_USER)
    assert (verdict.outcome, verdict.reason) == (Outcome.DEFERRED, DelayReason.NOT_BELIEVED)
    assert verdict.category is Category.BAD_MAILBOX, "what it said is still told"
    elsewhere = Feedback(house.parts, house.path("elsewhere.test"))
    judged = house.parts.judge.reply(Verb.RCPT, NO_USER)
    assert elsewhere.refused(judged, "", CAMPAIGN).outcome is Outcome.BOUNCED


async def test_a_provider_that_takes_our_mail_again_is_believed_again(
    house: House, autojump_clock: MockClock
) -> None:
    house.refuse(UNSIGNED, Verb.CONTENT, count=20)
    await trio.sleep(OPEN_SECONDS + 1)
    assert house.refuse(NO_USER).outcome is Outcome.DEFERRED, "half open is not closed"
    house.notes()
    house.deliver(30)
    house.feedback.flush(trio.current_time())
    assert house.memory.provider.breaker.state(trio.current_time()) is BreakerState.CLOSED
    (closed,) = [note for note in house.notes() if note.knob == "breaker"]
    assert closed.reason == "closed"
    assert house.refuse(NO_USER).outcome is Outcome.BOUNCED
