"""One SMTP session over a real socket: every envelope has one end, whatever the receiver does."""

from collections import Counter
from typing import Any

import pytest
import trio

from bench.world.manners import Manners, Moment, Starttls, Trouble, hang_up
from engine.actors import connection as connection_actor
from engine.actors.messages import BELL, ConnectionReady, Settle, Sign, Want
from engine.config.tables import AmbiguousPolicy
from engine.config.units import Duration
from engine.model.content import DkimIdentity
from engine.model.disposition import DelayReason, Outcome
from engine.model.reply import TransportFailure, Verb
from tests.fakes.engine_house import DOMAIN, letter, numbered, signed, until
from tests.fakes.smtp_line import NAME, Line, open_line

pytestmark = pytest.mark.slow  # real sockets and processes on the real clock: seconds

D, R = Outcome.DELIVERED, Outcome.RETURNED


def trouble(kind: str, moment: Moment, reply: str, **facts: Any) -> Trouble:
    """For recipients whose local part begins with `kind`."""
    return Trouble(kind, moment, 0.0, reply, only=kind, **facts)


def outcomes(line: Line) -> Counter[str]:
    return Counter(item.outcome.value for item in line.told)


async def go_idle(line: Line) -> None:
    """Let the connection end for want of work."""
    await until(lambda: NAME not in line.parts.connections)


# --- what receivers do ----------------------------------------------------------------------------------


async def test_mail_is_delivered_and_told() -> None:
    async with open_line(idle_timeout=Duration(0.1)) as line:
        ids = await line.send(numbered(20))
        told = await line.settled(20)
        assert sorted(told) == ids
        assert sorted(line.recipients) == sorted(numbered(20))
        item = told[ids[0]]
        assert (item.outcome, item.verb, item.site, item.source) == (D, Verb.CONTENT, "mx.plain.test", "out")
        assert (item.mx_host, item.tls) == ("mx.plain.test", "")
        assert item.reply.startswith("250")
        assert 0 < item.seconds < 5
        end = await line.end()
        assert (end.reached, end.served, end.trouble, end.crashed) == (True, 20, None, False)
        assert line.parts.spool.open_leases() == 0
        assert line.parts.spool.counts(7).delivered == 20


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("chunking", [True, False])
async def test_each_recipient_gets_the_end_that_the_receiver_gave(across: bool, chunking: bool) -> None:
    manners = Manners(
        pipelining_across=across,
        chunking=chunking,
        troubles=(
            trouble("bad", Moment.RCPT, "550 5.1.1 No such user"),
            trouble("full", Moment.RCPT, "452 4.2.2 Mailbox full"),
            trouble("grey", Moment.RCPT, "451 4.7.1 Greylisted"),
            trouble("spam", Moment.CONTENT, "554 5.7.1 Refused"),
        ),
    )
    people = [f"{kind}.{n}@plain.test" for n in range(6) for kind in ("good", "bad", "full", "grey", "spam")]
    async with open_line(manners) as line:
        ids = await line.send(people)
        told = await line.settled(len(people))
        for spool_id, recipient in zip(ids, people, strict=True):
            kind = recipient.partition(".")[0]
            expected = {"good": D, "bad": Outcome.BOUNCED, "spam": Outcome.BOUNCED}
            assert told[spool_id].outcome is expected.get(kind, Outcome.DEFERRED), kind
        assert sorted(line.recipients) == sorted(name for name in people if name.startswith("good"))


async def test_a_421_closes_the_connection_and_keeps_what_stands_behind_it() -> None:
    manners = Manners(troubles=(trouble("bye", Moment.RCPT, "421 4.3.2 Shutting down", closes=True),))
    people = [*numbered(3), "bye@plain.test", *numbered(4, "plain.test")]
    people[4:] = [f"later.{n}@plain.test" for n in range(4)]
    async with open_line(manners) as line:
        ids = await line.send(people)
        told = await line.settled(8)
        assert [told[spool_id].outcome for spool_id in ids] == [D] * 3 + [Outcome.DEFERRED] + [R] * 4
        assert told[ids[3]].category == "remote-system-error"
        end = await line.end()
        assert end.served == 4 or end.served == 3
        assert str(end.trouble).startswith("421")


async def test_a_connection_lost_behind_the_final_dot_is_ambiguous() -> None:
    manners = Manners(troubles=(hang_up(Moment.REPLY, 1.0, times=1, accepts=True),), pipelining=False)
    async with open_line(manners) as line:
        (first, *others) = await line.send(numbered(3))
        told = await line.settled(3)
        assert told[first].outcome is Outcome.AMBIGUOUS
        assert told[first].due > line.parts.clock.now()
        assert {told[other].outcome for other in others} == {R}
        assert len(line.recipients) == 1
        assert line.parts.spool.counts(7).was_ambiguous == 1
        end = await line.end()
        assert isinstance(end.trouble, TransportFailure)


