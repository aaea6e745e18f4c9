"""nats-py as the bus uses it: one connection to one server, with an nkey and TLS if they are wanted.

nats-py offers nkeys only through a package of that name, and goes on in the clear when a server does not ask
for TLS; and a message whose subject is no text, or whose headers are none, ends its reading for good, though
anybody may have sent it. All are mended here, in the one place that knows nats-py's inside (2.16). Its own
reconnecting is off: see nats_link. On trouble: whatever nats-py raises; ssl.SSLError for a server without TLS
where it is wanted; ValueError for a seed that is none.
"""

import base64
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg

from engine.bus import nkeys

PING_SECONDS = 4
PINGS_MAX = 2  # a connection that is silent for so many is dead


class Received(Struct, frozen=True):
    """A message. `status` is what the server says in place of a message, else empty."""

    subject: str
    reply: str
    data: bytes
    headers: Mapping[str, str]
    status: str


class Seed:
    """An nkey's secret; never shown."""

    __slots__ = ("_text", "public")

    def __init__(self, text: str) -> None:
        self.public = nkeys.public_of(text)
        self._text = text

    def __repr__(self) -> str:
        return f"<Seed of {self.public}>"

    def sign(self, nonce: str) -> bytes:
        """The signature as the server wants it."""
        return base64.b64encode(nkeys.sign(self._text, nonce.encode()))


class NatsClient(Client):
    """One connection."""

    def __init__(self, name: str, inbox: str, seed: Seed | None, tls: ssl.SSLContext | None) -> None:
        super().__init__()
        self._name = name
        self._inbox = inbox
        self._seed = seed
        self._tls = tls

    async def open(
        self,
        host: str,
        port: int,
        *,
        on_closed: Callable[[], Awaitable[None]],
        on_error: Callable[[Exception], Awaitable[None]],
        timeout_seconds: int,
    ) -> None:
        """Connect, or raise."""
        options: dict[str, Any] = {}
        if self._seed is not None:
            self._public_nkey = self._seed.public
            options["signature_cb"] = self._seed.sign
        if self._tls is not None:
            options.update(tls=self._tls, tls_hostname=host)
        await self.connect(
            [f"nats://{'[' + host + ']' if ':' in host else host}:{port}"],
            name=self._name,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=timeout_seconds,
            ping_interval=PING_SECONDS,
            max_outstanding_pings=PINGS_MAX,
            error_cb=on_error,
            closed_cb=on_closed,
            inbox_prefix=self._inbox,
            **options,
        )
        if self._tls is not None and not self._server_info.get("tls_required"):
            raise ssl.SSLError(f"{host}:{port} does not offer TLS; this bus is not used in the clear")

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        await super()._process_msg(sid, _as_text(subject), _as_text(reply), data, headers)

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except (ValueError, IndexError):  # the message itself is still to be counted
            return None


def _as_text(name: bytes) -> bytes:
    """A name that can be decoded: what is no text becomes something that is no name of ours."""
    return name.decode(errors="backslashreplace").encode()


def received(message: Msg) -> Received:
    headers: Mapping[str, str] = message.headers or {}
    return Received(message.subject, message.reply, message.data, headers, headers.get("Status", ""))
