"""A small authoritative name server for the world's zones, UDP and TCP, on trio.

`Zones` answers one query packet from a plain dict of texts: AA, CNAME chains inside the zones, NODATA
and NXDOMAIN with the SOA (RFC 2308), addresses of MX hosts in the additional section, TC where UDP is
too small, and chosen names that fail (SERVFAIL, REFUSED) or stay silent. Every answer is kept ready-made
by query, so repeats cost a dictionary look-up. Malformed packets are dropped or answered FORMERR.
"""

import errno
import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import trio

TTL_SECONDS = 300
NEGATIVE_TTL_SECONDS = 60
UDP_OCTETS_DEFAULT = 512  # RFC 1035 4.2.1, without EDNS
UDP_OCTETS_MAX = 1232  # DNS flag day 2020
READY_ANSWERS_MAX = 200_000
CNAME_CHAIN_MAX = 8
PORT_TRIES = 20
TCP_IDLE_SECONDS = 10.0

Records = Mapping[str, Mapping[str, Iterable[str]]]
"""{"box.example": {"MX": ["10 mx1.box.example."], "TXT": ['"v=..."']}}: names without the last dot."""


class DnsTrouble(Enum):
    SERVFAIL = "servfail"
    REFUSED = "refused"
    SILENT = "silent"
    TRUNCATED = "truncated"  # every UDP answer says TC: ask again over TCP


