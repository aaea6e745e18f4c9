"""The engine's one way to fetch something over HTTPS from a host that a stranger named.

Guarded on every side, since whoever receives our mail chooses the name. It is resolved by our own resolver
and only a public address is connected to, the very one that was checked, so that no second DNS answer can
turn the request into our network. The certificate must be for the name, by public authorities or the
operator's. No redirect is followed, no proxy of the environment is used, nothing is decompressed; octets
and seconds are limited. Touches: DNS, one TCP connection for each request. Every trouble is a value.
"""

import socket
import ssl
from collections.abc import Sequence
from enum import Enum

import h11
import trio
from msgspec import Struct

from engine.mta.net.addresses import family_version, is_public
from engine.mta.net.mx import name_problem
from engine.mta.net.resolver import Resolver

HTTPS_PORT = 443
ADDRESSES_TRIED_MAX = 4  # two of each family is what careful hosts publish
CONNECT_SECONDS = 10.0  # for one address, TLS included; the next may be better
READ_OCTETS = 16_384  # one TLS record
HEADER_OCTETS_MAX = 16_384  # what large HTTP servers accept themselves
INTERIM_RESPONSES_MAX = 4  # 1xx; nobody who was not asked for one sends more


class HttpTroubleKind(Enum):
    RESOLVE = "resolve"  # the name has no address, or DNS does not say
    ADDRESS = "address"  # it points into a private network
    CONNECT = "connect"
    CERTIFICATE = "certificate"  # not for the name, or of nobody we trust
    PROTOCOL = "protocol"  # no HTTP, or not spoken to the end
    TOO_LARGE = "too large"
    TIMEOUT = "timeout"


class HttpTrouble(Struct, frozen=True):
    """Why there is no response. `detail` is printable."""

    kind: HttpTroubleKind
    detail: str


class HttpResponse(Struct, frozen=True):
    """What came, whatever the status. `content_type` is the media type alone, in lower case."""

    status: int
    content_type: str
    body: bytes


class HttpClient:
    """Makes GET requests, each on a connection of its own. Keeps nothing between them.

    `context` verifies; make it once. `allow_private` and another `port` are for tests and closed networks.
    """

    def __init__(
        self,
        resolver: Resolver,
        context: ssl.SSLContext,
        *,
        allow_private: bool = False,
        port: int = HTTPS_PORT,
    ) -> None:
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        self._resolver = resolver
        self._context = context
        self._allow_private = allow_private
        self._port = port

    async def get(
        self, host: str, path: str, *, octets_max: int, deadline_seconds: float
    ) -> HttpResponse | HttpTrouble:
        """`https://host/path`, the body whole. Takes at most `deadline_seconds`; never raises for a peer."""
        assert path.startswith("/")
        with trio.move_on_after(deadline_seconds):
            return await self._get(host.lower(), path, octets_max)
        return HttpTrouble(HttpTroubleKind.TIMEOUT, f"not done within {deadline_seconds:g} s")

    async def _get(self, host: str, path: str, octets_max: int) -> HttpResponse | HttpTrouble:
        if problem := name_problem(host, allow_private=False):
            return HttpTrouble(HttpTroubleKind.RESOLVE, f"the name is {problem}")
        found = await self._resolver.host_addresses(host)
        if not found.addresses:
            return HttpTrouble(HttpTroubleKind.RESOLVE, found.trouble or "the name has no address")
        usable = [item for item in found.addresses if self._allow_private or is_public(item)]
        if not usable:
            return HttpTrouble(HttpTroubleKind.ADDRESS, "the name has a private or reserved address")
        connected = await self._connect(host, usable[:ADDRESSES_TRIED_MAX])
        if isinstance(connected, HttpTrouble):
            return connected
        try:
            return await _converse(connected, host, path, octets_max)
        finally:
            await trio.aclose_forcefully(connected)  # a goodbye could wait for the peer

    async def _connect(
        self, host: str, addresses: Sequence[str]
    ) -> trio.SSLStream[trio.SocketStream] | HttpTrouble:
        trouble = HttpTrouble(HttpTroubleKind.CONNECT, "no address was tried")
        for address in addresses:
            with trio.move_on_after(CONNECT_SECONDS) as patience:
                connected = await self._connect_to(host, address)
                if not isinstance(connected, HttpTrouble):
                    return connected
                trouble = connected
            if patience.cancelled_caught:
                trouble = HttpTrouble(HttpTroubleKind.CONNECT, f"not connected within {CONNECT_SECONDS:g} s")
        return trouble

    async def _connect_to(self, host: str, address: str) -> trio.SSLStream[trio.SocketStream] | HttpTrouble:
        """Whatever way this ends but by a stream, the socket is closed."""
        family = socket.AF_INET6 if family_version(address) == 6 else socket.AF_INET
        plain = trio.socket.socket(family, socket.SOCK_STREAM)
        done = False
        try:
            await plain.connect((address, self._port))
            secured = trio.SSLStream(
                trio.SocketStream(plain), self._context, server_hostname=host, https_compatible=True
            )
            await secured.do_handshake()
            done = True
            return secured
        except OSError as error:
            return HttpTrouble(HttpTroubleKind.CONNECT, error.strerror or "cannot be connected to")
        except trio.BrokenResourceError as error:
            return _tls_trouble(error.__cause__)
        finally:
            if not done:
                plain.close()


