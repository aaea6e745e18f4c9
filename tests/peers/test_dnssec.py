"""A private root with signed zones, NSD serving them and Unbound validating: what a resolver says of each.

The bit AD (authentic data) is what DANE rests on, so every way for it to be there or not is looked at. Real
processes and ports, hence the marker; both start in a tenth of a second.
"""

from collections.abc import Iterator

import dns.dnssec
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.zone
import pytest

from bench.peers import missing
from bench.peers.dnssec import Zone, build, private_dns

RECORD = "3 1 1 " + "ab" * 32
ZONES = (
    Zone(
        "signed.test",
        f"@ IN MX 10 mx\nmx IN A 127.0.9.1\n_25._tcp.mx IN TLSA {RECORD}\n_25._tcp.bad IN TLSA {RECORD}\n"
        "out IN CNAME mx.plain.test.\nin IN CNAME mx.second.example.\n",
        spoiled=(("_25._tcp.bad", "TLSA"),),
    ),
    Zone("second.example", "mx IN A 127.0.9.2\n"),
    Zone("plain.test", f"mx IN A 127.0.9.3\n_25._tcp.mx IN TLSA {RECORD}\n", signed=False),
)


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    for reason in filter(None, (missing("nsd"), missing("unbound"))):
        pytest.skip(reason)
    with private_dns(tmp_path_factory.mktemp("dns"), ZONES, "127.0.9.53") as address:
        yield address


@pytest.mark.peers
@pytest.mark.parametrize(
    ("name", "kind", "code", "authentic", "answers"),
    [
        ("signed.test", "MX", "NOERROR", True, 1),
        ("mx.signed.test", "A", "NOERROR", True, 1),
        ("mx.signed.test", "AAAA", "NOERROR", True, 0),
        ("_25._tcp.mx.signed.test", "TLSA", "NOERROR", True, 1),
        ("_25._tcp.nobody.signed.test", "TLSA", "NXDOMAIN", True, 0),
        ("_25._tcp.bad.signed.test", "TLSA", "SERVFAIL", False, 0),
        ("in.signed.test", "A", "NOERROR", True, 2),
        ("out.signed.test", "A", "NOERROR", False, 2),
        ("mx.second.example", "A", "NOERROR", True, 1),
        ("mx.plain.test", "A", "NOERROR", False, 1),
        ("_25._tcp.mx.plain.test", "TLSA", "NOERROR", False, 1),
        ("nobody.test", "A", "NXDOMAIN", True, 0),
        ("nobody", "A", "NXDOMAIN", True, 0),
    ],
)
def test_the_resolver_tells_what_is_proven(
    name: str, kind: str, code: str, authentic: bool, answers: int, resolver: tuple[str, int]
) -> None:
    question = dns.message.make_query(name, kind)
    question.flags |= dns.flags.AD
    answer = dns.query.udp(question, resolver[0], port=resolver[1], timeout=10)
    assert dns.rcode.to_text(answer.rcode()) == code
    assert bool(answer.flags & dns.flags.AD) is authentic
    assert len(answer.answer) == answers


def test_signatures_hold_but_the_spoiled_one() -> None:
    files, _ = build(ZONES, "127.0.9.53")
    origin = dns.name.from_text("signed.test")
    zone = dns.zone.from_text(files["signed.test"], origin=origin, relativize=False)
    keys = {origin: zone.find_rdataset(origin, "DNSKEY")}

    def check(owner: str) -> None:
        name = dns.name.from_text(owner, origin)
        records, signatures = zone.find_rrset(name, "TLSA"), zone.find_rrset(name, "RRSIG", "TLSA")
        dns.dnssec.validate(records, signatures, keys)

    check("_25._tcp.mx")
    with pytest.raises(dns.dnssec.ValidationFailure):
        check("_25._tcp.bad")


def test_an_unsigned_zone_has_no_delegation_signer_and_no_keys() -> None:
    files, anchor = build(ZONES, "127.0.9.53")
    assert set(files) == {".", "test", "example", "signed.test", "second.example", "plain.test"}
    top = dns.zone.from_text(files["test"], origin="test.", relativize=False)
    assert top.get_rdataset("signed.test.", "DS") is not None
    assert top.get_rdataset("plain.test.", "DS") is None
    assert "RRSIG" not in files["plain.test"]
    assert anchor.startswith(". IN DS ")


def test_a_zone_can_be_signed_again_and_gets_another_key() -> None:
    assert build(ZONES, "127.0.9.53")[1] != build(ZONES, "127.0.9.53")[1]
