"""A client's message to a submission process, over the bus, through an engine, to a receiver: octet for
octet.

The process is started as `emass up` starts it, the engine sends what it finds, and the receiver keeps what
it got. Swaks is the client; dkimpy judges the signatures.
"""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import dkim
import pytest
import structlog
import trio

from bench.peers import missing
from bench.peers.certificate import self_signed
from bench.peers.swaks import swaks_command
from engine.app import Engine, open_engine
from engine.bus.api import Subscription
from engine.config import load_config
from engine.keyring import create_dkim_key
from engine.model.event import AttemptEvent, Delivered, Suppressed, decode_events
from engine.model.single import message_number
from engine.mta.compose.token import verify
from engine.mta.policy.suppression import EVERYWHERE, Reason, SuppressionOrder
from engine.runtime.supervised import READY_VARIABLE
from services.submission.accounts import write_accounts
from tests.fakes.engine_house import host_route, until
from tests.fakes.smtp_peer import ModelPeer
from tests.fakes.submission_house import PASSWORD, an_account, free_port

pytestmark = [pytest.mark.slow, pytest.mark.peers]

CONFIG = """
[node]
name = "node"
data = "data"

[limits]
spool_map = "256 MB"
disk_refuse = "32 MB"
disk_stop = "16 MB"
ballast = "1 MB"

[[engine.source]]
name = "out"
ehlo_name = "mail.shop.test"

[[keys.dkim]]
name = "shop"
file = "shop.pem"

[submission]
listen = ["127.0.0.1:{port}"]
hostname = "mail.shop.test"
tls_cert = "certificate.pem"
tls_key = "key.pem"
workers = {workers}

[[submission.domain]]
name = "shop.test"
return_path = "bounce.shop.test"
dkim = [{{ key = "shop", selector = "s1" }}]
"""
LETTER = (
    b"From: Ann <ann@shop.test>\r\nTo: b@x.test\r\nBcc: c@x.test\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    b"Gr\xc3\xbc\xc3\x9fe \r\n.dot\r\n..dots\r\n\r\nend\r\n\r\n"
)
BODY = LETTER[LETTER.index(b"\r\n\r\n") :]


class Receiver:
    """Keeps every message: (MAIL FROM, recipient, content)."""

    def __init__(self, *extensions: str) -> None:
        self.port = 0
        self.accepted: list[tuple[str, str, bytes]] = []
        self._extensions = extensions

    async def serve(self, stream: trio.SocketStream) -> None:
        peer = ModelPeer(*self._extensions)
        with suppress(trio.BrokenResourceError):
            await stream.send_all(peer.banner())
            async for data in stream:
                answer = peer.receive(data)
                for sender, people, content in peer.accepted:
                    if "CHUNKING" not in self._extensions:
                        content = (b"\r\n" + content).replace(b"\r\n..", b"\r\n.")[2:]  # noqa: PLW2901
                    self.accepted.append((sender, people[0], content))
                peer.accepted.clear()
                await stream.send_all(answer)
                if peer.closed:
                    break
        await stream.aclose()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self.serve, [listener])


