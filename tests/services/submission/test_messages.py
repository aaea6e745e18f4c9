"""What a client's message becomes: refused for good, or itself with the named additions, octet for octet."""

import re
from email.utils import getaddresses
from inspect import signature

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.submission.messages import (
    AUTHOR_OCTETS_MAX,
    HOPS_MAX,
    Prepared,
    Refusal,
    Trace,
    _cached_domains,
    author_domains,
    prepare_message,
)

TRACE = Trace(
    helo="client.test",
    address="192.0.2.1",
    hostname="mail.shop.test",
    protocol="ESMTPSA",
    id="abc.def",
    now=1_800_000_000.0,
)
DOMAINS = frozenset({"shop.test", "xn--mnchen-3ya.test"})
WHOLE = b"From: a@shop.test\r\nDate: now\r\nMessage-ID: <1@shop.test>\r\nSubject: x\r\n\r\nbody\r\n"
RECEIVED = re.compile(
    rb"Received: from [^\r\n]+\r\n\tby mail\.shop\.test with [A-Z0-9]+ id abc\.def;\r\n\t[^\r\n]+\r\n"
)
MESSAGE_ID = b"Message-ID: <abc.def@shop.test>\r\n"
DATE = b"Date: Fri, 15 Jan 2027 08:00:00 +0000\r\n"


def prepared(message: bytes, *, smtputf8: bool = False, trace: Trace = TRACE) -> Prepared:
    made = prepare_message(message, trace, DOMAINS, smtputf8=smtputf8)
    assert isinstance(made, Prepared), made
    return made


def refused(message: bytes, *, smtputf8: bool = False) -> Refusal:
    made = prepare_message(message, TRACE, DOMAINS, smtputf8=smtputf8)
    assert isinstance(made, Refusal), made
    return made


def added(octets: bytes, message: bytes) -> bytes:
    """What stands before the message, without the Received field."""
    assert octets.endswith(message)
    head = octets.removesuffix(message)
    match = RECEIVED.match(head)
    assert match is not None, head
    return head[match.end() :]


def test_a_whole_message_gets_a_trace_and_nothing_else() -> None:
    made = prepared(WHOLE)
    assert made.author_domain == "shop.test"
    assert added(made.octets, WHOLE) == b""


@pytest.mark.parametrize(
    ("missing", "additions"),
    [
        (b"Date: now\r\n", DATE),
        (b"Message-ID: <1@shop.test>\r\n", MESSAGE_ID),
        (b"Date: now\r\nMessage-ID: <1@shop.test>\r\n", MESSAGE_ID + DATE),
    ],
)
def test_what_is_missing_is_added_before_it(missing: bytes, additions: bytes) -> None:
    message = WHOLE.replace(missing, b"")
    assert added(prepared(message).octets, message) == additions


def test_bcc_goes_wherever_it_stands_and_however_it_is_folded() -> None:
    message = WHOLE.replace(b"Subject", b"bCC: c@x.test,\r\n\td@x.test\r\nResent-Bcc: e@x.test\r\nSubject")
    message = message.replace(b"body", b"Bcc: stays\r\nbody")
    kept = WHOLE.replace(b"body", b"Bcc: stays\r\nbody")
    assert added(prepared(message).octets, kept) == b""


OCTETS = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from(
            [
                *(b"From: a@shop.test\r\n", b"From: a@evil.test\r\n", b"Sender: b@shop.test\r\n"),
                *(b"Bcc: c@x.test\r\n", b"Date: d\r\n", b"Message-ID: <m@x>\r\n", b"Subject: \xc3\xbc\r\n"),
                *(b"X: y\r\n z\r\n", b"X: \xff\r\n", b"\r\n", b"text\r\n", b".\r\n", b"..\r\n", b"\n", b"\r"),
                *(b"\r\n.\r\n", b"\n.\n", b"\0\r\n", b"no field\r\n", b"x" * 999 + b"\r\n", b"Bcc: e\r\n"),
            ]
        ),
        max_size=12,
    ).map(b"".join),
)


