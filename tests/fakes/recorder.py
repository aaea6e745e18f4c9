"""A receiver in a process of its own that notes each RCPT with its time, before it answers.

`recording` starts it on some loopback addresses with one port. Each line of its record is one `Noted`:
`rcpt` when a RCPT was read, `took` when the message behind it was taken, `login` after a good AUTH. Times
are `time.monotonic()`, one clock for all processes of a machine. `think_seconds` is waited before each
final answer. While the file `Recorder.moody` exists, a recipient "later..." is refused for now and the
connection of a "doubt..." is dropped without an answer to its final dot. With a login, by one of the
`methods`, mail is taken only after it.

Fast for what it is (20,000 messages a second on one core), and it pipelines; asyncio, since one callback
per read is all it needs.
"""

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from bench.world.process import child_environment
from bench.world.world import listen_everywhere

READY_SECONDS = 30.0


class Noted(NamedTuple):
    what: str
    at: float
    source: str  # the address that the peer came from
    host: str  # the address that it came to
    who: str


class Recorder:
    """The test's view of one recording process."""

    def __init__(self, record: Path, port: int, moody: Path) -> None:
        self.port = port
        self.moody = moody
        self._record = record
        self._read = 0
        self._rest = b""
        self._noted: list[Noted] = []
        self._rcpts: list[Noted] = []

    def __repr__(self) -> str:
        return f"<Recorder on port {self.port}: {len(self._noted)} lines read>"

    def noted(self) -> list[Noted]:
        """All that is noted by now; do not change it."""
        with self._record.open("rb") as file:
            file.seek(self._read)
            octets = file.read()
        self._read += len(octets)
        *lines, self._rest = (self._rest + octets).split(b"\n")
        for line in lines:
            what, at, source, host, who = line.decode().split("\t")
            noted = Noted(what, float(at), source, host, who)
            self._noted.append(noted)
            if what == "rcpt":
                self._rcpts.append(noted)
        return self._noted

    def rcpts(self, domain: str = "") -> list[Noted]:
        """Every RCPT (of a domain), in order; do not change it."""
        self.noted()
        return [one for one in self._rcpts if one.who.endswith(domain)] if domain else self._rcpts

    def took(self, domain: str = "") -> Counter[str]:
        """How often each recipient (of a domain) got a message."""
        return Counter(one.who for one in self.noted() if one.what == "took" and one.who.endswith(domain))


@asynccontextmanager
async def recording(
    folder: Path,
    *addresses: str,
    think_seconds: float = 0.0,
    login: tuple[str, str] | None = None,
    methods: str = "PLAIN LOGIN",
    port: int = 0,
) -> AsyncIterator[Recorder]:
    """A recorder over `folder` (made if missing) for the length of the block."""
    folder.mkdir(exist_ok=True)
    record, moody = folder / "record", folder / "moody"
    record.touch()
    said = json.dumps([str(record), str(moody), addresses, think_seconds, login, methods, port])
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.fakes.recorder", said],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = b""
        with trio.fail_after(READY_SECONDS):
            while not line.endswith(b"\n"):
                octets = await process.stdout.receive_some()
                assert octets, "the recorder did not start; its error output tells why"
                line += octets
        yield Recorder(record, int(line), moody)
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            await process.stdin.aclose()
            await process.stdout.aclose()


# --- the child's side --------------------------------------------------------------------------------------