class Place:
    """A node's folder, its submission process and its engine."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.port = free_port()
        self.file = folder / "emass.toml"
        self.file.write_text(CONFIG.format(port=self.port, workers=workers))
        (folder / "keys").mkdir(mode=0o700)
        self.record = create_dkim_key(folder / "keys" / "shop.pem")
        self_signed("127.0.0.1").write(folder)
        write_accounts(folder / "keys" / "accounts.json", {"ann": an_account()})

    def dns(self, name: bytes, timeout: int = 5) -> bytes:
        assert name.rstrip(b".") == b"s1._domainkey.shop.test"
        return self.record.encode()

    @asynccontextmanager
    async def submission(self) -> AsyncIterator[trio.Process]:
        """The process, ready; ended by its lifeline."""
        ready, told = os.pipe()
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "services.submission", "--supervised", str(self.file)],
            stdin=subprocess.PIPE,
            env={**os.environ, READY_VARIABLE: str(told)},
            pass_fds=(told,),
        )
        os.close(told)
        try:
            async with trio.lowlevel.FdStream(ready) as pipe:
                with trio.fail_after(60):
                    assert await pipe.receive_some(64) == b"ready\n"
            yield process
            assert process.stdin is not None
            await process.stdin.aclose()
            with trio.fail_after(30):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()

    async def swaks(self, to: str, letter: bytes, *options: str) -> str:
        """Run it; what it said."""
        data = self.folder / "letter.eml"
        stuffed = (b"\r\n" + letter).replace(b"\r\n.", b"\r\n..")[2:]
        await trio.Path(data).write_bytes(stuffed + b".")  # it ends the line itself
        words = swaks_command(
            *("--server", f"127.0.0.1:{self.port}", "--tls", "--auth", "PLAIN", "--auth-user", "ann"),
            *("--auth-password", PASSWORD, "--from", "ann@shop.test", "--to", to, "--data", f"@{data}"),
            *("--no-data-fixup", *options),
        )
        done = await trio.run_process(words, capture_stdout=True, check=False)
        return done.stdout.decode(errors="replace")


@asynccontextmanager
async def engine_at(place: Place, receiver: Receiver) -> AsyncIterator[Engine]:
    route = host_route("127.0.0.1", receiver.port)
    with structlog.testing.capture_logs():
        async with open_engine(load_config(place.file, {}), static_route=route) as engine:
            yield engine


async def read_events(events: Subscription, count: int) -> list[AttemptEvent]:
    found: list[AttemptEvent] = []
    with trio.fail_after(30):
        while len(found) < count:
            for delivery in await events.receive(64):
                batch = decode_events(delivery.payload)
                found += [event for event in batch.events if isinstance(event, AttemptEvent)]
    return found


def queued_id(said: str) -> str:
    return next(line for line in said.splitlines() if "queued as" in line).rpartition(" ")[2].strip()


@pytest.mark.skipif(bool(missing("swaks")), reason=missing("swaks") or "")
@pytest.mark.parametrize("extensions", [("8BITMIME",), ("PIPELINING", "8BITMIME", "CHUNKING")])
async def test_a_message_arrives_as_it_was_with_a_signature_that_verifies(
    tmp_path: Path, extensions: tuple[str, ...]
) -> None:
    place, receiver = Place(tmp_path, 1), Receiver(*extensions)
    async with trio.open_nursery() as nursery:
        await nursery.start(receiver.run)
        async with place.submission(), engine_at(place, receiver) as engine:
            events = engine.parts.cluster.subscribe("events.node", "test")
            said = await place.swaks("b@x.test", LETTER)
            await until(lambda: receiver.accepted)
            (event,) = await read_events(events, 1)
            tokens = engine.parts.tokens
        nursery.cancel_scope.cancel()
    ((sender, recipient, content),) = receiver.accepted
    assert recipient == "b@x.test"
    assert content.endswith(BODY)
    assert content.startswith(b"DKIM-Signature: ")
    assert b"\r\nBcc:" not in content
    assert dkim.verify(content, dnsfunc=place.dns)
    token, _, domain = sender.removeprefix("b-").partition("@")
    assert domain == "bounce.shop.test"
    payload = verify("b", tokens, token, "shop.test")
    number = message_number(f"{queued_id(said)}.0")
    assert payload is not None
    assert (payload.single, payload.subscriber) == (True, number)
    assert isinstance(event, Delivered)
    assert (event.subscriber, event.campaign) == (number, payload.campaign)


@pytest.mark.skipif(bool(missing("swaks")), reason=missing("swaks") or "")
async def test_swaks_is_told_what_is_wrong(tmp_path: Path) -> None:
    place = Place(tmp_path, 1)
    async with place.submission():
        assert "535 5.7.8" in await place.swaks("b@x.test", LETTER, "--auth-password", "wrong password")
        assert "550 5.7.1" in await place.swaks("b@x.test", LETTER.replace(b"shop.test", b"bank.test"))
        assert "550 5.7.1" in await place.swaks("b@x.test", LETTER, "--from", "ann@bank.test")
        large = LETTER + b"0123456789abcdef\r\n" * 640_000
        assert "552 5.3.4" in await place.swaks("b@x.test", large)


@pytest.mark.skipif(bool(missing("swaks")), reason=missing("swaks") or "")
async def test_ten_megabytes_arrive_whole_and_who_is_suppressed_gets_nothing(tmp_path: Path) -> None:
    place, receiver = Place(tmp_path, 1), Receiver("8BITMIME")
    large = LETTER + b"0123456789abcdef\r\n" * 570_000
    async with trio.open_nursery() as nursery:
        await nursery.start(receiver.run)
        async with place.submission(), engine_at(place, receiver) as engine:
            events = engine.parts.cluster.subscribe("events.node", "test")
            hasher = engine.parts.suppressions.hasher
            order = SuppressionOrder(
                adds=True,
                keys=(hasher.key_of("gone@x.test"),),
                at_ms=1,
                scope=EVERYWHERE,
                reason=Reason.HARD_BOUNCE,
                key_check=hasher.check,
            )
            await engine.parts.suppressions.apply(order)
            await place.swaks("b@x.test,gone@x.test,c@x.test", large)
            await until(lambda: len(receiver.accepted) == 2)
            told = await read_events(events, 3)
        nursery.cancel_scope.cancel()
    assert sorted(recipient for _, recipient, _ in receiver.accepted) == ["b@x.test", "c@x.test"]
    for _, _, content in receiver.accepted:
        assert content.endswith(large[large.index(b"\r\n\r\n") :])
        assert dkim.verify(content, dnsfunc=place.dns)
    assert sorted(type(event).__name__ for event in told) == ["Delivered", "Delivered", Suppressed.__name__]


async def test_several_workers_share_a_port_and_one_that_dies_comes_back(tmp_path: Path) -> None:
    place = Place(tmp_path, 2)
    async with place.submission() as parent:
        workers = children(parent.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        await until(lambda: len(set(children(parent.pid)) - {workers[0]}) == 2)
        with trio.fail_after(30):
            while True:
                with suppress(OSError):
                    async with await trio.open_tcp_stream("127.0.0.1", place.port) as stream:
                        assert (await stream.receive_some(100)).startswith(b"220 ")
                        break
                await trio.sleep(0.1)
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
    return found
