"""What a peer's answer means: a table over verb, code and text; and what an event keeps of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.replies import ReplyRule, load_reply_rules, parse_reply_rules
from engine.model.category import Action, Category, Group, Key
from engine.model.disposition import DelayReason, Outcome
from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from engine.mta.policy.classify import (
    MATCHED_MAX,
    REPLY_TEXT_MAX,
    Judge,
    Scope,
    Verdict,
    judge_failure,
    reply_text,
)

JUDGE = Judge(load_reply_rules())

B, D = Outcome.BOUNCED, Outcome.DEFERRED
ENVELOPE, HOST, SITE = Scope.ENVELOPE, Scope.HOST, Scope.SITE
RETRY, GREY, NONE = DelayReason.RETRY, DelayReason.GREYLISTED, DelayReason.NONE


@pytest.mark.parametrize(
    ("verb", "text", "outcome", "scope"),
    [
        (Verb.RCPT, "550 5.1.1 No such user", B, ENVELOPE),
        (Verb.RCPT, "550 unknown user", B, ENVELOPE),
        (Verb.RCPT, "553 5.1.3 bad address", B, ENVELOPE),
        (Verb.RCPT, "450 4.2.1 Mailbox busy", D, ENVELOPE),
        (Verb.RCPT, "451 local error", D, ENVELOPE),
        (Verb.RCPT, "452 4.2.2 Mailbox full", D, ENVELOPE),
        (Verb.RCPT, "552 too many recipients", D, ENVELOPE),
        (Verb.RCPT, "552 4.5.3 too many recipients", D, ENVELOPE),
        (Verb.RCPT, "552 5.2.2 Mailbox full", B, ENVELOPE),
        (Verb.RCPT, "451 4.7.1 Greylisted, come back", D, ENVELOPE),
        (Verb.RCPT, "450 GRAY-LISTED for 300 s", D, ENVELOPE),
        (Verb.RCPT, "550 5.7.1 greylisting is off, you are blocked", B, ENVELOPE),
        (Verb.DATA, "554 5.5.1 no valid recipients", B, ENVELOPE),
        (Verb.CONTENT, "554 5.7.1 refused by policy", B, ENVELOPE),
        (Verb.CONTENT, "552 5.3.4 too large", B, ENVELOPE),
        (Verb.CONTENT, "451 4.3.0 try later", D, ENVELOPE),
        (Verb.CONTENT, "451 greylisted", D, ENVELOPE),
        (Verb.BDAT, "554 5.6.0 broken", B, ENVELOPE),
        (Verb.MAIL, "550 5.7.1 sender refused", B, ENVELOPE),
        (Verb.MAIL, "530 5.7.0 Must issue STARTTLS first", D, HOST),
        (Verb.MAIL, "503 5.5.1 nested MAIL", D, HOST),
        (Verb.MAIL, "502 not implemented", D, HOST),
        (Verb.MAIL, "451 4.7.1 rate", D, ENVELOPE),
        (Verb.MAIL, "421 4.3.2 shutting down", D, HOST),
        (Verb.RCPT, "421 4.7.0 greylisted", D, HOST),
        (Verb.CONTENT, "421 bye", D, HOST),
        (Verb.BANNER, "554 5.7.1 blocked", D, HOST),
        (Verb.BANNER, "450 busy", D, HOST),
        (Verb.EHLO, "550 5.7.1 your name", D, HOST),
        (Verb.HELO, "504 no", D, HOST),
        (Verb.STARTTLS, "454 4.7.0 TLS not available", D, HOST),
        (Verb.AUTH, "535 5.7.8 wrong", D, HOST),
        (Verb.RCPT, "354 go on", D, HOST),
        (Verb.DATA, "250 what?", D, HOST),
    ],
)
def test_what_becomes_of_the_envelope(verb: Verb, text: str, outcome: Outcome, scope: Scope) -> None:
    verdict = JUDGE.reply(verb, parsed(text))
    assert (verdict.outcome, verdict.scope) == (outcome, scope)
    assert verdict.rule
    assert (verdict.reason is NONE) == (outcome is B)


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
    assert (verdict.outcome, verdict.scope, verdict.rule, verdict.reason) == (outcome, scope, rule, reason)
    assert verdict.group is (Group.ADDRESS if outcome is B else Group.TRANSIENT)


@pytest.mark.parametrize("kind", FailureKind)
def test_every_kind_of_failure_has_a_verdict(kind: FailureKind) -> None:
    outcomes = (Outcome.RETURNED,) if kind in (FailureKind.SOURCE, FailureKind.LOCAL) else (B, D)
    assert judge_failure(TransportFailure(kind, Verb.CONNECT)).outcome in outcomes


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(FailureKind.SOURCE, DelayReason.SOURCE_GONE), (FailureKind.LOCAL, DelayReason.OUT_OF_ROOM)],
)
def test_our_own_trouble_is_no_attempt(kind: FailureKind, reason: DelayReason) -> None:
    verdict = judge_failure(TransportFailure(kind, Verb.CONNECT, "told"))
    assert (verdict.outcome, verdict.reason) == (Outcome.RETURNED, reason)
    assert verdict.rule == f"transport-{kind.value}"
    assert verdict.group is Group.TRANSIENT


@given(st.sampled_from(Verb), st.integers(200, 599), st.text(max_size=40))
def test_every_reply_has_a_verdict_and_only_5yz_gives_up(verb: Verb, code: int, text: str) -> None:
    verdict = JUDGE.reply(verb, Reply(code, None, (text,)))
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


def class_of(text: str, verb: Verb = Verb.RCPT, mx_host: str = "") -> Verdict:
    return JUDGE.reply(verb, parsed(text), mx_host=mx_host)


@pytest.mark.parametrize(
    ("verb", "text", "outcome", "scope", "category", "reason"),
    [
        (Verb.RCPT, "550 5.1.1 No such user", B, ENVELOPE, Category.BAD_MAILBOX, NONE),
        (Verb.RCPT, "450 4.1.1 No such user yet", D, ENVELOPE, Category.BAD_MAILBOX, RETRY),
        (Verb.RCPT, "552 5.2.2 Mailbox full", B, ENVELOPE, Category.MAILBOX_FULL, NONE),
        (Verb.RCPT, "552 Too many recipients", D, ENVELOPE, Category.RATE_LIMITED, DelayReason.RATE_LIMITED),
        (Verb.RCPT, "451 4.7.1 Greylisted", D, ENVELOPE, Category.GREYLISTED, GREY),
        (Verb.RCPT, "550 Rate limit exceeded", D, ENVELOPE, Category.RATE_LIMITED, DelayReason.RATE_LIMITED),
        (
            *(Verb.RCPT, "550 5.7.1 Blocked using zen.spamhaus.org", D, ENVELOPE),
            *(Category.REPUTATION_BLOCK, DelayReason.REPUTATION),
        ),
        (
            Verb.RCPT,
            "421 4.7.0 Too many connections",
            D,
            HOST,
            Category.RATE_LIMITED,
            DelayReason.RATE_LIMITED,
        ),
        (Verb.CONTENT, "550 5.7.1 Looks like spam", B, ENVELOPE, Category.SPAM_CONTENT, NONE),
        (Verb.CONTENT, "554 5.3.0 Internal error", B, ENVELOPE, Category.REMOTE_SYSTEM_ERROR, NONE),
        (Verb.CONTENT, "554 5.4.6 Too many hops", D, ENVELOPE, Category.NO_ANSWER, RETRY),
        (Verb.BANNER, "554 No service for you", D, HOST, Category.REPUTATION_BLOCK, DelayReason.REPUTATION),
        (Verb.MAIL, "530 5.7.0 Must issue STARTTLS first", D, HOST, Category.PROTOCOL_ERROR, RETRY),
        (Verb.MAIL, "550 5.1.8 Sender domain does not exist", B, ENVELOPE, Category.SENDER_REFUSED, NONE),
        (Verb.RCPT, "250 what?", D, HOST, Category.UNKNOWN, RETRY),
        (Verb.RCPT, "550 Nope", B, ENVELOPE, Category.UNKNOWN, NONE),
    ],
)
def test_what_a_judge_makes_of_a_reply(
    verb: Verb, text: str, outcome: Outcome, scope: Scope, category: Category, reason: DelayReason
) -> None:
    verdict = class_of(text, verb)
    assert (verdict.outcome, verdict.scope, verdict.category, verdict.reason) == (
        outcome,
        scope,
        category,
        reason,
    )


def test_the_mx_host_makes_the_difference() -> None:
    text = "550 User unknown"
    assert class_of(text, Verb.CONTENT, "mx01.docomo.ne.jp").category is Category.RECIPIENT_REFUSED
    assert class_of(text, Verb.CONTENT, "mx.example.com").category is Category.BAD_MAILBOX
    rate = "550 5.2.1 The user is receiving mail at a rate that prevents additional messages"
    assert class_of(rate, mx_host="gmail-smtp-in.l.google.com.").key is Key.RECIPIENT
    assert JUDGE.provider("example-com.mail.protection.outlook.com") == "microsoft"
    assert JUDGE.provider("hotmail-com.olc.protection.outlook.com") == "outlook"
    assert JUDGE.provider("") == ""


def test_an_unknown_user_for_now_is_not_suppressed() -> None:
    verdict = class_of("450 4.1.1 User unknown")
    assert (verdict.group, verdict.action) == (Group.ADDRESS, Action.RETRY)
    assert class_of("550 5.1.1 User unknown").action is Action.SUPPRESS


def test_a_verdict_says_why_whom_and_when() -> None:
    verdict = class_of(
        "421 4.7.28 Unusual rate of mail from your SPF domain, try again in 10 minutes - gsmtp"
    )
    assert (verdict.category, verdict.key, verdict.rule) == (
        Category.RATE_LIMITED,
        Key.DOMAIN,
        "google-rate-domain",
    )
    assert verdict.action is Action.THROTTLE
    assert verdict.retry_after_seconds == 600
    assert verdict.matched
    listed = class_of("554 5.7.1 192.0.2.1 blocked using dbl.spamhaus.org")
    assert listed.lists == ("spamhaus-dbl",)
    assert listed.key is Key.DOMAIN


def test_the_receivers_broken_dns_is_not_our_listing() -> None:
    verdict = class_of("554 5.7.1 blocked using zen.spamhaus.org; Error: open resolver; 127.255.255.254")
    assert verdict.group is Group.TRANSIENT
    assert verdict.outcome is D


def test_a_rules_own_delay_holds_where_the_text_names_none() -> None:
    verdict = class_of("554 5.2.122 The recipient has exceeded their limit per hour")
    assert (verdict.outcome, verdict.retry_after_seconds) == (D, 3600.0)


def test_two_texts_that_differ_in_addresses_share_one_verdict() -> None:
    one = class_of("550 5.1.1 <ann@example.com>: User unknown at 192.0.2.1")
    other = class_of("550 5.1.1 <bob@example.org>: User unknown at 192.0.2.9")
    assert one is other


def test_a_text_without_facts_is_judged_by_what_it_says() -> None:
    verdict = JUDGE.text("host mx.test said: 550 5.1.1 User unknown (in reply to RCPT TO command)")
    assert (verdict.category, verdict.outcome) == (Category.BAD_MAILBOX, B)
    assert JUDGE.text("550 Sorry", enhanced=(5, 1, 1)).category is Category.BAD_MAILBOX
    assert JUDGE.text("no such user", verb=Verb.MAIL).group is not Group.ADDRESS
    assert JUDGE.text("user unknown").outcome is B
    assert JUDGE.text("").category is Category.UNKNOWN


def test_an_operators_rule_decides_first_and_may_name_action_and_key() -> None:
    rule = 'id = "own"\ncategory = "policy"\nany = ["user unknown"]\naction = "retry"\nkey = "url"\n'
    judge = Judge(parse_reply_rules(f'version = "1"\n[[rule]]\n{rule}'))
    verdict = judge.reply(Verb.RCPT, parsed("550 5.1.1 User unknown"))
    assert (verdict.rule, verdict.action, verdict.key) == ("own", Action.RETRY, Key.URL)
    assert judge.failure(TransportFailure(FailureKind.NULL_MX, Verb.RESOLVE)).category is Category.BAD_DOMAIN


codes = st.one_of(st.none(), st.integers(-1, 1000))
statuses = st.one_of(st.none(), st.tuples(st.integers(0, 9), st.integers(0, 999), st.integers(0, 999)))


@given(st.sampled_from(Verb), codes, statuses, st.text(max_size=3000), st.sampled_from(["", "mx.google.com"]))
def test_any_text_with_lying_codes_gets_a_bounded_verdict(
    verb: Verb, code: int | None, enhanced: tuple[int, int, int] | None, text: str, mx_host: str
) -> None:
    for verdict in (
        JUDGE.reply(verb, Reply(code or 550, enhanced, (text,)), mx_host=mx_host),
        JUDGE.text(text, reply_code=code, enhanced=enhanced, verb=verb),
    ):
        assert verdict.outcome in (B, D)
        assert len(verdict.matched) <= MATCHED_MAX
        assert verdict.outcome is B or verdict.reason is not NONE
        delay = verdict.retry_after_seconds
        assert delay is None or 1 <= delay <= 86_400


@given(st.lists(st.sampled_from(load_reply_rules().rules), min_size=1, max_size=5), st.integers(400, 599))
def test_words_of_many_rules_together_are_judged_and_4yz_never_bounces(
    rules: list[ReplyRule], code: int
) -> None:
    text = " ".join(sample for rule in rules for sample in rule.samples)
    verdict = JUDGE.reply(Verb.RCPT, Reply(code, None, (text,)))
    assert verdict.outcome is D or code >= 500


def parsed(text: str) -> Reply:
    """`550 5.1.1 text` as a Reply."""
    code, _, rest = text.partition(" ")
    first, _, behind = rest.partition(" ")
    parts = first.split(".")
    if len(parts) == 3 and all(part.isdigit() for part in parts):
        return Reply(int(code), (int(parts[0]), int(parts[1]), int(parts[2])), (behind,))
    return Reply(int(code), None, (rest,))
