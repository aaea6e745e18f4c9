"""A small scripted DNS server for tests: a recursive one as the resolver sees it, over UDP and TCP.

It answers from zones in master-file text, follows CNAMEs inside them, gives NXDOMAIN and NODATA
with the zone's SOA, and keeps a list of what it was asked. It plays a validating resolver, too: answers
out of zones named as signed have the AD bit when the question asks for it. A `Script` for (name, type)
takes the question's message and ready-made response and returns the datagrams to send instead: none,
wrong ids, garbage, whatever a hostile server does. Start it with
`address = await nursery.start(server.serve)`.
"""

import socket
from collections.abc import Callable, Collection, Mapping, Sequence

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.zone
import trio

SOA = "@ 60 IN SOA ns hostmaster 1 3600 600 86400 30\n@ 60 IN NS ns\nns 60 IN A 192.0.2.53\n"
CNAME_LINKS_MAX = 20
UDP_OCTETS_MAX = 1_232
PORTS_TRIED_MAX = 50

Script = Callable[[dns.message.Message, dns.message.Message, str], Sequence[bytes]]


class FakeDns:
    """`zones`: origin -> master-file lines (SOA and NS are added). `scripts`: (name, type) -> Script.

    `signed`: origins whose answers, denial included, count as proven.
    """

    def __init__(
        self,
        zones: Mapping[str, str],
        scripts: Mapping[tuple[str, str], Script] | None = None,
        signed: Collection[str] = (),
    ) -> None:
        self.zones = {
            dns.name.from_text(origin): dns.zone.from_text(SOA + text, origin=origin, relativize=False)
            for origin, text in zones.items()
        }
        self.scripts = dict(scripts or {})
        self.signed = [dns.name.from_text(origin) for origin in signed]
        self.asked: list[tuple[str, str, str]] = []  # name, type, "udp" or "tcp"
        self.address: tuple[str, int] = ("127.0.0.1", 0)
        self.delay_seconds = 0.0

    async def serve(self, task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled; the started value is (host, port), the same for UDP and TCP."""
        listener, udp = _same_port()
        self.address = udp.getsockname()
        listeners = [trio.SocketListener(listener)]
        with udp:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, self._serve_tcp, listeners)
                task_status.started(self.address)
                while True:
                    wire, peer = await udp.recvfrom(4_096)
                    nursery.start_soon(self._answer_udp, udp, wire, peer)

    async def _answer_udp(self, udp: trio.socket.SocketType, wire: bytes, peer: tuple[str, int]) -> None:
        await trio.sleep(self.delay_seconds)
        for datagram in self.respond(wire, "udp"):
            await udp.sendto(datagram, peer)

    async def _serve_tcp(self, stream: trio.SocketStream) -> None:
        buffered = b""
        while part := await stream.receive_some():
            buffered += part
            length = int.from_bytes(buffered[:2], "big")
            if len(buffered) >= 2 + length:
                for answer in self.respond(buffered[2 : 2 + length], "tcp"):
                    await stream.send_all(len(answer).to_bytes(2, "big") + answer)
                return

    def respond(self, wire: bytes, transport: str) -> Sequence[bytes]:
        """The messages this server sends for one question."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        key = (question.name.to_text(omit_final_dot=True).lower(), question.rdtype.name)
        self.asked.append((*key, transport))
        response = self._from_zones(query)
        if script := self.scripts.get(key):
            return script(query, response, transport)
        if transport == "udp" and len(response.to_wire()) > UDP_OCTETS_MAX:
            return cut(query, response, transport)
        return [response.to_wire()]

    def _from_zones(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query, recursion_available=True)
        name, rdtype = query.question[0].name, query.question[0].rdtype
        if query.flags & dns.flags.AD:
            response.flags |= dns.flags.AD
        for _ in range(CNAME_LINKS_MAX):
            if not any(name.is_subdomain(origin) for origin in self.signed):
                response.flags &= ~dns.flags.AD
            zone = next((zone for origin, zone in self.zones.items() if name.is_subdomain(origin)), None)
            if zone is None:
                response.set_rcode(dns.rcode.NXDOMAIN)
                return response
            if records := zone.get_rrset(name, rdtype):
                response.answer.append(records)
                return response
            if alias := zone.get_rrset(name, dns.rdatatype.CNAME):
                response.answer.append(alias)
                name = alias[0].target
                continue
            assert zone.origin is not None
            soa = zone.get_rrset(zone.origin, dns.rdatatype.SOA)
            assert soa is not None
            response.authority.append(soa)
            if not any(known.is_subdomain(name) for known in zone.nodes):
                response.set_rcode(dns.rcode.NXDOMAIN)
            return response
        return response


def _same_port() -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
    """A TCP listener and a UDP socket on one free port of loopback."""
    for _ in range(PORTS_TRIED_MAX):
        listener = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(type=socket.SOCK_DGRAM)
        try:
            udp.bind(listener.getsockname())
        except OSError:  # somebody's UDP has it
            listener.close()
            udp.close()
            continue
        return trio.socket.from_stdlib_socket(listener), trio.socket.from_stdlib_socket(udp)
    raise OSError("no port is free for both UDP and TCP")


def silent(query: dns.message.Message, response: dns.message.Message, transport: str) -> Sequence[bytes]:
    """Never answers."""
    return []


def cut(query: dns.message.Message, response: dns.message.Message, transport: str) -> Sequence[bytes]:
    """Truncated over UDP, whole over TCP."""
    if transport == "tcp":
        return [response.to_wire()]
    short = dns.message.make_response(query)
    short.flags |= dns.flags.TC
    return [short.to_wire()]


def rcode(code: dns.rcode.Rcode) -> Script:
    """Answers with nothing but an rcode."""

    def script(query: dns.message.Message, response: dns.message.Message, transport: str) -> Sequence[bytes]:
        refusal = dns.message.make_response(query)
        refusal.set_rcode(code)
        return [refusal.to_wire()]

    return script


def records(*lines: str) -> Script:
    """Answers with exactly these records: `name ttl IN type data`, as the server wishes."""

    def script(query: dns.message.Message, response: dns.message.Message, transport: str) -> Sequence[bytes]:
        odd = dns.message.make_response(query)
        for line in lines:
            name, ttl, rdclass, rdtype, data = line.split(maxsplit=4)
            odd.answer.append(dns.rrset.from_text(name, int(ttl), rdclass, rdtype, data))
        return [odd.to_wire()]

    return script
