"""What an answer means, and that no octets make the reader raise."""

from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from dns.rdatatype import RdataType
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.tls import TlsaRecord
from engine.mta.net.dns_message import (
    TEXTS_MAX,
    TLSA_RECORDS_MAX,
    Answer,
    AnswerKind,
    EdnsRefused,
    Question,
    Truncated,
    build_query,
    read_response,
)
from engine.mta.net.mx import Exchange


def make_query(name: str = "a.example", rdtype: RdataType = RdataType.MX) -> dns.message.Message:
    query = build_query(Question(name, rdtype), 4_711, edns=True)
    assert query is not None
    return query


def respond(
    query: dns.message.Message, *lines: str, rcode: int = 0, authority: tuple[str, ...] = ()
) -> dns.message.Message:
    response = dns.message.make_response(query)
    response.set_rcode(dns.rcode.Rcode(rcode))
    for section, texts in ((response.answer, lines), (response.authority, authority)):
        for line in texts:
            name, ttl, rdtype, data = line.split(maxsplit=3)
            section.append(dns.rrset.from_text(name, int(ttl), "IN", rdtype, data))
    return response


SOA = "example. 900 SOA ns.example. h.example. 1 3600 600 86400 30"
MX = "a.example. 300 MX 10 MX1.Example."


@pytest.mark.parametrize(
    ("lines", "rcode", "authority", "expected"),
    [
        ((MX,), 0, (), Answer(AnswerKind.FOUND, 300, exchanges=(Exchange(10, "mx1.example"),))),
        (("a.example. 300 MX 0 .",), 0, (), Answer(AnswerKind.FOUND, 300, exchanges=(Exchange(0, "."),))),
        (
            ("a.example. 60 CNAME b.example.", "b.example. 300 MX 5 m.example."),
            0,
            (),
            Answer(AnswerKind.FOUND, 60, exchanges=(Exchange(5, "m.example"),), canonical="b.example"),
        ),
        ((), 0, (SOA,), Answer(AnswerKind.NODATA, 30)),  # RFC 2308: the smaller of SOA TTL and minimum
        ((), 3, (SOA,), Answer(AnswerKind.NXDOMAIN, 30)),
        (
            ("a.example. 60 CNAME b.example.",),
            3,
            (SOA,),
            Answer(AnswerKind.NXDOMAIN, 30, canonical="b.example"),
        ),
        (
            ("a.example. 60 CNAME b.example.",),
            0,
            (SOA,),
            Answer(AnswerKind.NODATA, 30, canonical="b.example"),
        ),
        (
            ("a.example. 50 CNAME b.example.",),
            0,
            (),
            Answer(AnswerKind.NODATA, 50, alias="b.example"),
        ),
    ],
)
def test_an_answer_is_read(
    lines: tuple[str, ...], rcode: int, authority: tuple[str, ...], expected: Answer
) -> None:
    query = make_query()
    assert (
        read_response(query, respond(query, *lines, rcode=rcode, authority=authority).to_wire()) == expected
    )


@pytest.mark.parametrize(
    ("lines", "rcode", "authority", "detail"),
    [
        ((), 2, (), "server answered SERVFAIL"),
        ((), 5, (), "server answered REFUSED"),
        ((), 0, ("example. 900 NS ns.example.",), "lame server: referral instead of an answer"),
        ((MX,), 3, (), "answer that contradicts itself"),
        (("a.example. 60 CNAME a.example.",), 0, (), "CNAME loop"),
        (("a.example. 60 CNAME b.example.", "b.example. 60 CNAME a.example."), 0, (), "CNAME loop"),
    ],
)
def test_what_no_one_can_build_on_is_a_failure_and_never_nodata(
    lines: tuple[str, ...], rcode: int, authority: tuple[str, ...], detail: str
) -> None:
    query = make_query()
    answer = read_response(query, respond(query, *lines, rcode=rcode, authority=authority).to_wire())
    assert isinstance(answer, Answer)
    assert (answer.kind, answer.detail) == (AnswerKind.FAILED, detail)


def test_a_denial_of_which_nobody_says_for_how_long_is_not_kept() -> None:
    query = make_query()
    for authority, seconds in (((), 0.0), ((SOA,), 30.0)):
        for rcode, kind in ((3, AnswerKind.NXDOMAIN), (0, AnswerKind.NODATA)):
            answer = read_response(query, respond(query, rcode=rcode, authority=authority).to_wire())
            assert isinstance(answer, Answer)
            assert (answer.kind, answer.ttl_seconds) == (kind, seconds)


def test_addresses_are_read() -> None:
    for rdtype, address in ((RdataType.A, "192.0.2.1"), (RdataType.AAAA, "2001:db8::1")):
        query = make_query(rdtype=rdtype)
        answer = read_response(query, respond(query, f"a.example. 9 {rdtype.name} {address}").to_wire())
        assert answer == Answer(AnswerKind.FOUND, 9, addresses=(address,))


def test_texts_and_tlsa_records_are_read_as_they_are() -> None:
    query = make_query("_mta-sts.a.example", RdataType.TXT)
    wire = respond(query, '_mta-sts.a.example. 9 TXT "v=STS" "v1; id=1"', '_mta-sts.a.example. 9 TXT "x"')
    answer = read_response(query, wire.to_wire())
    assert isinstance(answer, Answer)
    assert sorted(answer.texts) == [b"v=STSv1; id=1", b"x"]
    query = make_query("_25._tcp.m.example", RdataType.TLSA)
    wire = respond(
        query, f"_25._tcp.m.example. 9 TLSA 3 1 1 {'ab' * 32}", "_25._tcp.m.example. 9 TLSA 0 0 0 00"
    )
    answer = read_response(query, wire.to_wire())
    assert isinstance(answer, Answer)
    assert set(answer.tlsa) == {TlsaRecord(3, 1, 1, b"\xab" * 32), TlsaRecord(0, 0, 0, b"\0")}


