"""The world's name server, asked by dnspython as packets and over real sockets."""

import dns.asyncquery
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest
import trio

from bench.world.dns import DnsServer, DnsTrouble, Zones

RECORDS = {
    "box.example": {"MX": ["10 mx1.box.example.", "20 mx2.box.example."], "TXT": ['"v=spf1 -all"']},
    "mx1.box.example": {"A": ["127.83.0.1"]},
    "mx2.box.example": {"A": ["127.83.0.2"], "AAAA": ["::1"]},
    "sel._domainkey.box.example": {"TXT": [" ".join(f'"{"k" * 250}"' for _ in range(8))]},
    "null.test": {"MX": ["0 ."]},
    "alias.test": {"CNAME": ["box.example."]},
    "loop.test": {"CNAME": ["loop.test."]},
    "out.test": {"CNAME": ["elsewhere.invalid."]},
    "dead.test": {"MX": ["10 mx1.box.example."]},
}
TROUBLES = {
    "dead.test": DnsTrouble.SERVFAIL,
    "mute.test": DnsTrouble.SILENT,
    "big.test": DnsTrouble.TRUNCATED,
}


@pytest.fixture
def zones():
    return Zones(RECORDS, troubles=TROUBLES)


def ask(zones, name, kind, *, udp=True, **options):
    query = dns.message.make_query(name, kind, **options)
    packet = zones.answer(query.to_wire(), udp=udp)
    response = dns.message.from_wire(packet)
    assert query.is_response(response)
    return response


def texts(rrsets):
    return sorted(text for rrset in rrsets for text in rrset.to_text().splitlines())


def test_mx_comes_with_the_addresses_of_its_hosts(zones):
    response = ask(zones, "box.example", "MX")
    assert response.flags & dns.flags.AA
    assert texts(response.answer) == [
        "box.example. 300 IN MX 10 mx1.box.example.",
        "box.example. 300 IN MX 20 mx2.box.example.",
    ]
    assert texts(response.additional) == [
        "mx1.box.example. 300 IN A 127.83.0.1",
        "mx2.box.example. 300 IN A 127.83.0.2",
        "mx2.box.example. 300 IN AAAA ::1",
    ]


def test_names_are_matched_without_regard_to_case_and_the_question_is_echoed(zones):
    response = ask(zones, "BOX.exaMPLE", "TXT")
    assert response.question[0].name.to_text() == "BOX.exaMPLE."
    assert '"v=spf1 -all"' in response.answer[0].to_text()


@pytest.mark.parametrize(
    ("name", "kind", "rcode", "answers"),
    [
        ("box.example", "AAAA", "NOERROR", 0),
        ("_domainkey.box.example", "TXT", "NOERROR", 0),
        ("nobody.example", "MX", "NXDOMAIN", 0),
        ("null.test", "MX", "NOERROR", 1),
        ("test", "A", "NOERROR", 0),
    ],
)
def test_what_is_not_there_comes_with_the_soa(zones, name, kind, rcode, answers):
    response = ask(zones, name, kind)
    assert dns.rcode.to_text(response.rcode()) == rcode
    assert len(response.answer) == answers
    assert bool(response.authority) is not bool(answers)
    if not answers:
        assert response.authority[0].ttl == 60


@pytest.mark.parametrize(("name", "count"), [("alias.test", 2), ("out.test", 1)])
def test_aliases_are_followed_inside_the_zones(zones, name, count):
    response = ask(zones, name, "MX")
    assert response.rcode() == dns.rcode.NOERROR
    assert len(response.answer) == count


def test_an_alias_of_itself_ends(zones):
    assert ask(zones, "loop.test", "A").answer


@pytest.mark.parametrize(
    ("name", "rcode"), [("dead.test", "SERVFAIL"), ("x.dead.test", "SERVFAIL"), ("a.invalid", "REFUSED")]
)
def test_failures_are_as_chosen(zones, name, rcode):
    assert dns.rcode.to_text(ask(zones, name, "MX").rcode()) == rcode


def test_a_silent_name_gets_no_packet(zones):
    assert zones.answer(dns.message.make_query("mute.test", "A").to_wire(), udp=True) is None
    assert zones.queries == {"silent": 1}


def test_udp_says_tc_where_it_is_too_small_and_tcp_has_it_all(zones):
    name = "sel._domainkey.box.example"
    assert ask(zones, name, "TXT", use_edns=False).flags & dns.flags.TC
    assert ask(zones, name, "TXT", use_edns=0, payload=4096).flags & dns.flags.TC
    full = ask(zones, name, "TXT", udp=False)
    assert not full.flags & dns.flags.TC
    assert len(full.answer[0][0].strings) == 8
    assert ask(zones, "big.test", "A").flags & dns.flags.TC


@pytest.mark.parametrize("octets", [b"", b"x" * 11, b"\0\1\1\0\0\1\0\0\0\0\0\0\xff\xff", b"\xff" * 40])
def test_a_malformed_packet_is_dropped_or_called_so(zones, octets):
    answer = zones.answer(octets, udp=True)
    if answer is not None:
        assert answer[3] & 15 in (dns.rcode.FORMERR, dns.rcode.NOTIMP)


def test_a_repeated_question_gets_the_same_answer_under_its_own_id(zones):
    one, two = (ask(zones, "box.example", "MX") for _ in range(2))
    assert texts(one.answer) == texts(two.answer)
    assert zones.queries == {"answered": 2}


async def test_the_server_answers_over_udp_and_tcp(zones):
    server = DnsServer(zones)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        query = dns.message.make_query("box.example", "MX")
        with trio.fail_after(10):
            over_udp = await dns.asyncquery.udp(query, server.address, port=server.port)
            over_tcp = await dns.asyncquery.tcp(query, server.address, port=server.port)
            large = dns.message.make_query("sel._domainkey.box.example", "TXT")
            both, used_tcp = await dns.asyncquery.udp_with_fallback(large, server.address, port=server.port)
        nursery.cancel_scope.cancel()
    assert texts(over_udp.answer) == texts(over_tcp.answer)
    assert used_tcp
    assert both.answer
