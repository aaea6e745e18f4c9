"""One DNS question and what an answer to it means, read from the wire without trust.

`build_query` makes the octets of a question; `read_response` turns received octets into an
`Answer`, or None when they are no response to that question (wrong id, wrong question, garbage),
which the caller skips as the stray or forged datagram it is. Decides what counts as NODATA: only
a real one may lead to the implicit MX, so a referral, an unknown rcode or a broken chain is a
failure. Negative answers last as long as the zone's SOA says (RFC 2308). Every question asks
whether the answer is authentic (RFC 6840 5.7); whether its server is believed is for the caller.
Pure: the message library is used, no socket and no clock. Nothing here raises, whatever the octets.
"""

from enum import Enum

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
from dns.rdata import Rdata
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.PTR import PTR
from dns.rdtypes.ANY.TLSA import TLSA
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from msgspec import Struct

from engine.model.tls import TlsaRecord
from engine.mta.net.mx import Exchange

EDNS_PAYLOAD_OCTETS = 1_232  # the DNS flag day 2020 figure: fits every path unfragmented
RECORDS_MAX = 128  # kept per answer; mx.py cuts further
TEXT_OCTETS_MAX = 1_024  # of one TXT record; an _mta-sts or _smtp._tls record has some 50
TEXTS_MAX = 16  # records of one name; two that matter are a mistake of the zone already
TLSA_RECORDS_MAX = 32  # of one host; two or four are usual, and each is matched at every handshake
QUERY_FLAGS = dns.flags.RD | dns.flags.AD
FAILED_TTL_SECONDS = 5.0  # RFC 9520 3.2: failures are cached, at least 1 s, at most 5 min


class AnswerKind(Enum):
    FOUND = "found"
    NODATA = "nodata"  # the name exists, the type does not
    NXDOMAIN = "nxdomain"
    FAILED = "failed"  # nobody could tell: ask again later


class Question(Struct, frozen=True):
    """A name (as `dns.name` prints it, lower case, without the root dot) and a record type."""

    name: str
    rdtype: RdataType

    def __str__(self) -> str:
        return f"{self.name} {self.rdtype.name}"