async def _converse(
    stream: trio.SSLStream[trio.SocketStream], host: str, path: str, octets_max: int
) -> HttpResponse | HttpTrouble:
    peer = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADER_OCTETS_MAX)
    request = h11.Request(
        method="GET",
        target=path,
        headers=[("Host", host), ("User-Agent", "e-MASS"), ("Accept", "text/plain"), ("Connection", "close")],
    )
    try:
        await stream.send_all((peer.send(request) or b"") + (peer.send(h11.EndOfMessage()) or b""))
        return await _response(peer, stream, octets_max)
    except h11.RemoteProtocolError as error:
        return HttpTrouble(HttpTroubleKind.PROTOCOL, _printable(str(error)))
    except trio.BrokenResourceError:
        return HttpTrouble(HttpTroubleKind.PROTOCOL, "the connection was lost")


async def _response(
    peer: h11.Connection, stream: trio.SSLStream[trio.SocketStream], octets_max: int
) -> HttpResponse | HttpTrouble:
    head: h11.Response | None = None
    interim = 0
    body = bytearray()
    while True:
        event = peer.next_event()
        if event is h11.NEED_DATA:
            peer.receive_data(bytes(await stream.receive_some(READ_OCTETS)))
        elif isinstance(event, h11.InformationalResponse):
            interim += 1
            if interim > INTERIM_RESPONSES_MAX:
                return HttpTrouble(HttpTroubleKind.PROTOCOL, "no end of interim responses")
        elif isinstance(event, h11.Response):
            head = event
            length = _header(event, b"content-length")
            if length.isdigit() and int(length[:20]) > octets_max:
                return _too_large(octets_max)
        elif isinstance(event, h11.Data):
            if len(body) + len(event.data) > octets_max:
                return _too_large(octets_max)
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None, "a body has a head"
            kind = _header(head, b"content-type").partition(";")[0].strip().lower()
            return HttpResponse(head.status_code, _printable(kind), bytes(body))
        else:
            return HttpTrouble(HttpTroubleKind.PROTOCOL, "the connection was closed before the response")


def _header(head: h11.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in head.headers if key == name), "")


def _too_large(octets_max: int) -> HttpTrouble:
    return HttpTrouble(HttpTroubleKind.TOO_LARGE, f"more than {octets_max:,} octets")


def _tls_trouble(error: BaseException | None) -> HttpTrouble:
    if isinstance(error, ssl.SSLCertVerificationError):
        return HttpTrouble(HttpTroubleKind.CERTIFICATE, _printable(error.verify_message))
    reason = error.reason if isinstance(error, ssl.SSLError) else ""
    return HttpTrouble(HttpTroubleKind.CONNECT, _printable(f"no TLS: {reason or 'the connection was lost'}"))


def _printable(text: str) -> str:
    """A peer's words for a log: one short line."""
    return "".join(char if char.isprintable() else "?" for char in text)[:200]