async def test_an_ambiguous_envelope_is_held_by_that_policy() -> None:
    manners = Manners(troubles=(hang_up(Moment.REPLY, 1.0),))
    async with open_line(manners, engine={"ambiguous": AmbiguousPolicy.HOLD}) as line:
        await line.send(numbered(1))
        (told,) = (await line.settled(1)).values()
        assert told.reason is DelayReason.AMBIGUOUS_HELD
        assert line.parts.spool.counts(7).ambiguous == 1


async def test_a_peer_that_hangs_up_before_the_content_costs_one_attempt_and_returns_the_rest() -> None:
    manners = Manners(troubles=(hang_up(Moment.RCPT, 1.0),), pipelining=False)
    async with open_line(manners) as line:
        (first, *others) = await line.send(numbered(4))
        told = await line.settled(4)
        assert told[first].outcome is Outcome.DEFERRED
        assert {told[other].outcome for other in others} == {R}
        assert (await line.end()).served == 0


async def test_a_refused_connection_is_the_trouble_and_harms_no_envelope() -> None:
    async with open_line(Manners(banner="554 5.7.1 go away")) as line:
        await line.send(numbered(2))
        end = await line.end()
        assert (end.reached, str(end.trouble)) == (False, "554 5.7.1 go away")
        assert outcomes(line) == {"returned": 2}


# --- limits and ends ------------------------------------------------------------------------------------


async def test_no_more_messages_than_the_limit_go_over_one_connection() -> None:
    async with open_line(messages_per_connection=3) as line:
        await line.send(numbered(8))
        end = await line.end()
        assert end.served == 3
        assert outcomes(line) == {"delivered": 3, "returned": 5}
        assert len(line.recipients) == 3
        assert all(want.count <= 3 for want in line.desk.take("site", Want))


async def test_it_asks_its_site_for_more_and_again_when_nothing_came_of_it() -> None:
    async with open_line() as line:
        await until(lambda: bool(line.desk.mailbox("site")))
        ready, want = line.desk.take("site")
        assert (ready, want.connection) == (ConnectionReady(NAME), NAME)
        line.holder.answers += 1  # all that it asked for was gone
        assert line.holder.ref is not None
        line.holder.ref.try_tell(BELL)
        await until(lambda: bool(line.desk.mailbox("site")))
        assert [type(message) for message in line.desk.take("site")] == [Want]


async def test_an_idle_connection_says_goodbye_and_that_is_no_trouble() -> None:
    async with open_line(idle_timeout=Duration(0.2)) as line:
        end = await line.end()
        assert (end.reached, end.served, end.trouble, end.crashed) == (True, 0, None, False)
        assert line.world.statistics()["totals"].get("quit", 1)


async def test_a_stop_finishes_what_is_on_the_wire_and_returns_the_rest() -> None:
    async with open_line(Manners(tarpit={"content": 0.2}, pipelining=False)) as line:
        await line.send(numbered(10))
        await line.settled(1)
        line.parts.connections.ask_child_to_stop(NAME)
        end = await line.end()
        counts = outcomes(line)
        assert counts["delivered"] + counts["returned"] == 10
        assert counts["delivered"] == len(line.recipients) == end.served < 10
        assert {item.reason for item in line.told if item.outcome is R} == {DelayReason.STOPPING}
        assert line.parts.spool.open_leases() == 0


async def test_a_stop_before_the_banner_does_not_wait_for_it() -> None:
    async with open_line(Manners(banner=None)) as line:
        await line.send(numbered(2))
        await trio.sleep(0.1)
        began = trio.current_time()
        await line.parts.connections.stop_child(NAME)
        assert trio.current_time() - began < 2
        await line.end()
        assert outcomes(line) == {"returned": 2}


async def test_a_firm_stop_makes_open_final_dots_ambiguous(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_actor, "SHUTDOWN_SECONDS", 0.3)
    async with open_line(Manners(tarpit={"content": 30.0}, pipelining=False)) as line:
        await line.send(numbered(3))
        await until(lambda: bool(line.holder.wire))
        await trio.sleep(0.1)
        await line.parts.connections.stop_child(NAME)
        await line.end()
        assert outcomes(line) == {"ambiguous": 1, "returned": 2}


async def test_a_crash_loses_nothing_that_was_answered_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_actor, "SETTLE_SECONDS", 60.0)
    monkeypatch.setattr(connection_actor, "SETTLE_COUNT", 1_000)
    async with open_line(Manners(tarpit={"content": 0.05}, pipelining=False)) as line:
        ids = await line.send(numbered(20))
        await until(lambda: len(line.recipients) >= 5)
        await line.collect()
        told = len(line.told)
        await until(lambda: len(line.recipients) >= 9)
        assert not line.desk.mailbox("spooler"), f"it keeps what came after the first {told} to itself"
        line.parts.connections.kill(NAME)
        end = await line.end()
        assert end.crashed
        assert sorted(item.spool_id for item in line.told) == ids
        counts = outcomes(line)
        assert counts["delivered"] >= 8
        assert counts["ambiguous"] <= 1
        assert len(line.recipients) <= counts["delivered"] + counts["ambiguous"]
        assert line.parts.spool.open_leases() == 0