class Answer(Struct, frozen=True):
    """What one question gave. One of `addresses`, `exchanges`, `texts`, `tlsa`, `names` is filled when FOUND.

    `alias`, with NODATA: the name at the end of an unfinished CNAME chain, to be asked next.
    `canonical`: the name at the end of a chain; empty when the name asked for is no alias.
    `secure`: the server vouches by its AD bit that DNSSEC proves all of it, aliases and denial included.
    """

    kind: AnswerKind
    ttl_seconds: float = 0.0
    addresses: tuple[str, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    alias: str = ""
    detail: str = ""
    canonical: str = ""
    secure: bool = False
    texts: tuple[bytes, ...] = ()
    tlsa: tuple[TlsaRecord, ...] = ()
    names: tuple[str, ...] = ()  # of PTR records


class Truncated(Struct, frozen=True):
    """The server has more than fits a datagram: ask the same over TCP (RFC 7766)."""


class EdnsRefused(Struct, frozen=True):
    """The server cannot read EDNS (RFC 6891 6.2.2): ask the same without it."""


def failed(detail: str, ttl_seconds: float = FAILED_TTL_SECONDS) -> Answer:
    """An answer that nobody could give; `detail` for the operator."""
    return Answer(AnswerKind.FAILED, ttl_seconds, detail=detail)


def is_domain_name(text: str) -> bool:
    """True when `text` fits the limits of RFC 1035 2.3.4, so that it can be asked for."""
    return _parse_name(text) is not None


def build_query(question: Question, message_id: int, *, edns: bool) -> dns.message.Message | None:
    """The query message, or None when the name is no domain name (a label or all of it too long)."""
    name = _parse_name(question.name)
    if name is None:
        return None
    if edns:
        return dns.message.make_query(
            name, question.rdtype, use_edns=0, payload=EDNS_PAYLOAD_OCTETS, id=message_id, flags=QUERY_FLAGS
        )
    return dns.message.make_query(name, question.rdtype, id=message_id, flags=QUERY_FLAGS)


def read_response(query: dns.message.Message, wire: bytes) -> Answer | Truncated | EdnsRefused | None:
    """Judge received octets as the response to `query`; None when they are not one."""
    try:
        response = dns.message.from_wire(wire)
        if not query.is_response(response):
            return None
        return _read(query, response)
    except Exception:
        # A parser of hostile octets fails in ways its documentation does not list. What cannot be
        # read may be forged, so it is skipped and the wait for the real response goes on; only one
        # that was cut in the middle of a record by its honest sender is worth a TCP connection.
        return Truncated() if _is_cut(query, wire) else None


def _is_cut(query: dns.message.Message, wire: bytes) -> bool:
    return len(wire) > 12 and wire[:2] == query.id.to_bytes(2, "big") and wire[2] & 0x82 == 0x82  # QR, TC


def _read(query: dns.message.Message, response: dns.message.Message) -> Answer | Truncated | EdnsRefused:
    if response.flags & dns.flags.TC:
        return Truncated()
    rcode = response.rcode()
    if rcode in (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS) and query.edns >= 0:
        return EdnsRefused()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return failed(f"server answered {dns.rcode.to_text(rcode)}")
    assert isinstance(response, dns.message.QueryMessage)
    try:
        chain = response.resolve_chaining()
    except dns.message.ChainTooLong:
        return failed("CNAME loop")
    except dns.message.AnswerForNXDOMAIN:
        return failed("answer that contradicts itself")
    ttl_seconds = float(chain.minimum_ttl)
    secure = bool(response.flags & dns.flags.AD)
    canonical = name_text(chain.canonical_name) if chain.cnames else ""
    if chain.answer is not None:
        return _found(list(chain.answer)[:RECORDS_MAX], ttl_seconds, canonical, secure=secure)
    authority = {rrset.rdtype for rrset in response.authority}
    if RdataType.SOA not in authority and not chain.cnames:
        ttl_seconds = 0.0  # RFC 2308 5: nobody says for how long, so it is not to be kept
    if rcode == dns.rcode.NXDOMAIN:
        return Answer(AnswerKind.NXDOMAIN, ttl_seconds, canonical=canonical, secure=secure)
    if RdataType.SOA not in authority:
        if chain.cnames:
            return Answer(AnswerKind.NODATA, ttl_seconds, alias=canonical, secure=secure)
        if RdataType.NS in authority:
            return failed("lame server: referral instead of an answer")  # RFC 2308 2.2.1
    return Answer(AnswerKind.NODATA, ttl_seconds, canonical=canonical, secure=secure)


def _found(records: list[Rdata], ttl_seconds: float, canonical: str, *, secure: bool) -> Answer:
    texts = [b"".join(record.strings) for record in records if isinstance(record, TXT)]
    tlsa = [
        TlsaRecord(record.usage, record.selector, record.mtype, record.cert)
        for record in records
        if isinstance(record, TLSA)
    ]
    return Answer(
        AnswerKind.FOUND,
        ttl_seconds,
        addresses=tuple(record.address for record in records if isinstance(record, A | AAAA)),
        exchanges=tuple(
            Exchange(record.preference, name_text(record.exchange))
            for record in records
            if isinstance(record, MX)
        ),
        canonical=canonical,
        secure=secure,
        texts=tuple(text for text in texts if len(text) <= TEXT_OCTETS_MAX)[:TEXTS_MAX],
        tlsa=tuple(tlsa[:TLSA_RECORDS_MAX]),
        names=tuple(name_text(record.target) for record in records if isinstance(record, PTR)),
    )


def _parse_name(text: str) -> dns.name.Name | None:
    try:
        return dns.name.from_text(text)
    except (dns.exception.DNSException, UnicodeError, ValueError):
        return None


def name_text(name: dns.name.Name) -> str:
    """A name in lower case without the root dot; odd octets come out as `\\ddd`, the root as "."."""
    return name.to_text(omit_final_dot=True).lower()
