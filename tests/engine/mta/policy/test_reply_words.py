"""Texts made comparable: what is kept, what goes, what is read from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.reply_patterns import TEXT_MAX
from engine.model.reply import Verb
from engine.mta.policy.reply_words import RETRY_SECONDS_MAX, RETRY_SECONDS_MIN, normalise, retry_seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("550 5.1.1 <ann@example.com>: User unknown", "user unknown"),
        (
            "550-5.1.1 The account that you tried\n550 5.1.1 does not exist",
            "the account that you tried does not exist",
        ),
        ("User_Unknown, try-again", "user unknown try again"),
        ("Your IP [192.0.2.1] is listed", "your ip is listed"),
        ("from 2001:db8::1 refused", "from ip refused"),
        ("doesn't, isn\u2019t", "doesnt isnt"),
        ("Bo\u00eete pleine, \u00fcberf\u00fcllt", "boite pleine uberfullt"),
        ("E-mail refused (S3150) [TSS04] 0a1b2c3d4e5f 1234567", "email refused s3150 tss04"),
        ("see https://help.example.com/answer?id=7 or mx1.example.com", "see or"),
        ("rejected.Please wait", "rejected please wait"),
        ("wait 300 seconds", "wait 300 seconds"),
        ("come back in 00:05:00", "come back in 300 seconds"),
        ("at most 500 messages", "at most 500 messages"),
        ("one. two", "one | two"),
        ("550 no user 503 need rcpt", "no user | need rcpt"),
        ("", ""),
    ],
)
def test_a_text_becomes_plain_words(text: str, words: str) -> None:
    assert normalise(text).text.strip(" |") == words


def test_known_host_names_and_marks_stay() -> None:
    words = normalise(
        "blocked by zen.list.test, see x9876543210", frozenset({"list.test"}), frozenset({"x9876543210"})
    )
    assert words.text == " blocked by list.test see x9876543210 "


@pytest.mark.parametrize(
    ("text", "code", "enhanced"),
    [
        ("550 5.1.1 no", 550, (5, 1, 1)),
        ("550 no (#5.1.1)", 550, (5, 1, 1)),
        ("no", None, None),
        ("host said: 450 4.2.2 full", 450, (4, 2, 2)),
        ("550 5.0.0 no; 550 5.1.1 unknown", 550, (5, 1, 1)),
        ("550 5.1.1.20 refused", 550, None),
        ("550 version 15.2.1 refused", 550, None),
    ],
)
def test_codes_are_read_from_the_text(
    text: str, code: int | None, enhanced: tuple[int, int, int] | None
) -> None:
    words = normalise(text)
    assert (words.code, words.enhanced) == (code, enhanced)


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ("SMTP error from remote mail server after RCPT TO:<a@x.test>: 550 no", Verb.RCPT),
        ("SMTP error from remote mail server after initial connection: 554 no", Verb.BANNER),
        ("554 no (in reply to end of DATA command)", Verb.CONTENT),
        ("550 no (in reply to MAIL FROM command)", Verb.MAIL),
        ("550 no", None),
    ],
)
def test_the_verb_is_read_from_what_relays_write(text: str, verb: Verb | None) -> None:
    assert normalise(text).verb is verb


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Greylisted, try again in 10 minutes", 600),
        ("retry after 300 seconds", 300),
        ("please wait 15 min and try again", 900),
        ("try again in 1 hour", 3600),
        ("try again in an hour", 3600),
        ("greylisted for 5 minutes", 300),
        ("Greylisted, come back in 00:04:30", 270),
        ("Bitte versuchen Sie es in 5 Minuten erneut", 300),
        ("Veuillez r\u00e9essayer dans 2 heures", 7200),
        ("Intente de nuevo en 30 minutos", 1800),
        (
            "через 5 минут повторите",
            300,
        ),
        ("try again in 0 seconds", None),
        ("try again in 3 days", None),
        ("queued for 300 seconds", None),
        ("timeout after 300 seconds", None),
        ("limit of 100 messages", None),
        ("try again later", None),
    ],
)
def test_the_delay_that_a_text_asks_for(text: str, seconds: float | None) -> None:
    assert retry_seconds(normalise(text).text) == seconds


anything = st.text(alphabet=st.characters(exclude_categories=()), max_size=3000)


@given(anything)
def test_any_text_gives_bounded_words_and_a_sane_delay(text: str) -> None:
    words = normalise(text).text
    assert len(words) <= 4 * TEXT_MAX
    delay = retry_seconds(words)
    assert delay is None or RETRY_SECONDS_MIN <= delay <= RETRY_SECONDS_MAX


@given(st.sampled_from("@.:/-5 1").flatmap(lambda sign: st.integers(0, 5000).map(lambda n: sign * n)))
def test_a_text_of_one_sign_costs_no_more_than_another(text: str) -> None:
    assert isinstance(normalise(text).text, str)