async def test_a_full_spooler_makes_it_wait_and_loses_nothing() -> None:
    async with open_line() as line:
        full = line.desk.mailbox("spooler")
        while len(full) < full.capacity:
            full.put_nowait("somebody else's")
        await line.send(numbered(4))
        await until(lambda: len(line.parts.unsettled) == 1)
        await trio.sleep(0.1)
        (message,) = line.parts.unsettled.values()
        line.desk.take("spooler")
        await until(lambda: bool(full))
        assert line.desk.take("spooler", Settle)[0] is message


# --- what is not sent -----------------------------------------------------------------------------------


async def test_bulk_without_one_click_goes_to_private_receivers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_line() as line:
        await line.send(["a@plain.test"], letter(8, unsubscribe_host=""))
        assert (await line.settled(1)).popitem()[1].outcome is D
    monkeypatch.setattr(connection_actor, "is_public", lambda address: True)
    async with open_line() as line:
        refused = await line.send(["a@plain.test"], letter(8, unsubscribe_host=""))
        allowed = await line.send(["b@plain.test"], letter(9))
        told = await line.settled(2)
        assert told[refused[0]].outcome is Outcome.CANCELLED
        assert "one-click" in told[refused[0]].reply
        assert told[allowed[0]].outcome is D
        assert line.recipients == ["b@plain.test"]


async def test_what_cannot_be_rendered_or_has_expired_ends_here() -> None:
    async with open_line() as line:
        looping = letter(
            8, text="{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}"
        )
        ids = await line.send(["a@plain.test"], looping)
        lease = (await line.settled(1))[ids[0]]
        assert lease.outcome is Outcome.RENDER_FAILED
        ids = await line.send(["b@plain.test"], expires_at=line.parts.clock.now() - 1)
        assert (await line.settled(2))[ids[0]].outcome is Outcome.EXPIRED
        assert not line.recipients


async def test_a_connection_for_one_message_asks_again_when_that_one_has_expired() -> None:
    async with open_line(messages_per_connection=1) as line:
        await until(lambda: bool(line.desk.take("site", Want)))
        await line.send(["a@plain.test"], expires_at=line.parts.clock.now() - 1)
        await line.settled(1)
        await until(lambda: bool(line.desk.take("site", Want)))
        await line.send(["b@plain.test"], letter(9))
        await line.settled(2)
        assert line.recipients == ["b@plain.test"]


# --- signatures and TLS -----------------------------------------------------------------------------------


async def test_signatures_are_waited_for_and_go_in() -> None:
    two = letter(8, dkim=(DkimIdentity(DOMAIN, "a", "a"), DkimIdentity(DOMAIN, "b", "b")))
    async with open_line() as line:
        await line.send(numbered(6), signed(9))
        await line.send(["two@plain.test"], two)
        await trio.sleep(0.1)
        assert not line.recipients, "nothing goes out unsigned"
        signed_count = 0
        while len(line.told) < 7:
            signed_count += await line.sign_all()
            await line.collect()
            await trio.sleep(0.01)
        assert signed_count == 7
        assert outcomes(line) == {"delivered": 7}


async def test_a_stop_while_it_waits_for_signatures_returns_everything() -> None:
    async with open_line() as line:
        await line.send(numbered(9), signed(9))
        await until(lambda: bool(line.desk.mailbox("signers")))
        assert line.desk.take("signers", Sign)
        line.parts.connections.ask_child_to_stop(NAME)
        await line.end()
        assert outcomes(line) == {"returned": 9}


@pytest.mark.parametrize("starttls", [Starttls.OFFERED, Starttls.REQUIRED])
async def test_tls_is_used_where_it_is_offered(starttls: Starttls) -> None:
    async with open_line(Manners(starttls=starttls)) as line:
        await line.send(numbered(3))
        told = await line.settled(3)
        assert {item.outcome for item in told.values()} == {D}
        assert all(item.tls.startswith("TLSv1.") for item in told.values())
        assert all(message.tls for message in line.received)


@pytest.mark.parametrize("starttls", [Starttls.GARBLED, Starttls.UNAVAILABLE])
async def test_broken_opportunistic_tls_falls_back_to_clear_and_is_remembered(starttls: Starttls) -> None:
    async with open_line(Manners(starttls=starttls)) as line:
        await line.send(numbered(3))
        told = await line.settled(3)
        assert {(item.outcome, item.tls) for item in told.values()} == {(D, "")}
        if starttls is Starttls.GARBLED:
            assert line.memory.tls_broken_until["mx.plain.test"] > trio.current_time() + 1_000


async def test_what_a_connection_learnt_helps_the_next_one() -> None:
    async with open_line(Manners(pipelining_across=False)) as line:
        await line.send(numbered(30))
        await line.settled(30)
        assert line.memory.verdict.served > 0
        assert outcomes(line) == {"delivered": 30}