class Zones:
    """Answers for `apexes` and everything below; other names are REFUSED.

    A trouble holds for its name and everything below it.
    """

    def __init__(
        self,
        records: Records,
        apexes: Iterable[str] = ("example", "test"),
        troubles: Mapping[str, DnsTrouble] | None = None,
    ) -> None:
        self.queries: Counter[str] = Counter()  # by outcome
        self._records = {dns.name.from_text(name): dict(types) for name, types in records.items()}
        self._apexes = [dns.name.from_text(apex) for apex in apexes]
        self._troubles = {dns.name.from_text(name): trouble for name, trouble in (troubles or {}).items()}
        self._inner = {parent for name in self._records for parent in _ancestors(name)}
        self._ready: dict[tuple[bytes, bool], tuple[str, bytes | None]] = {}

    def answer(self, query: bytes, *, udp: bool) -> bytes | None:
        """The reply packet, None to stay silent."""
        if len(query) < 12:
            return None
        ready = self._ready.get((query[2:], udp))
        if ready is None:
            ready = self._work_out(query, udp)
            if len(self._ready) < READY_ANSWERS_MAX:
                self._ready[query[2:], udp] = ready
        outcome, packet = ready
        self.queries[outcome] += 1
        return None if packet is None else query[:2] + packet

    def _work_out(self, wire: bytes, udp: bool) -> tuple[str, bytes | None]:
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            # Header only: same opcode and RD, QR set, FORMERR, no sections.
            return "formerr", bytes([wire[2] & 0x79 | 0x80, 1]) + bytes(8)
        if query.flags & dns.flags.QR:
            return "dropped", None
        response = dns.message.make_response(query, our_payload=UDP_OCTETS_MAX)
        if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
            response.set_rcode(dns.rcode.NOTIMP)
            return "notimp", response.to_wire()[2:]
        question = query.question[0]
        trouble = self._trouble(question.name)
        if trouble is DnsTrouble.SILENT:
            return "silent", None
        if trouble in (DnsTrouble.SERVFAIL, DnsTrouble.REFUSED):
            response.set_rcode(dns.rcode.from_text(trouble.value))
            return trouble.value, response.to_wire()[2:]
        outcome = self._fill(response, question.name, question.rdtype)
        octets_max = max(UDP_OCTETS_DEFAULT, min(query.payload, UDP_OCTETS_MAX)) if udp else 65_535
        packet = response.to_wire(max_size=65_535)
        if len(packet) > octets_max or (udp and trouble is DnsTrouble.TRUNCATED):
            response.answer, response.authority, response.additional = [], [], []
            response.flags |= dns.flags.TC
            return "truncated", response.to_wire()[2:]
        return outcome, packet[2:]

    def _trouble(self, name: dns.name.Name) -> DnsTrouble | None:
        hits = (self._troubles.get(each) for each in (name, *_ancestors(name)))
        return next((hit for hit in hits if hit is not None), None)

    def _fill(self, response: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> str:
        apex = next((apex for apex in self._apexes if name.is_subdomain(apex)), None)
        if apex is None:
            response.set_rcode(dns.rcode.REFUSED)
            return "refused"
        response.flags |= dns.flags.AA
        for _ in range(CNAME_CHAIN_MAX):
            alias = self._rrset(name, dns.rdatatype.CNAME)
            if alias is None or kind == dns.rdatatype.CNAME:
                break
            response.answer.append(alias)
            name = alias[0].target
        found = self._rrset(name, kind)
        if found is not None:
            response.answer.append(found)
            self._add_addresses(response, found)
            return "answered"
        if not name.is_subdomain(apex):
            return "answered"  # an alias that leads out of our zones
        response.authority.append(_soa(apex))
        if name in self._records or name in self._inner or name == apex:
            return "nodata"
        response.set_rcode(dns.rcode.NXDOMAIN)
        return "nxdomain"

    def _rrset(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.rrset.RRset | None:
        texts = self._records.get(name, {}).get(dns.rdatatype.to_text(kind))
        return dns.rrset.from_text_list(name, TTL_SECONDS, "IN", kind, list(texts)) if texts else None

    def _add_addresses(self, response: dns.message.Message, found: dns.rrset.RRset) -> None:
        if found.rdtype != dns.rdatatype.MX:
            return
        for exchange in dict.fromkeys(record.exchange for record in found):
            for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
                addresses = self._rrset(exchange, kind)
                if addresses is not None:
                    response.additional.append(addresses)


def _ancestors(name: dns.name.Name) -> list[dns.name.Name]:
    return [dns.name.Name(name.labels[index:]) for index in range(1, len(name.labels) - 1)]


def _soa(apex: dns.name.Name) -> dns.rrset.RRset:
    text = f"ns.{apex} hostmaster.{apex} 1 3600 600 86400 {NEGATIVE_TTL_SECONDS}"
    return dns.rrset.from_text(apex, NEGATIVE_TTL_SECONDS, "IN", "SOA", text)


class DnsServer:
    """Serves `zones` on one address; the same free port for UDP and TCP. Raises OSError if there is none."""

    def __init__(self, zones: Zones, address: str = "127.0.0.1", port: int = 0) -> None:
        self.zones = zones
        self.address = address
        self._udp, self._tcp = _bind_both(address, port)
        self.port: int = self._udp.getsockname()[1]

    def __repr__(self) -> str:
        return f"<DnsServer {self.address}:{self.port}: {self.zones.queries.total()} queries>"

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._tcp))
        with self._udp:
            async with listener, trio.open_nursery() as nursery:
                nursery.start_soon(self._serve_udp)
                task_status.started()
                await trio.serve_listeners(self._serve_tcp, [listener])

    async def _serve_udp(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._udp)
            while True:
                try:
                    query, peer = self._udp.recvfrom(4096)
                    answer = self.zones.answer(query, udp=True)
                    if answer is not None:
                        self._udp.sendto(answer, peer)
                except OSError:  # drained, or the peer's port is closed: UDP promises nothing
                    break

    async def _serve_tcp(self, stream: trio.SocketStream) -> None:
        buffer = b""
        with trio.move_on_after(TCP_IDLE_SECONDS):
            try:
                async for octets in stream:
                    buffer += octets
                    while len(buffer) >= 2 and len(buffer) >= (end := 2 + int.from_bytes(buffer[:2])):
                        answer = self.zones.answer(buffer[2:end], udp=False)
                        buffer = buffer[end:]
                        if answer is not None:
                            await stream.send_all(len(answer).to_bytes(2) + answer)
            except trio.BrokenResourceError:
                pass
            await stream.aclose()


def _bind_both(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for _ in range(PORT_TRIES):
        udp = socket.socket(family, socket.SOCK_DGRAM)
        tcp = socket.socket(family, socket.SOCK_STREAM)
        try:
            udp.setblocking(False)
            udp.bind((address, port))
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((address, udp.getsockname()[1]))
            tcp.listen(128)
        except OSError as error:
            udp.close()
            tcp.close()
            if port or error.errno != errno.EADDRINUSE:
                raise
        else:
            return udp, tcp
    raise OSError(errno.EADDRINUSE, f"no port of {address} is free for UDP and TCP")
