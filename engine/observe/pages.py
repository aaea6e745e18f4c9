"""A small HTTP server for pages that a monitor reads: one request, one answer, and the connection closes.

Whoever is slow, loud or many is cut off: every limit is below. A client never costs more than its place
for its time limit. What the pages say is the caller's; one whose maker fails is a 500 and a line in the
log, since whoever watches an engine must not be what stops it. Touches the listening socket.
"""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

import h11
import structlog
import trio
from msgspec import Struct

CONNECTIONS_MAX = 16  # one monitor needs one, two stand beside each other for safety; more are closed at once
REQUEST_OCTETS_MAX = 8_192  # Prometheus sends some 300
REQUEST_SECONDS = 5.0
ANSWER_SECONDS = 10.0  # Prometheus gives up after 10 s by default
READ_OCTETS = 4_096

TEXT = "text/plain; charset=utf-8"

log = structlog.get_logger("pages")


class Page(Struct, frozen=True):
    """An answer."""

    body: bytes
    content_type: str = TEXT
    status: int = 200


Maker = Callable[[str], Awaitable[Page]]  # of the header Accept


class Pages:
    """Serves `makers`, by path."""

    def __init__(self, makers: dict[str, Maker]) -> None:
        self._makers = makers
        self._open = 0

    def __repr__(self) -> str:
        return f"<Pages {', '.join(self._makers)}: {self._open}/{CONNECTIONS_MAX} connections>"

    async def listen(
        self, host: str, port: int, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled. Raises OSError when the address cannot be used."""
        listeners = await trio.open_tcp_listeners(port, host=host)
        task_status.started()
        await trio.serve_listeners(self.converse, listeners)

    async def converse(self, stream: trio.abc.Stream) -> None:
        """One connection; who called closes it, and with it what was not read."""
        if self._open >= CONNECTIONS_MAX:
            return
        self._open += 1
        try:
            await self._converse(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it went away
        finally:
            self._open -= 1

    async def _converse(self, stream: trio.abc.Stream) -> None:
        peer = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_OCTETS_MAX)
        page, head_only = await self._page(peer, stream)
        if page is None:
            return
        headers = [
            ("Content-Type", page.content_type),
            ("Content-Length", str(len(page.body))),
            ("Cache-Control", "no-store"),
            ("Connection", "close"),
        ]
        reason = HTTPStatus(page.status).phrase
        response = peer.send(h11.Response(status_code=page.status, headers=headers, reason=reason)) or b""
        with trio.move_on_after(ANSWER_SECONDS):
            await stream.send_all(response if head_only else response + page.body)

    async def _page(self, peer: h11.Connection, stream: trio.abc.Stream) -> tuple[Page | None, bool]:
        """What to answer, None = nothing; and whether the head of it is enough."""
        try:
            with trio.move_on_after(REQUEST_SECONDS) as patience:
                request = await _request(peer, stream)
        except h11.RemoteProtocolError as error:
            return _said(error.error_status_hint, "this is no request"), False
        if patience.cancelled_caught:
            return _said(408, "no request came in time"), False
        if request is None:
            return None, False
        return await self._answer(request), request.method == b"HEAD"

    async def _answer(self, request: h11.Request) -> Page:
        path = request.target.partition(b"?")[0].decode("latin-1")
        if request.method not in {b"GET", b"HEAD"}:
            return _said(405, "GET is all there is")
        maker = self._makers.get(path)
        if maker is None:
            return _said(404, f"there is {' and '.join(self._makers)}")
        accept = b",".join(value for name, value in request.headers if name == b"accept")
        try:
            return await maker(accept.decode("latin-1"))
        except Exception:
            log.exception("a page could not be made", path=path)
            return _said(500, "this page could not be made; the log says why")


async def _request(peer: h11.Connection, stream: trio.abc.Stream) -> h11.Request | None:
    """The head of the request; None when the client went away. What may follow it is not read."""
    while True:
        event = peer.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        peer.receive_data(bytes(await stream.receive_some(READ_OCTETS)))


def _said(status: int, text: str) -> Page:
    return Page(f"{text}\n".encode(), status=status)