def test_what_a_zone_may_list_is_cut() -> None:
    query = make_query("_25._tcp.m.example", RdataType.TLSA)
    lines = [f"_25._tcp.m.example. 9 TLSA 3 1 1 {number:064x}" for number in range(60)]
    answer = read_response(query, respond(query, *lines).to_wire(max_size=65_535))
    assert isinstance(answer, Answer)
    assert len(answer.tlsa) == TLSA_RECORDS_MAX
    query = make_query(rdtype=RdataType.TXT)
    long = " ".join(['"' + "x" * 200 + '"'] * 6)
    wire = respond(query, f"a.example. 9 TXT {long}", *(f"a.example. 9 TXT {number}" for number in range(30)))
    answer = read_response(query, wire.to_wire(max_size=65_535))
    assert isinstance(answer, Answer)
    assert len(answer.texts) == TEXTS_MAX
    assert max(map(len, answer.texts)) < 3


def test_an_answer_is_secure_when_its_server_says_so() -> None:
    query = make_query()
    assert query.flags & dns.flags.AD, "RFC 6840 5.7: the question asks for it"
    for lines, rcode, authority in (((MX,), 0, ()), ((), 0, (SOA,)), ((), 3, (SOA,))):
        response = respond(query, *lines, rcode=rcode, authority=authority)
        for secure in (False, True):
            response.flags = response.flags | dns.flags.AD if secure else response.flags & ~dns.flags.AD
            answer = read_response(query, response.to_wire())
            assert isinstance(answer, Answer)
            assert answer.secure is secure


def test_records_of_another_name_are_not_taken() -> None:
    query = make_query()
    answer = read_response(query, respond(query, "evil.example. 300 MX 1 evil.example.").to_wire())
    assert isinstance(answer, Answer)
    assert answer.kind is AnswerKind.NODATA


def _other_id(message: dns.message.Message) -> None:
    message.id += 1


def _no_response(message: dns.message.Message) -> None:
    message.flags &= ~dns.flags.QR


def _other_question(message: dns.message.Message) -> None:
    message.question = make_query("b.example").question


def _no_question(message: dns.message.Message) -> None:
    message.question = []


@pytest.mark.parametrize("spoil", [_other_id, _no_response, _other_question, _no_question])
def test_what_does_not_answer_our_question_is_skipped(spoil: Callable[[dns.message.Message], None]) -> None:
    query = make_query()
    response = respond(query, MX)
    spoil(response)
    assert read_response(query, response.to_wire()) is None


def test_a_cut_response_asks_for_tcp_even_when_it_ends_in_the_middle_of_a_record() -> None:
    query = make_query()
    response = respond(query, MX)
    response.flags |= dns.flags.TC
    assert read_response(query, response.to_wire()) == Truncated()
    assert read_response(query, response.to_wire()[:-5]) == Truncated()


@pytest.mark.parametrize("rcode", [dns.rcode.FORMERR, dns.rcode.NOTIMP])
def test_a_server_without_edns_is_asked_again_without(rcode: dns.rcode.Rcode) -> None:
    query = make_query()
    assert read_response(query, respond(query, rcode=rcode).to_wire()) == EdnsRefused()
    plain = build_query(Question("a.example", RdataType.MX), 1, edns=False)
    assert plain is not None
    answer = read_response(plain, respond(plain, rcode=rcode).to_wire())
    assert isinstance(answer, Answer)
    assert answer.kind is AnswerKind.FAILED


@pytest.mark.parametrize(
    "name", ["a" * 64 + ".example", ".".join(["abcdefg"] * 40), "a..example", "\\999.example"]
)
def test_what_is_no_domain_name_makes_no_query(name: str) -> None:
    assert build_query(Question(name, RdataType.MX), 1, edns=True) is None


@settings(max_examples=150)
@given(st.binary(max_size=300))
def test_no_octets_make_the_reader_raise(noise: bytes) -> None:
    query = make_query()
    read_response(query, noise)
    head = respond(query).to_wire()[:2]
    read_response(query, head + noise)


@settings(max_examples=150)
@given(st.integers(2, 200), st.integers(0, 255), st.integers(2, 200))
def test_no_damaged_answer_makes_the_reader_raise(place: int, octet: int, cut: int) -> None:
    query = make_query()
    wire = bytearray(respond(query, MX, "a.example. 60 CNAME b.example.", authority=(SOA,)).to_wire())
    wire[place % len(wire)] = octet
    read_response(query, bytes(wire))
    read_response(query, bytes(wire[:cut]))


@settings(max_examples=100)
@given(st.lists(st.binary(min_size=1, max_size=63), max_size=3))
def test_a_name_from_the_wire_can_be_asked_for_again(labels: list[bytes]) -> None:
    query = make_query()
    target = dns.name.Name([*labels, b"example", b""])
    response = respond(query)
    response.answer.append(dns.rrset.from_rdata("a.example.", 60, dns.rdtypes.ANY.CNAME.CNAME(1, 5, target)))
    answer = read_response(query, response.to_wire())
    assert isinstance(answer, Answer)
    again = build_query(Question(answer.alias, RdataType.MX), 1, edns=True)
    assert again is not None
    assert again.question[0].name == target
