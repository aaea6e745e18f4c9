"""A small HTTPS server for tests, which answers as its script says: honest policy hosts and hostile ones.

A `Manner` gets the TLS stream of one request, whose octets have been read, and does what it likes. Start it
with `await nursery.start(host.serve)`; `port` is then the one it listens on, on 127.0.0.1.
"""

import ssl
from collections.abc import Awaitable, Callable

import trio
import trustme

Manner = Callable[[trio.SSLStream[trio.SocketStream]], Awaitable[None]]


class PolicyHost:
    """Certificates are `authority`'s, for `names`."""

    def __init__(self, authority: trustme.CA, *names: str, manner: Manner | None = None) -> None:
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(*names).configure_cert(self._context)
        self.manner: Manner = manner or responds(b"")
        self.port = 0
        self.requests: list[bytes] = []
        self.connections = 0

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._serve_one, listeners)

    async def _serve_one(self, plain: trio.SocketStream) -> None:
        self.connections += 1
        stream = trio.SSLStream(plain, self._context, server_side=True, https_compatible=True)
        request = b""
        try:
            while b"\r\n\r\n" not in request:
                part = await stream.receive_some(4_096)
                if not part:
                    return
                request += part
            self.requests.append(request)
            await self.manner(stream)
        except trio.BrokenResourceError:
            return  # the client has had enough
        finally:
            await trio.aclose_forcefully(stream)


def responds(body: bytes, *, status: str = "200 OK", kind: str = "text/plain", more: str = "") -> Manner:
    """One whole response."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return says(head.encode() + body)


def says(octets: bytes) -> Manner:
    """Exactly these octets, then the end."""

    async def manner(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await stream.send_all(octets)

    return manner
