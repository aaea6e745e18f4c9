"""Raw messages: not one octet changed, and signatures that an independent verifier believes."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.model.content import BodyCanon, Content, DkimAlgorithm, DkimIdentity, MessageClass
from engine.model.envelope import Envelope
from engine.model.single import SingleKind, raw_row, standing_content
from engine.mta.compose import ContentError, RenderError, verify
from engine.mta.compose.dkim import OVERSIGNED
from engine.mta.compose.raw import ONCE, RawContent, RawHeader, raw_body_hash
from tests.engine.mta.compose.test_dkim import ED, ED_RELAXED, RSA, sign, verifies
from tests.fakes.letters import NOW, token_keys

DOMAIN = "example.org"
ED_BOTH = {
    canon: DkimIdentity("platform.example", "e1", "ed", DkimAlgorithm.ED25519_SHA256, canon)
    for canon in BodyCanon
}
MESSAGE = (
    b"Received: from a by b; Thu, 1 Jan 2026 00:00:00 +0000\r\n"
    b"Received: from c by d; Thu, 1 Jan 2026 00:00:00 +0000\r\n"
    b"FROM:  Ann <ann@example.org>\r\n"
    b"To: b@x.test,\r\n\tc@x.test\r\nSubject:  two  words \r\n  folded\t\r\nX-Other: 1\r\n"
    b"\r\n"
    b".dot\r\n..dots\r\ntrailing \t \r\n\r\nend\r\n\r\n\r\n"
)


def a_content(*dkim: DkimIdentity) -> Content:
    kind = SingleKind(sending_domain=DOMAIN, return_path_domain="bounce.example.org", dkim=dkim)
    return standing_content(kind, 20_000, 0)


def an_envelope(message: bytes, **changes: object) -> Envelope:
    plain = Envelope(9, 1, 77, "b@x.test", "x.test", raw_row(message), NOW, NOW + 60)
    return replace(plain, **changes)


def sent(content: RawContent, message: bytes) -> bytes:
    draft = content.compose(an_envelope(message), NOW)
    whole = draft.finish([sign(request.key, request.digest) for request in draft.digests])
    assert whole.endswith(message)
    return whole


def test_all_that_is_oversigned_may_stand_there_once_only() -> None:
    assert {name.encode() for name in OVERSIGNED} <= ONCE


def test_an_unsigned_message_goes_as_it_is_with_our_return_path() -> None:
    content = RawContent(a_content(), token_keys())
    draft = content.compose(an_envelope(MESSAGE), NOW)
    assert draft.finish() == MESSAGE
    assert (draft.recipient, draft.dotted, draft.eight_bit, draft.smtputf8) == (
        "b@x.test",
        True,
        False,
        False,
    )
    match = re.fullmatch(r"b-(\w{40})@bounce\.example\.org", draft.mail_from)
    assert match is not None
    payload = verify("b", token_keys(), match[1], DOMAIN)
    assert payload is not None
    assert payload.single
    assert (payload.subscriber, payload.campaign) == (77, a_content().campaign)


@pytest.mark.parametrize("identities", [(RSA,), (ED,), (ED_RELAXED,), (RSA, ED_RELAXED)])
def test_signatures_verify_however_it_is_written(identities: tuple[DkimIdentity, ...]) -> None:
    whole = sent(RawContent(a_content(*identities), token_keys()), MESSAGE)
    assert whole.count(b"DKIM-Signature:") == len(identities)
    assert verifies(whole, len(identities))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.replace(b"two", b"tw0", 1),
        lambda m: m.replace(b"Ann", b"Bob", 1),
        lambda m: m.replace(b"end", b"End", 1),
        lambda m: m.replace(b"X-Other", b"Subject: more\r\nX-Other", 1),
        lambda m: b"From: eve@evil.test\r\n" + m,
        lambda m: m.replace(b"X-Other", b"List-Unsubscribe: <https://evil.test>\r\nX-Other", 1),
    ],
)
def test_a_change_breaks_the_signature(change: object) -> None:
    whole = sent(RawContent(a_content(ED), token_keys()), MESSAGE)
    assert verifies(whole)
    assert not verifies(change(whole))  # type: ignore[operator]


NAMES = st.sampled_from(["Subject", "To", "CC", "X-Thing", "Received", "list-id", "Date"])
VALUES = st.text("abc \t=?_\u00e9", max_size=30).map(lambda text: text.encode("latin-1"))
BODIES = st.lists(st.text("ab. \t\u00ff", max_size=12), max_size=8).map(
    lambda lines: "".join(f"{line}\r\n" for line in lines).encode("latin-1")
)


@settings(max_examples=80)
@given(st.sampled_from(list(BodyCanon)), st.lists(st.tuples(NAMES, VALUES), max_size=6), BODIES)
def test_whatever_the_message_is_it_stays_and_its_signature_verifies(
    canon: BodyCanon, extra: list[tuple[str, bytes]], body: bytes
) -> None:
    fields = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in extra)
    message = b"From: a@example.org\r\n" + fields + b"\r\n" + body
    content = RawContent(a_content(ED_BOTH[canon]), token_keys())
    if RawHeader(message).doubled():
        with pytest.raises(RenderError):
            sent(content, message)
    else:
        assert verifies(sent(content, message))


def test_a_message_without_a_body_verifies() -> None:
    for canon in BodyCanon:
        content = RawContent(a_content(ED_BOTH[canon]), token_keys())
        assert verifies(sent(content, b"From: a@example.org\r\n\r\n"))
        assert verifies(sent(content, b"From: a@example.org\r\n\r\n\r\n\r\n"))


@pytest.mark.parametrize(
    ("body", "canon", "same"),
    [
        (b"", BodyCanon.SIMPLE, b"\r\n"),
        (b"", BodyCanon.RELAXED, b""),
        (b"a \r\n", BodyCanon.RELAXED, b"a\r\n"),
        (b"a\t b \t\r\n \r\n\r\n", BodyCanon.RELAXED, b"a b\r\n"),
        (b"a\r\n\r\n\r\n", BodyCanon.SIMPLE, b"a\r\n"),
    ],
)
def test_bodies_are_canonicalised_as_the_rfc_says(body: bytes, canon: BodyCanon, same: bytes) -> None:
    assert raw_body_hash(body, canon) == raw_body_hash(same, canon)


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({}, (False, False)),
        ({"row": raw_row(b"From: a@b.test\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n")}, (True, False)),
        ({"row": raw_row(b"From: \xc3\xbc@b.test\r\n\r\na\r\n")}, (True, True)),
        ({"recipient": "zo\u00eb@x.test"}, (False, True)),
    ],
)
def test_what_a_peer_must_offer(changes: dict[str, object], facts: tuple[bool, bool]) -> None:
    draft = RawContent(a_content(), token_keys()).compose(
        an_envelope(b"From: a@b.test\r\n\r\na\r\n", **changes), NOW
    )
    assert (draft.eight_bit, draft.smtputf8) == facts
    assert not draft.dotted


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"no header\r\n", "header is none"),
        (b" From: a@b.test\r\n\r\n", "header is none"),
        (b"From : a@b.test\r\n\r\n", "header is none"),  # obsolete (RFC 5322 4.5.8); some cannot read it
        (b"", "header is none"),
        (b"From: a@b.test\r\n\r\na\nb\r\n", "bare CR or LF"),
        (b"From: a@b.test\r\n\r\na\rb\r\n", "bare CR or LF"),
        (b"From: a@b.test\r\n\r\nend", "middle of a line"),
        (b"From: a@b.test\r\nfrom: c@d.test\r\n\r\n", "from stands there twice"),
        (b"X: y\r\n" * 1_001 + b"\r\n", "header is none"),
        (b"From: a@b.test\r\n\r\n" + b"a" * (10 * 1024 * 1024) + b"\r\n", "larger than"),
    ],
)
def test_what_is_no_message_is_one_envelopes_error(message: bytes, why: str) -> None:
    with pytest.raises(RenderError, match=why):
        RawContent(a_content(ED), token_keys()).compose(an_envelope(message), NOW)


@pytest.mark.parametrize(
    "changes", [{"row": ()}, {"row": ("\u20ac",)}, {"recipient": "none"}, {"subscriber": 0}]
)
def test_an_envelope_that_is_no_raw_single_is_an_error(changes: dict[str, object]) -> None:
    with pytest.raises(RenderError):
        RawContent(a_content(), token_keys()).compose(an_envelope(MESSAGE, **changes), NOW)


@pytest.mark.parametrize(
    ("fields", "one_click"),
    [
        (
            b"List-Unsubscribe: <https://a.test/u>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
            True,
        ),
        (b"List-Unsubscribe: <https://a.test/u>\r\n", False),
        (
            b"List-Unsubscribe: <mailto:u@a.test>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
            False,
        ),
        (b"", False),
    ],
)
def test_bulk_offers_one_click_or_does_not_go(fields: bytes, one_click: bool) -> None:
    message = b"From: a@b.test\r\n" + fields + b"\r\nbody\r\n"
    bulk = RawContent(replace(a_content(), message_class=MessageClass.BULK), token_keys())
    if one_click:
        assert bulk.compose(an_envelope(message), NOW).finish() == message
    else:
        with pytest.raises(RenderError, match="one-click"):
            bulk.compose(an_envelope(message), NOW)
    assert RawContent(a_content(), token_keys()).compose(an_envelope(message), NOW).finish() == message


def test_a_bad_identity_is_said_when_it_is_compiled() -> None:
    with pytest.raises(ContentError, match="selector"):
        RawContent(a_content(replace(ED, selector="no selector")), token_keys())
    with pytest.raises(ContentError, match="one field"):
        RawContent(replace(a_content(), raw=False), token_keys())


def test_repr_says_what_it_is() -> None:
    assert "single messages of example.org" in repr(RawContent(a_content(), token_keys()))
    assert repr(RawHeader(MESSAGE)) == "<RawHeader of 6 fields>"
