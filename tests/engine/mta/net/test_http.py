"""The guarded client, against real sockets with honest and hostile hosts on loopback."""

import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trustme

from engine.mta.net import http
from engine.mta.net.http import HttpClient, HttpResponse, HttpTrouble, HttpTroubleKind
from engine.mta.net.resolver import Resolver, ResolverConfig
from engine.mta.net.tls import verifying_context
from tests.fakes.dns import FakeDns, rcode
from tests.fakes.policy_host import Manner, PolicyHost, responds, says

pytestmark = pytest.mark.slow  # real sockets, processes or password hashes: a second in all

NAME = "mta-sts.a.example"
ZONE = {
    "a.example": """
mta-sts 60 IN A 127.0.0.1
two     60 IN A 127.0.0.2
two     60 IN A 127.0.0.1
v6      60 IN AAAA ::1
text    60 IN TXT "no address"
"""
}
OCTETS_MAX = 1_000


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@asynccontextmanager
async def fetching(
    authority: trustme.CA,
    manner: Manner,
    *names: str,
    allow_private: bool = True,
    trusted: trustme.CA | None = None,
) -> AsyncIterator[tuple[HttpClient, PolicyHost]]:
    dns_server = FakeDns(ZONE, {("slow.a.example", "A"): rcode(2)})
    host = PolicyHost(authority, *(names or (NAME,)), manner=manner)
    context = verifying_context()
    (trusted or authority).configure_trust(context)
    async with trio.open_nursery() as nursery:
        await nursery.start(dns_server.serve)
        await nursery.start(host.serve)
        resolver = Resolver(ResolverConfig(servers=(dns_server.address,), attempts=1), time.monotonic)
        yield HttpClient(resolver, context, allow_private=allow_private, port=host.port), host
        nursery.cancel_scope.cancel()


async def get(client: HttpClient, host: str = NAME, seconds: float = 5.0) -> HttpResponse | HttpTrouble:
    return await client.get(host, "/policy.txt", octets_max=OCTETS_MAX, deadline_seconds=seconds)


async def test_a_whole_response_comes_with_status_and_media_type(authority: trustme.CA) -> None:
    manner = responds(b"hello", status="404 Nothing", kind="Text/Plain; charset=utf-8")
    async with fetching(authority, manner) as (client, host):
        assert await get(client, NAME.upper()) == HttpResponse(404, "text/plain", b"hello")
        head = host.requests[0].decode()
        assert head.startswith("GET /policy.txt HTTP/1.1\r\n")
        assert f"host: {NAME}\r\n" in head.lower()
        assert "connection: close" in head.lower()


async def test_a_body_without_a_length_ends_with_its_chunks_or_the_connection(authority: trustme.CA) -> None:
    chunked = says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    async with fetching(authority, chunked) as (client, host):
        assert await get(client) == HttpResponse(200, "", b"abcde")
        host.manner = says(b"HTTP/1.0 200 OK\r\n\r\nabc")
        assert await get(client) == HttpResponse(200, "", b"abc")


