"""What a peer's answer means: a table over verb, code and text; and what an event keeps of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.disposition import DelayReason, Outcome
from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from engine.mta.policy.classify import REPLY_TEXT_MAX, Scope, judge_failure, judge_reply, reply_text

B, D = Outcome.BOUNCED, Outcome.DEFERRED
ENVELOPE, HOST, SITE = Scope.ENVELOPE, Scope.HOST, Scope.SITE
RETRY, GREY, NONE = DelayReason.RETRY, DelayReason.GREYLISTED, DelayReason.NONE


@pytest.mark.parametrize(
    ("verb", "text", "outcome", "scope", "rule"),
    [
        (Verb.RCPT, "550 5.1.1 No such user", B, ENVELOPE, "permanent-rcpt"),
        (Verb.RCPT, "550 unknown user", B, ENVELOPE, "permanent-rcpt"),
        (Verb.RCPT, "553 5.1.3 bad address", B, ENVELOPE, "permanent-rcpt"),
        (Verb.RCPT, "450 4.2.1 Mailbox busy", D, ENVELOPE, "transient"),
        (Verb.RCPT, "451 local error", D, ENVELOPE, "transient"),
        (Verb.RCPT, "452 4.2.2 Mailbox full", D, ENVELOPE, "transient"),
        (Verb.RCPT, "552 too many recipients", D, ENVELOPE, "552-recipients"),
        (Verb.RCPT, "552 4.5.3 too many recipients", D, ENVELOPE, "552-recipients"),
        (Verb.RCPT, "552 5.2.2 Mailbox full", B, ENVELOPE, "permanent-rcpt"),
        (Verb.RCPT, "451 4.7.1 Greylisted, come back", D, ENVELOPE, "greylisted"),
        (Verb.RCPT, "450 GRAY-LISTED for 300 s", D, ENVELOPE, "greylisted"),
        (Verb.RCPT, "550 5.7.1 greylisting is off, you are blocked", B, ENVELOPE, "permanent-rcpt"),
        (Verb.DATA, "554 5.5.1 no valid recipients", B, ENVELOPE, "permanent-data"),
        (Verb.CONTENT, "554 5.7.1 refused by policy", B, ENVELOPE, "permanent-content"),
        (Verb.CONTENT, "552 5.3.4 too large", B, ENVELOPE, "permanent-content"),
        (Verb.CONTENT, "451 4.3.0 try later", D, ENVELOPE, "transient"),
        (Verb.CONTENT, "451 greylisted", D, ENVELOPE, "greylisted"),
        (Verb.BDAT, "554 5.6.0 broken", B, ENVELOPE, "permanent-bdat"),
        (Verb.MAIL, "550 5.7.1 sender refused", B, ENVELOPE, "permanent-mail"),
        (Verb.MAIL, "530 5.7.0 Must issue STARTTLS first", D, HOST, "session-mail"),
        (Verb.MAIL, "503 5.5.1 nested MAIL", D, HOST, "session-mail"),
        (Verb.MAIL, "502 not implemented", D, HOST, "session-mail"),
        (Verb.MAIL, "451 4.7.1 rate", D, ENVELOPE, "transient"),
        (Verb.MAIL, "421 4.3.2 shutting down", D, HOST, "421-closing"),
        (Verb.RCPT, "421 4.7.0 greylisted", D, HOST, "421-closing"),
        (Verb.CONTENT, "421 bye", D, HOST, "421-closing"),
        (Verb.BANNER, "554 5.7.1 blocked", D, HOST, "session-banner"),
        (Verb.BANNER, "450 busy", D, HOST, "session-banner"),
        (Verb.EHLO, "550 5.7.1 your name", D, HOST, "session-ehlo"),
        (Verb.HELO, "504 no", D, HOST, "session-helo"),
        (Verb.STARTTLS, "454 4.7.0 TLS not available", D, HOST, "session-starttls"),
        (Verb.AUTH, "535 5.7.8 wrong", D, HOST, "session-auth"),
        (Verb.RCPT, "354 go on", D, HOST, "unexpected-reply"),
        (Verb.DATA, "250 what?", D, HOST, "unexpected-reply"),
    ],
)
def test_what_a_reply_means(verb: Verb, text: str, outcome: Outcome, scope: Scope, rule: str) -> None:
    verdict = judge_reply(verb, parsed(text))
    assert (verdict.outcome, verdict.scope, verdict.rule) == (outcome, scope, rule)
    assert verdict.greylisted == (rule == "greylisted")
    assert verdict.reason is (NONE if outcome is B else GREY if verdict.greylisted else RETRY)


@pytest.mark.parametrize(
    ("kind", "verb", "outcome", "scope", "rule", "reason"),
    [
        (FailureKind.NO_SUCH_DOMAIN, Verb.RESOLVE, B, SITE, "domain-nxdomain", NONE),
        (FailureKind.NULL_MX, Verb.RESOLVE, B, SITE, "domain-null-mx", NONE),
        (FailureKind.MX_REFUSED, Verb.RESOLVE, B, SITE, "domain-mx-refused", NONE),
        (FailureKind.NO_ADDRESS, Verb.RESOLVE, D, SITE, "transport-no_address", DelayReason.DNS_TROUBLE),
        (FailureKind.DNS, Verb.RESOLVE, D, SITE, "transport-dns", DelayReason.DNS_TROUBLE),
        (FailureKind.CONNECT_REFUSED, Verb.CONNECT, D, HOST, "transport-connect_refused", RETRY),
        (FailureKind.CLOSED, Verb.RCPT, D, HOST, "transport-closed", RETRY),
        (FailureKind.TIMEOUT, Verb.CONTENT, D, HOST, "transport-timeout", RETRY),
        (FailureKind.TLS, Verb.TLS, D, HOST, "transport-tls", RETRY),
    ],
)
def test_what_a_failure_means(
    kind: FailureKind, verb: Verb, outcome: Outcome, scope: Scope, rule: str, reason: DelayReason
) -> None:
    verdict = judge_failure(TransportFailure(kind, verb, "told"))
    assert verdict == type(verdict)(outcome, scope, rule, reason)


@pytest.mark.parametrize("kind", FailureKind)
def test_every_kind_of_failure_has_a_verdict(kind: FailureKind) -> None:
    assert judge_failure(TransportFailure(kind, Verb.CONNECT)).outcome in (B, D)


@given(st.sampled_from(Verb), st.integers(200, 599), st.text(max_size=40))
def test_every_reply_has_a_verdict_and_only_5yz_gives_up(verb: Verb, code: int, text: str) -> None:
    verdict = judge_reply(verb, Reply(code, None, (text,)))
    assert verdict.outcome in (B, D)
    assert verdict.outcome is D or code >= 500


@pytest.mark.parametrize(
    ("said", "recipient", "kept"),
    [
        ("550 5.1.1 <ann@x.test>: no such user", "ann@x.test", "550 5.1.1 <<rcpt>>: no such user"),
        ("550 ANN@X.Test unknown", "ann@x.test", "550 <rcpt> unknown"),
        ("550 ann unknown", "ann@x.test", "550 <rcpt> unknown"),
        ("550 user ann@internal.x.test unknown", "ann@x.test", "550 user <rcpt>@internal.x.test unknown"),
        ("550 annex closed", "ann@x.test", "550 annex closed"),
        ("550 al is a word", "al@x.test", "550 al is a word"),  # too short to tell it from prose
        ("550 al@x.test is none", "al@x.test", "550 <rcpt> is none"),
        ("550 a+b.c@x.test no", "a+b.c@x.test", "550 <rcpt> no"),
        ("550 \x1b[31mred\x00", "ann@x.test", "550  [31mred "),
    ],
)
def test_an_event_keeps_the_reply_without_the_address(said: str, recipient: str, kept: str) -> None:
    assert reply_text(parsed(said), recipient) == kept


def test_several_lines_are_one_and_no_answer_is_nothing() -> None:
    assert reply_text(Reply(550, (5, 1, 1), ("no", "such user")), "a@b.test") == "550 5.1.1 no such user"
    assert reply_text(None, "a@b.test") == ""
    failure = TransportFailure(FailureKind.CLOSED, Verb.RCPT, "reset\r\nby peer")
    assert reply_text(failure, "a@b.test") == "closed at rcpt: reset  by peer"


anything = st.text(alphabet=st.characters(exclude_categories=()), max_size=700)
words = st.text(alphabet="abcdefgh.+-_'", min_size=3, max_size=20).filter(lambda text: text[0].isalpha())


@given(anything, anything)
def test_it_never_raises_and_is_one_bounded_line(text: str, recipient: str) -> None:
    kept = reply_text(Reply(550, None, (text,)), recipient)
    assert len(kept.encode()) <= REPLY_TEXT_MAX
    assert kept.isprintable()


@given(words, anything, anything, st.booleans())
def test_the_address_never_gets_into_an_event(local: str, before: str, after: str, upper: bool) -> None:
    recipient = f"{local}@post.test"
    said = recipient.upper() if upper else recipient
    kept = reply_text(Reply(550, None, (f"{before} {said} {after}",)), recipient)
    assert recipient not in kept.lower()


def parsed(text: str) -> Reply:
    """`550 5.1.1 text` as a Reply."""
    code, _, rest = text.partition(" ")
    first, _, behind = rest.partition(" ")
    parts = first.split(".")
    if len(parts) == 3 and all(part.isdigit() for part in parts):
        return Reply(int(code), (int(parts[0]), int(parts[1]), int(parts[2])), (behind,))
    return Reply(int(code), None, (rest,))