@settings(max_examples=120)
@given(OCTETS, st.booleans())
def test_any_octets_are_refused_for_good_or_go_on_octet_for_octet(message: bytes, smtputf8: bool) -> None:
    made = prepare_message(message, TRACE, DOMAINS, smtputf8=smtputf8)
    if isinstance(made, Refusal):
        assert re.fullmatch(r"5\d\d 5\.\d\.\d+ [ -~]+", str(made))
        return
    header, empty, body = message.partition(b"\r\n\r\n")
    lines = re.split(rb"\r\n(?![ \t])", header.removesuffix(b"\r\n"))
    kept = b"".join(
        line + b"\r\n" for line in lines if not line.lower().startswith((b"bcc:", b"resent-bcc:"))
    )
    rest = added(made.octets, kept + (b"\r\n" + body if empty else b""))
    assert rest in (b"", DATE, MESSAGE_ID, MESSAGE_ID + DATE)
    names = [line.partition(b":")[0].lower() for line in lines]
    assert (DATE in rest) == (b"date" not in names)
    assert (MESSAGE_ID in rest) == (b"message-id" not in names)
    assert made.octets.count(b"\n") == made.octets.count(b"\r") == made.octets.count(b"\r\n")


@pytest.mark.parametrize(
    ("message", "status", "words"),
    [
        (WHOLE.replace(b"body\r\n", b"body\n"), "5.6.0", "bare CR or LF"),
        (WHOLE.replace(b"body", b"bo\rdy"), "5.6.0", "bare CR or LF"),
        (WHOLE.replace(b"body", b"bo\ndy"), "5.6.0", "bare CR or LF"),
        (WHOLE + b"rest", "5.6.0", "does not end"),
        (WHOLE.replace(b"body", b"b\0dy"), "5.6.0", "NUL"),
        (WHOLE.replace(b"body", b"x" * 999), "5.6.0", "998"),
        (b"body\r\n", "5.6.0", "no header"),
        (b"", "5.6.0", "does not end"),
        (WHOLE.replace(b"Subject: x", b"Subject: \xc3\xbc"), "5.6.7", "beyond ASCII"),
        (WHOLE.replace(b"Subject", b"FROM: b@shop.test\r\nSubject"), "5.6.0", "from stands there twice"),
        (WHOLE.replace(b"From", b"X-From"), "5.6.0", "no From"),
        (WHOLE.replace(b"a@shop.test", b"a@evil.test"), "5.7.1", "domain"),
        (WHOLE.replace(b"a@shop.test", b"a@shop.test, b@evil.test"), "5.7.1", "domain"),
        (WHOLE.replace(b"a@shop.test", b"a@shop.test.evil.test"), "5.7.1", "domain"),
        (WHOLE.replace(b"a@shop.test", b"nobody"), "5.7.1", "domain"),
        (WHOLE.replace(b"a@shop.test", b"<>"), "5.7.1", "domain"),
        (WHOLE.replace(b"a@shop.test", b'"a@shop.test" <b@evil.test>'), "5.7.1", "domain"),
        (WHOLE.replace(b"Subject", b"Sender: b@evil.test\r\nSubject"), "5.7.1", "domain"),
        (WHOLE.replace(b"Subject", b"Sender: x\r\nSubject"), "5.7.1", "domain"),
        (b"Received: by x\r\n" * (HOPS_MAX + 1) + WHOLE, "5.4.6", "hops"),
    ],
)
def test_what_is_refused(message: bytes, status: str, words: str) -> None:
    refusal = refused(message)
    assert (refusal.status, refusal.code // 100) == (status, 5)
    assert words in refusal.text


def test_where_one_click_is_wanted_it_has_to_be_there() -> None:
    offer = b"List-Unsubscribe: <https://a.test/u>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    made = prepare_message(WHOLE, TRACE, DOMAINS, smtputf8=False, one_click=True)
    assert isinstance(made, Refusal)
    assert "one-click" in made.text
    made = prepare_message(offer + WHOLE, TRACE, DOMAINS, smtputf8=False, one_click=True)
    assert isinstance(made, Prepared)


def test_with_smtputf8_a_header_may_be_utf8_and_nothing_else() -> None:
    message = WHOLE.replace(b"Subject: x", b"Subject: \xc3\xbc")
    assert added(prepared(message, smtputf8=True).octets, message) == b""
    assert "not UTF-8" in refused(WHOLE.replace(b"Subject: x", b"Subject: \xff"), smtputf8=True).text


@pytest.mark.parametrize(
    ("value", "domains"),
    [
        (b" Ann <a@shop.test>\r\n", ("shop.test",)),
        (b' "Ann, of the shop" <a@SHOP.test>\r\n', ("shop.test",)),
        (b" =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n <a@shop.test>\r\n", ("shop.test",)),
        (" Zoë <zoë@münchen.test>\r\n".encode(), ("xn--mnchen-3ya.test",)),
        (b' "a b"@shop.test\r\n', ("shop.test",)),
        (b" a@shop.test, B <b@x.test>\r\n", ("shop.test", "x.test")),
        (b" a@shop.test (comment)\r\n", ("shop.test",)),
        (b" undisclosed:;\r\n", ()),
        (b" \r\n", ()),
        (b" a@shop.test" + b" " * AUTHOR_OCTETS_MAX + b"\r\n", ()),
        (b" " + b"a@shop.test, " * 11 + b"a@shop.test\r\n", ()),
        (b" a@[127.0.0.1]\r\n", ()),
        (b" J. Doe <a@shop.test>\r\n", ("shop.test",)),
        (b" A.B. Co. <a@shop.test>\r\n", ("shop.test",)),
        (b' "=?utf-8?q?Gr=C3=BC=C3=9Fe?=" <a@shop.test>\r\n', ("shop.test",)),
        (b" Shop: a@shop.test, b@x.test;\r\n", ("shop.test", "x.test")),
        (b" a@shop.test,, b@x.test\r\n", ("shop.test", "x.test")),
        (b" =?utf-8?q?=FC?= <a@shop.test>\r\n", ("shop.test",)),
        (b" =?utf-8?Q?J=C3?= =?utf-8?Q?=BCrgen?= <a@shop.test>\r\n", ("shop.test",)),
        (b" =?utf-8?B?SsM=?=\r\n =?utf-8?B?vHJnZW4=?= <a@shop.test>\r\n", ("shop.test",)),
        (b" =?UTF-8?Q?Foo Bar?= <a@shop.test>\r\n", ("shop.test",)),
        (b" =?utf-8?B?SsO8cmdlbg?= <a@shop.test>\r\n", ("shop.test",)),
        (b" =?x-unknown?Q?M=FCller?= <a@shop.test>\r\n", ("shop.test",)),
        (b" =?us-ascii?Q?J=FCrgen?= <a@shop.test>\r\n", ("shop.test",)),
        (b" =?iso-8859-1?Q?M=FCller,_Hans?= <a@shop.test>\r\n", ("shop.test",)),
        (b" info@shop.test <info@shop.test>\r\n", ("shop.test",)),
        (b' "info@shop.test" <info@shop.test>\r\n', ("shop.test",)),
        (b' "john.doe"@shop.test\r\n', ("shop.test",)),
        (b' <"john.doe"@shop.test>, b@x.test\r\n', ("shop.test", "x.test")),
        (b' "a@b"@shop.test\r\n', ("shop.test",)),
    ],
)
def test_whose_a_message_is(value: bytes, domains: tuple[str, ...]) -> None:
    assert author_domains(value) == domains


TWO_AUTHORS = [
    b"a@shop.test <ceo@bank.test>",
    b"<a@shop.test> <ceo@bank.test>",
    b'"x" <a@shop.test> ceo@bank.test',
    b"a@shop.test (x) ceo@bank.test",
    b"<@bank.test:a@shop.test>",
    b"Ann <@bank.test,@x.test:a@shop.test>",
    b"a@shop.test; ceo@bank.test",
    b"a@shop.test> <ceo@bank.test>",
    b"<a@shop.test <ceo@bank.test>",
    b"a@shop.test (<ceo@bank.test>",
    b"a@(bank.test)shop.test",
    b"a@=?utf-8?q?shop.test?=",
    b"<=?utf-8?q?ceo=40bank.test=3E?=@shop.test>",
    b"a@shop. test",
    b"Shop: a@shop.test",
    b'"=?utf-8?q?"<ceo@bank.test>,"?=" <a@shop.test>',
    b"=?utf-8?q?<ceo@bank.test>?= <a@shop.test>",
    b"=?utf-8?q?ceo@bank.test,x?= <a@shop.test>",
    b"=?utf 8?q?<ceo@bank.test>?= <a@shop.test>",
    b"=?utf-8?q?x <ceo@bank.test>, y?= <a@shop.test>",
    b"=?utf-8?q?x(?= <a@shop.test>",
    b"info@shop.test <ceo@bank.test>",
    b"ceo@bank.test <info@shop.test>",
    b"=?utf-8?q?ceo=40bank.test?= <=?utf-8?q?ceo=40bank.test?=>",
    b"a@shop.test\x01",
]


@pytest.mark.parametrize("value", TWO_AUTHORS)
def test_a_field_that_two_readers_may_read_differently_has_no_author(value: bytes) -> None:
    assert author_domains(b" " + value + b"\r\n") == ()
    assert "author" in refused(WHOLE.replace(b"a@shop.test", value, 1)).text
    sender = b"Sender: " + value + b"\r\nSubject"
    assert "sender" in refused(WHOLE.replace(b"Subject", sender)).text


def test_a_field_that_is_too_long_is_not_remembered() -> None:
    before = _cached_domains.cache_info()
    assert author_domains(b" a@shop.test" + b" " * AUTHOR_OCTETS_MAX) == ()
    assert _cached_domains.cache_info() == before


@given(st.binary(max_size=60))
def test_no_author_field_makes_it_fail(value: bytes) -> None:
    for domain in author_domains(b" " + value + b"\r\n"):
        assert domain


PARTS = [
    *("a@shop.test", "<a@shop.test>", "ceo@bank.test", "<ceo@bank.test>", '"ceo@bank.test"', "Ann"),
    *("=?utf-8?q?", "=?x?b?", "?=", "=?utf-8?q?x?=", "=C3", "SsM=", " ", "\r\n ", "\t", *',;:()<>@"\\.?[]'),
]
STRICT = (False, True) if "strict" in signature(getaddresses).parameters else ()
MODES: list[dict[str, bool]] = [{"strict": mode} for mode in STRICT] or [{}]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=9).map("".join))
def test_whatever_the_field_is_no_other_reader_sees_another_domain_in_it(text: str) -> None:
    found = set(author_domains(f" {text}\r\n".encode()))
    if not found:
        return
    unfolded = text.replace("\r\n", "").strip()
    for mode in MODES:
        for _, address in getaddresses([unfolded], **mode):
            assert "@" not in address or address.rpartition("@")[2].lower() in found
    if "(" not in unfolded and "\\" not in unfolded:  # a simple reader has no comments
        for address in re.findall(r"<([^<>]*@[^<>]*)>", re.sub(r'"[^"]*"', "", unfolded)):
            assert address.rpartition("@")[2].strip().lower() in found


@pytest.mark.parametrize(
    ("helo", "address", "shown"),
    [
        ("client.test", "192.0.2.1", b"from client.test ([192.0.2.1])"),
        ("[192.0.2.1]", "192.0.2.1", b"from [192.0.2.1] ([192.0.2.1])"),
        ("a\r\nBcc: x", "192.0.2.1", b"from unknown ([192.0.2.1])"),
        ("zoë.test", "2001:db8::1", b"from unknown ([IPv6:2001:db8::1])"),
    ],
)
def test_what_a_client_calls_itself_cannot_break_the_trace(helo: str, address: str, shown: bytes) -> None:
    trace = Trace(helo, address, "mail.shop.test", "ESMTPSA", "abc.def", 1_800_000_000.0)
    made = prepared(WHOLE, trace=trace)
    assert shown in made.octets
    assert added(made.octets, WHOLE) == b""
