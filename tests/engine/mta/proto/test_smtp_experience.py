"""What a refusal teaches: a table of who said what to which form."""

import pytest

from engine.model.reply import Reply, Verb
from engine.mta.proto.smtp_capabilities import Capabilities
from engine.mta.proto.smtp_experience import TRIAL_WINDOW, Experience
from engine.mta.proto.smtp_options import ClientOptions, Knowledge, PipeliningVerdict
from tests.fakes.smtp_scripts import KNOWN, OK3, PIPELINING, Line, content, envelope, play, ready, told

U, W, R = Knowledge.UNTRIED, Knowledge.WORKS, Knowledge.REFUSED
ALL = Capabilities(pipelining=True, chunking=True)


def experience(verdict: PipeliningVerdict, **options: object) -> Experience:
    return Experience(ClientOptions(ehlo_name="me", verdict=verdict, **options), ALL)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verb", "text", "form", "about_form", "learned"),
    [
        # crossed flights of DATA
        (Verb.MAIL, "503 pipelined after end of DATA", "crossed", True, (W, R, W, W)),
        (Verb.MAIL, "500 what", "crossed", True, (W, R, W, W)),
        (Verb.DATA, "502 what", "crossed", True, (W, R, W, W)),
        (Verb.MAIL, "554 SMTP synchronization error", "crossed", True, (W, R, W, W)),
        (Verb.MAIL, "550 5.7.1 no", "crossed", False, (W, W, W, W)),
        (Verb.RCPT, "450 4.2.1 later", "crossed", False, (W, W, W, W)),
        # flights that cross nothing
        (Verb.DATA, "503 5.5.0 Improper use of SMTP command pipelining", "flight", True, (R, W, W, W)),
        (Verb.RCPT, "503 sequence", "flight", True, (R, W, W, W)),
        (Verb.MAIL, "503 AUTH first", "flight", False, (W, W, W, W)),
        (Verb.MAIL, "554 synchronisation error", "flight", True, (R, W, W, W)),
        (Verb.RCPT, "550 5.1.1 who", "flight", False, (W, W, W, W)),
        # units
        (Verb.MAIL, "503 nested MAIL", "crossed unit", True, (W, W, W, R)),
        (Verb.BDAT, "502 what", "crossed unit", True, (W, W, W, R)),
        (Verb.BDAT, "502 what", "unit", True, (W, W, R, W)),
        (Verb.BDAT, "503 sequence", "unit", True, (R, W, W, W)),
        (Verb.BDAT, "554 5.7.1 spam", "unit", False, (W, W, W, W)),
        # one command at a time: nothing plainer is left but DATA
        (Verb.DATA, "503 pipelining", "step", False, (W, W, W, W)),
        (Verb.BDAT, "500 what", "step", True, (W, W, R, W)),
    ],
)
def test_a_refusal_is_about_the_message_or_about_the_form(
    verb: Verb, text: str, form: str, about_form: bool, learned: tuple[Knowledge, ...]
) -> None:
    known = experience(PipeliningVerdict(inside=W, across=W, chunking=W, windows=W))
    found = known.is_about_form(
        verb,
        Reply(int(text[:3]), None, (text[4:],)),
        flight=form != "step",
        crossed="crossed" in form,
        unit="unit" in form,
    )
    assert found is about_form
    assert (known.inside, known.across, known.chunking, known.windows) == learned


@pytest.mark.parametrize(
    ("verdict", "options", "crosses", "window"),
    [
        (PipeliningVerdict(), {}, False, 1),
        (PipeliningVerdict(served=3), {}, True, TRIAL_WINDOW),
        (PipeliningVerdict(served=3), {"served_before_across": 4}, False, 1),
        (PipeliningVerdict(across=W, windows=W), {"window_messages": 9}, True, 9),
        (PipeliningVerdict(across=R, windows=R, served=9), {}, False, 1),
        (PipeliningVerdict(across=W, windows=W), {"across": False}, False, 1),
        (PipeliningVerdict(inside=R, across=W, windows=W), {}, False, 1),
        (PipeliningVerdict(across=W, windows=W), {"pipelining": False}, False, 1),
    ],
)
def test_overlapping_forms_need_experience_and_our_consent(
    verdict: PipeliningVerdict, options: dict[str, object], crosses: bool, window: int
) -> None:
    known = experience(verdict, **options)
    assert (known.may_cross(), known.window()) == (crosses, window)


def test_what_was_refused_is_not_taken_back_by_a_flight_that_came_out_right() -> None:
    known = experience(PipeliningVerdict(inside=R, across=R, windows=R))
    known.flight_came_back(crossed=True, unit=False)
    known.flight_came_back(crossed=True, unit=True)
    assert (known.inside, known.across, known.windows) == (R, R, R)


def test_what_the_peer_does_not_announce_or_we_forbid_teaches_nothing() -> None:
    start = PipeliningVerdict(inside=W, chunking=W)
    options = ClientOptions(ehlo_name="me", verdict=start)
    assert Experience(options, Capabilities()).verdict(Capabilities()) == start
    options = ClientOptions(ehlo_name="me", verdict=start, pipelining=False, chunking=False)
    assert Experience(options, ALL).verdict(ALL) == start


def test_421_is_held_against_a_form_on_trial_or_one_that_it_names() -> None:
    busy, named = Reply(421, None, ("busy",)), Reply(421, None, ("improper pipelining",))
    for reply, across, expected in [(busy, U, (W, R)), (busy, W, (W, W)), (named, W, (W, R))]:
        known = experience(PipeliningVerdict(inside=W, across=across))
        known.service_closed(reply, flight=True, crossed=True, unit=False)
        assert (known.inside, known.across) == expected
    known = experience(PipeliningVerdict(inside=W))
    known.service_closed(busy, flight=True, crossed=False, unit=False)
    assert not known.stepping
    known.service_closed(named, flight=True, crossed=False, unit=False)
    assert known.stepping


@pytest.mark.parametrize(
    ("verb", "reply", "served", "full"),
    [
        (
            Verb.MAIL,
            Reply(452, (4, 5, 3), ("Too many recipients: Too many messages sent",)),
            1,
            True,
        ),  # OpenSMTPD
        (Verb.MAIL, Reply(451, None, ("too many messages in this session",)), 1, True),
        (Verb.MAIL, Reply(452, (4, 5, 3), ("Too many messages sent",)), 0, False),  # the next fares no better
        (Verb.MAIL, Reply(451, (4, 7, 1), ("too many messages from you",)), 1, False),
        (Verb.MAIL, Reply(552, (5, 5, 3), ("too many",)), 1, False),
        (Verb.RCPT, Reply(452, (4, 5, 3), ("too many recipients",)), 1, False),
    ],
)
def test_a_full_session_is_told_from_other_refusals(
    verb: Verb, reply: Reply, served: int, full: bool
) -> None:
    known = experience(PipeliningVerdict(served=100))
    known.served += served
    assert known.is_session_full(verb, reply) is full


def test_what_a_full_session_refuses_is_for_the_next_connection() -> None:
    client = ready(PIPELINING, KNOWN)
    full = b"250 kept\r\n452 4.5.3 Too many messages sent\r\n503 rcpt\r\n503 data\r\n"
    script: list[Line] = [
        (envelope(0), OK3),
        (content(0) + envelope(1), full),
        (b"QUIT\r\n", b"221 bye\r\n"),
    ]
    assert told(play(client, 3, script)) == [
        "0 DELIVERED content 250",
        "2 UNSENT mail stopped",
        "1 UNSENT mail stopped",
        "closed clean",
    ]