async def test_the_proxy_of_the_environment_is_not_used(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with fetching(authority, responds(b"x")) as (client, _):
        assert isinstance(await get(client), HttpResponse)


@pytest.mark.parametrize("status", ["301 Moved", "307 Elsewhere"])
async def test_a_redirect_is_not_followed(authority: trustme.CA, status: str) -> None:
    manner = responds(b"", status=status, more=f"Location: https://{NAME}/other\r\n")
    async with fetching(authority, manner) as (client, host):
        response = await get(client)
        assert isinstance(response, HttpResponse)
        assert response.status == int(status[:3])
        assert host.connections == 1


@pytest.mark.parametrize("name", ["two.a.example", "v6.a.example"])
async def test_a_private_address_is_not_connected_to(authority: trustme.CA, name: str) -> None:
    async with fetching(authority, responds(b"x"), name, allow_private=False) as (client, host):
        trouble = await get(client, name)
        assert isinstance(trouble, HttpTrouble)
        assert trouble.kind is HttpTroubleKind.ADDRESS
        assert host.connections == 0


@pytest.mark.parametrize(
    "name",
    ["127.0.0.1", "localhost", "nowhere.a.example", "text.a.example", "slow.a.example", "a b", "1.2.3"],
)
async def test_a_name_without_an_address_is_trouble(authority: trustme.CA, name: str) -> None:
    async with fetching(authority, responds(b"x")) as (client, host):
        trouble = await get(client, name)
        assert isinstance(trouble, HttpTrouble)
        assert trouble.kind is HttpTroubleKind.RESOLVE
        assert trouble.detail.isprintable()
        assert host.connections == 0


async def test_the_next_address_is_tried(authority: trustme.CA) -> None:
    async with fetching(authority, responds(b"x"), "two.a.example") as (client, _):
        assert isinstance(await get(client, "two.a.example"), HttpResponse)


async def test_nobody_there_is_trouble(authority: trustme.CA) -> None:
    async with fetching(authority, responds(b"x")) as (client, _):
        trouble = await get(client, "v6.a.example")
        assert isinstance(trouble, HttpTrouble)
        assert trouble.kind is HttpTroubleKind.CONNECT


async def test_a_certificate_for_another_name_is_refused(authority: trustme.CA) -> None:
    async with fetching(authority, responds(b"x"), "www.a.example") as (client, host):
        trouble = await get(client)
        assert isinstance(trouble, HttpTrouble)
        assert trouble.kind is HttpTroubleKind.CERTIFICATE
        assert "www.a.example" not in trouble.detail
        assert not host.requests


async def test_a_certificate_of_an_unknown_authority_is_refused(authority: trustme.CA) -> None:
    other = trustme.CA(key_type=trustme.KeyType.ECDSA)
    async with fetching(authority, responds(b"x"), trusted=other) as (client, host):
        trouble = await get(client)
        assert isinstance(trouble, HttpTrouble)
        assert trouble.kind is HttpTroubleKind.CERTIFICATE
        assert not host.requests


@pytest.mark.parametrize(
    ("octets", "kind"),
    [
        (b"", HttpTroubleKind.PROTOCOL),
        (b"220 mail.example ESMTP\r\n", HttpTroubleKind.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", HttpTroubleKind.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", HttpTroubleKind.PROTOCOL),
        (b"HTTP/1.1 100 Go on\r\n\r\n" * 9, HttpTroubleKind.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", HttpTroubleKind.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", HttpTroubleKind.TOO_LARGE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999\r\n\r\n", HttpTroubleKind.TOO_LARGE),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_001, HttpTroubleKind.TOO_LARGE),
    ],
)
async def test_what_is_no_honest_response_is_trouble(
    authority: trustme.CA, octets: bytes, kind: HttpTroubleKind
) -> None:
    async with fetching(authority, says(octets)) as (client, _):
        trouble = await get(client)
        assert isinstance(trouble, HttpTrouble)
        assert trouble.kind is kind
        assert trouble.detail.isprintable()


@pytest.mark.slow
async def test_a_body_without_an_end_costs_its_limit_and_no_more(authority: trustme.CA) -> None:
    sent = 0

    async def flood(stream: trio.SSLStream[trio.SocketStream]) -> None:
        nonlocal sent
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        for _ in range(1_000):
            await stream.send_all(bytes(2**20))
            sent += 2**20

    async with fetching(authority, flood) as (client, _):
        trouble = await get(client)
        assert isinstance(trouble, HttpTrouble)
        assert trouble.kind is HttpTroubleKind.TOO_LARGE
        await trio.sleep(0.2)
        assert sent < 50 * 2**20, "the connection is closed"


@pytest.mark.slow
@pytest.mark.parametrize("dribbles", [False, True])
async def test_a_host_that_stalls_costs_the_deadline_and_no_more(
    authority: trustme.CA, dribbles: bool
) -> None:
    async def stall(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nX: ")
        while dribbles:
            await stream.send_all(b"x")
            await trio.sleep(0.02)
        await trio.sleep_forever()

    async with fetching(authority, stall) as (client, _):
        began = time.monotonic()
        trouble = await get(client, seconds=0.4)
        assert trouble == HttpTrouble(HttpTroubleKind.TIMEOUT, "not done within 0.4 s")
        assert time.monotonic() - began < 3.0


@pytest.mark.slow
async def test_a_port_that_never_speaks_costs_its_time_and_the_next_is_tried(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.2)
    async with fetching(authority, responds(b"x")) as (client, host):
        silent = await trio.open_tcp_listeners(0, host="127.0.0.1")
        client._port = silent[0].socket.getsockname()[1]
        trouble = await get(client)
        assert trouble == HttpTrouble(HttpTroubleKind.CONNECT, "not connected within 0.2 s")
        client._port = host.port
        assert isinstance(await get(client), HttpResponse)
        for listener in silent:
            await listener.aclose()


def test_a_context_that_verifies_nobody_is_a_mistake() -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    resolver = Resolver(ResolverConfig(servers=(("127.0.0.1", 53),)), time.monotonic)
    with pytest.raises(AssertionError):
        HttpClient(resolver, context)