class House:
    """What all sessions of the process share."""

    def __init__(
        self, record: str, moody: str, think_seconds: float, login: list[str] | None, methods: str
    ) -> None:
        self.moody = Path(moody)
        self.think_seconds = think_seconds
        self.login = login
        self.methods = methods
        self._record = os.open(record, os.O_WRONLY | os.O_APPEND)

    def __repr__(self) -> str:
        return "<House with a login>" if self.login else "<House>"

    def write(self, lines: list[str]) -> None:
        os.write(self._record, "".join(lines).encode())


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._buffer = b""
        self._rcpt = ""
        self._in_data = False
        self._thinking = False
        self._login_step: list[str] | None = None  # what AUTH LOGIN has heard
        self._may = house.login is None
        self._lines: list[str] = []

    def __repr__(self) -> str:
        return f"<Session with {self._source}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._source: str = transport.get_extra_info("peername")[0]
        self._host: str = transport.get_extra_info("sockname")[0]
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.write(b"220 recorder.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._thinking:
            self._work()

    def _work(self) -> None:
        """Read what there is; note it, then answer it all at once."""
        out = []
        buffer, at = self._buffer, 0
        while not self._thinking and not self._transport.is_closing():
            if self._in_data:
                end = buffer.find(b"\r\n.\r\n", at)
                if end < 0:
                    break
                at = end + 5
                self._in_data = False
                if self._rcpt.startswith("doubt") and self._house.moody.exists():
                    self._transport.abort()
                    break
                if seconds := self._house.think_seconds:
                    self._thinking = True
                    asyncio.get_running_loop().call_later(seconds, self._thought)
                else:
                    out.append(self._take())
                continue
            end = buffer.find(b"\r\n", at)
            if end < 0:
                break
            line = buffer[at:end].decode()
            at = end + 2
            out.append(self._answer(line))
        self._buffer = buffer[at:]
        self._say(out)

    def _thought(self) -> None:
        self._thinking = False
        if not self._transport.is_closing():
            self._say([self._take()])
            self._work()

    def _say(self, replies: list[str]) -> None:
        if self._lines:
            self._house.write(self._lines)
            self._lines = []
        if replies and not self._transport.is_closing():
            self._transport.write("".join(f"{reply}\r\n" for reply in replies).encode())
            if replies[-1].startswith("221"):
                self._transport.close()

    def _note(self, what: str, who: str) -> None:
        self._lines.append(f"{what}\t{time.monotonic():.6f}\t{self._source}\t{self._host}\t{who}\n")

    def _take(self) -> str:
        self._note("took", self._rcpt)
        self._rcpt = ""
        return "250 2.0.0 Taken"

    def _answer(self, line: str) -> str:
        if self._login_step is not None:
            return self._hear_login(line)
        verb, _, rest = line.partition(" ")
        match verb.upper():
            case "EHLO":
                more = [f"AUTH {self._house.methods}"] if self._house.login else []
                lines = ["recorder.test", "PIPELINING", "8BITMIME", *more]
                return "\r\n".join(f"250-{each}" for each in lines) + "\r\n250 SMTPUTF8"
            case "AUTH":
                return self._auth(rest)
            case "MAIL":
                self._rcpt = ""
                return "250 2.1.0 Ok" if self._may else "530 5.7.0 Log in first"
            case "RCPT":
                return self._hear_rcpt(rest)
            case "DATA":
                self._in_data = bool(self._rcpt)
                return "354 Go on" if self._rcpt else "554 5.5.1 For nobody"
            case "RSET" | "NOOP":
                return "250 2.0.0 Ok"
            case "QUIT":
                return "221 2.0.0 Bye"
        return "502 5.5.2 Not known"

    def _hear_rcpt(self, rest: str) -> str:
        who = rest.partition("<")[2].partition(">")[0]
        self._note("rcpt", who)
        if not self._may:
            return "530 5.7.0 Log in first"
        if who.startswith("later") and self._house.moody.exists():
            return "450 4.2.1 Come back later"
        self._rcpt = who
        return "250 2.1.5 Ok"

    def _auth(self, rest: str) -> str:
        kind, _, initial = rest.partition(" ")
        if kind.upper() == "PLAIN":
            _, user, password = base64.b64decode(initial).decode().split("\0")
            return self._check(user, password)
        self._login_step = []
        return "334 VXNlcm5hbWU6"

    def _hear_login(self, line: str) -> str:
        assert self._login_step is not None
        self._login_step.append(base64.b64decode(line).decode())
        if len(self._login_step) == 1:
            return "334 UGFzc3dvcmQ6"
        user, password = self._login_step
        self._login_step = None
        return self._check(user, password)

    def _check(self, user: str, password: str) -> str:
        self._may = [user, password] == self._house.login
        if not self._may:
            return "535 5.7.8 No"
        self._note("login", user)
        return "235 2.7.0 Welcome"


async def serve(said: str) -> None:
    record, moody, addresses, think_seconds, login, methods, port = json.loads(said)
    house = House(record, moody, think_seconds, login, methods)
    loop = asyncio.get_running_loop()
    sockets = listen_everywhere(addresses, port)
    for each in sockets:
        await loop.create_server(lambda: Session(house), sock=each, backlog=1_000)
    print(sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)  # whoever started it is gone then


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
