"""SMTP receivers that mean harm: each is one coroutine over one connection, listed by name in `PEERS`.

`hostile_peers` gives each a loopback address of its own at the port that all receivers of a test share.
What they send is made once, so that memory that grows is the client's.
"""

import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio

from bench.world.receiver import listen

NETWORK = "127.66.0"
DRIBBLE_SECONDS = 0.25  # below every time limit of the tests that use it
PIECE = b"x" * 65_536
LONG_LINE_PIECES = 160  # 10 MB

Peer = Callable[["Talk"], Awaitable[None]]


class Talk:
    """A connection, as the peers below use it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = b""

    async def say(self, *lines: str) -> None:
        await self.stream.send_all("".join(f"{line}\r\n" for line in lines).encode("latin-1"))

    async def hear(self) -> str:
        """The next line; raises EndOfChannel when the client has closed."""
        while b"\n" not in self._buffer:
            octets = await self.stream.receive_some(65_536)
            if not octets:
                raise trio.EndOfChannel
            self._buffer += octets
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode("latin-1").strip()

    async def until(self, verb: str, *extensions: str) -> None:
        """Be an honest server up to a verb, which has been heard and is not answered."""
        if verb == "CONNECT":
            return
        await self.say("220 mx.hostile.test ESMTP")
        while True:
            said = (await self.hear()).partition(" ")[0].upper()
            if said == verb:
                return
            match said:
                case "EHLO":
                    words = ["mx.hostile.test", *extensions]
                    await self.say(*(f"250-{word}" for word in words[:-1]), f"250 {words[-1]}")
                case "DATA":
                    await self.say("354 go on")
                    if verb == "DOT":
                        while await self.hear() != ".":
                            pass
                        return
                case "QUIT":
                    await self.say("221 bye")
                case _:
                    await self.say("250 2.0.0 ok")

    async def dribble(self, text: bytes = b"2") -> None:
        while True:
            await self.stream.send_all(text)
            await trio.sleep(DRIBBLE_SECONDS)

    async def flood(self, octets: bytes) -> None:
        while True:
            await self.stream.send_all(octets)


async def endless_banner(talk: Talk) -> None:
    await talk.flood(b"220-welcome\r\n" * 5_000)


async def long_line(talk: Talk) -> None:
    await talk.stream.send_all(b"220 ")
    for _ in range(LONG_LINE_PIECES):
        await talk.stream.send_all(PIECE)


async def silent(talk: Talk) -> None:
    await trio.sleep_forever()


async def dribbled_banner(talk: Talk) -> None:
    await talk.stream.send_all(b"220 ")
    await talk.dribble(b"x")


async def dribbled_lines(talk: Talk) -> None:
    await talk.until("EHLO")
    await talk.dribble(b"250-x\r\n")


async def dribbled_reply(talk: Talk) -> None:
    await talk.until("RCPT")
    await talk.stream.send_all(b"250 ")
    await talk.dribble(b"x")


async def dribbled_final_reply(talk: Talk) -> None:
    await talk.until("DOT")
    await talk.stream.send_all(b"250 ")
    await talk.dribble(b"x")


async def injected_behind_starttls(talk: Talk) -> None:
    await talk.until("STARTTLS", "STARTTLS")
    await talk.say("220 go ahead", "250-mx.hostile.test", "250 AUTH PLAIN")
    await talk.hear()


async def garbage_for_a_handshake(talk: Talk) -> None:
    await talk.until("STARTTLS", "STARTTLS")
    await talk.say("220 go ahead")
    await talk.stream.receive_some()
    await talk.stream.send_all(PIECE)


async def silent_in_the_handshake(talk: Talk) -> None:
    await talk.until("STARTTLS", "STARTTLS")
    await talk.say("220 go ahead")
    await trio.sleep_forever()


async def without_a_certificate(talk: Talk) -> None:
    """A handshake that no cipher of ours fits: the server has nothing to show."""
    await talk.until("STARTTLS", "STARTTLS")
    await talk.say("220 go ahead")
    stream = trio.SSLStream(talk.stream, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), server_side=True)
    await stream.do_handshake()


async def long_ehlo(talk: Talk) -> None:
    await talk.until("EHLO")
    await talk.say("250-mx.hostile.test", f"250 {'X' * 20_000}")


async def endless_ehlo(talk: Talk) -> None:
    await talk.until("EHLO")
    await talk.say("250-mx.hostile.test", *["250-XTENSION"] * 10_000, "250 OK")


async def control_octets(talk: Talk) -> None:
    await talk.until("RCPT")
    await talk.say("550-5.1.1 \x00\x1b[2J\x07no", "550 5.1.1 such\x85user\x9b31m")


async def no_reply_at_all(talk: Talk) -> None:
    await talk.until("MAIL")
    await talk.say("hello there", "what is it", "999 x")


async def two_replies_each(talk: Talk) -> None:
    await talk.until("MAIL", "PIPELINING")
    while True:
        await talk.say("250 ok", "250 ok")
        await talk.hear()


async def flood_while_we_send(talk: Talk) -> None:
    await talk.until("DATA")
    await talk.say("354 go on")
    await talk.flood(b"250 2.0.0 ok\r\n" * 5_000)


async def half_closed(talk: Talk) -> None:
    await talk.until("MAIL")
    await talk.stream.send_eof()
    await trio.sleep_forever()


async def deaf_after_the_content(talk: Talk) -> None:
    await talk.until("DOT")
    await trio.sleep_forever()


def closes_at(verb: str) -> Peer:
    async def close(talk: Talk) -> None:
        await talk.until(verb)

    return close


PEERS: dict[str, Peer] = {
    peer.__name__.replace("_", "-"): peer
    for peer in (
        *(endless_banner, long_line, silent, dribbled_banner, dribbled_lines, dribbled_reply),
        *(dribbled_final_reply, injected_behind_starttls, garbage_for_a_handshake, silent_in_the_handshake),
        *(without_a_certificate, long_ehlo, endless_ehlo, control_octets, no_reply_at_all, two_replies_each),
        *(flood_while_we_send, half_closed, deaf_after_the_content),
    )
} | {
    f"closes-at-{verb.lower()}": closes_at(verb)
    for verb in ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "DOT")
}


class Met:
    """How often each was connected to, and where each lives: domain -> address."""

    def __init__(self) -> None:
        self.connections: Counter[str] = Counter()
        self.addresses: dict[str, str] = {}


@asynccontextmanager
async def hostile_peers(port: int) -> AsyncIterator[Met]:
    """Serve `<name>.hostile.test` for each of PEERS."""
    met = Met()
    async with trio.open_nursery() as nursery:
        for number, (name, peer) in enumerate(PEERS.items(), 1):
            domain, address = f"{name}.hostile.test", f"{NETWORK}.{number}"
            met.addresses[domain] = address
            listener = listen(address, port)
            listener.setblocking(False)
            streams = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
            nursery.start_soon(_serve, streams, domain, peer, met)
        yield met
        nursery.cancel_scope.cancel()


async def _serve(listener: trio.SocketListener, domain: str, peer: Peer, met: Met) -> None:
    async def converse(stream: trio.SocketStream) -> None:
        met.connections[domain] += 1
        async with stream:
            with suppress(
                trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel, ssl.SSLError
            ):
                await peer(Talk(stream))

    await trio.serve_listeners(converse, [listener])
