"""Every key of a node is replaced while it sends: each message is signed, each token verifies, none is lost.

A whole engine that holds no master key and no DKIM key of its own, on a bus that it shares with a hub; the
hub's key office seals to it. Real signer processes, which are killed as well, and a real receiver.
"""

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import dkim
import pytest
import structlog
import trio
from msgspec.structs import replace

from bench.peers.nats import NatsServer
from control.cluster import key_rounds as rounds_module
from control.cluster.key_rounds import bring_token_id, key_rounds
from engine.app import Engine, open_engine
from engine.bus.local import LocalBus
from engine.bus.nats import NatsBus
from engine.config.bus import BusKind, BusTable
from engine.config.tables import Config, DkimKeyFile, KeysTable, NodeTable
from engine.config.units import Duration, HostPort
from engine.keyring import create_master_key, load_dkim_key, load_master_key
from engine.mta.compose.token import verify
from engine.sealing import NODE_BOX, create_box, former_of, rotate_box
from engine.token_ring import ring_for, save_ring
from tests.fakes.engine_house import (
    DOMAIN,
    engine_config,
    host_route,
    letter,
    numbered,
    signed,
    submit,
    until,
    weak_key,
)
from tests.fakes.smtp_peer import ModelPeer

pytestmark = pytest.mark.slow

MAILS = 1_500
NAME = "a"


class Receiver:
    """Keeps every message: (MAIL FROM, recipient, content)."""

    def __init__(self) -> None:
        self.port = 0
        self.accepted: list[tuple[str, str, bytes]] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        peer = ModelPeer("PIPELINING")
        with suppress(trio.BrokenResourceError):
            await stream.send_all(peer.banner())
            async for data in stream:
                answer = peer.receive(bytes(data))
                self.accepted += [(sender, people[0], content) for sender, people, content in peer.accepted]
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


class Hub:
    """Its folder, its member of the bus, and the office's rounds."""

    def __init__(self, folder: Path, server: NatsServer | None) -> None:
        keys = folder / "hub"
        keys.mkdir()
        create_master_key(keys / "master.key")
        weak_key(keys / "test.pem")
        table = KeysTable(folder=str(keys), dkim=(DkimKeyFile("test", "test.pem"),))
        self.config = Config(node=NodeTable(name="hub"), keys=table)
        self.ring = ring_for(load_master_key(keys / "master.key"))
        self.record = load_dkim_key(keys / "test.pem").record()
        self.bus: Any
        self.table = BusTable(folder=str(folder / "bus"), status_every=Duration(0.2))
        if server is None:
            self.bus = LocalBus(folder / "bus", "hub.agent")
        else:
            self.bus = NatsBus([server.address], "hub.agent", seed=None, ca_file=None)
            servers = (HostPort.parse(f"{server.address[0]}:{server.address[1]}"),)
            self.table = replace(
                self.table, kind=BusKind.NATS, servers=servers, seeds="", ca_file="", folder=""
            )


def node_config(folder: Path, ring: Any, bus: BusTable) -> Config:
    keys = folder / "a" / "keys"
    keys.mkdir(parents=True)
    create_box(keys / NODE_BOX)
    save_ring(keys / "ring.json", ring)
    config = engine_config(folder / "a", signers=2)
    return replace(config, node=replace(config.node, name=NAME), bus=bus)


@asynccontextmanager
async def at_work(folder: Path, server: NatsServer | None) -> AsyncIterator[tuple[Hub, Engine, Receiver]]:
    hub, receiver = Hub(folder, server), Receiver()
    async with trio.open_nursery() as nursery:
        await nursery.start(receiver.run)
        await nursery.start(hub.bus.run)
        await hub.bus.put("nodes", NAME, b'{"role": "broadcaster", "retired_at": null}')
        rounds = trio.CancelScope()

        async def office() -> None:
            with rounds:
                await key_rounds(hub.config, hub.bus)

        nursery.start_soon(office)
        config = node_config(folder, hub.ring, hub.table)
        async with open_engine(config, static_route=host_route("127.0.0.1", receiver.port)) as engine:
            yield hub, engine, receiver
        rounds.cancel()
        hub.bus.close()
        nursery.cancel_scope.cancel()
    if server is None:
        hub.bus.close_files()


def signer_pids() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if b"engine.actors.signer_process" in (entry / "cmdline").read_bytes() and parent == os.getpid():
                found.append(int(entry.name))
    return found


@pytest.fixture(params=["folder", "nats"])
def server(
    request: pytest.FixtureRequest, tmp_path: Path, require_peer: Callable[[str], None]
) -> Iterator[NatsServer | None]:
    """None: the bus is a folder that both share."""
    if request.param == "folder":
        yield None
        return
    require_peer("nats")
    with NatsServer(tmp_path / "nats") as running:
        yield running


async def test_every_key_is_replaced_while_mail_flows(
    tmp_path: Path, server: NatsServer | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds_module, "START_AHEAD_SECONDS", 1.0)
    monkeypatch.setattr(rounds_module, "ROUND_SECONDS", 0.3)
    with structlog.testing.capture_logs():
        async with at_work(tmp_path, server) as (hub, engine, receiver):
            await submit(engine, signed(), numbered(MAILS), size=100)
            await until(lambda: len(receiver.accepted) > 50)

            boxes = [Path(engine.parts.config.keys.folder) / box for box in (NODE_BOX, "signer.box")]
            for box in boxes:
                rotate_box(box)
            for pid in signer_pids():
                os.kill(pid, signal.SIGKILL)
            await bring_token_id(hub.config, hub.bus, engine.parts.clock.now, lambda _: None, early=True)
            await until(lambda: engine.parts.tokens.current == 1, 60)
            await trio.sleep(2.1)  # known before it signs: START_AHEAD_SECONDS, up to a whole second
            await submit(engine, signed(8), numbered(MAILS), size=100)
            await until(lambda: not any(former_of(box).exists() for box in boxes), 60)
            for pid in signer_pids():
                os.kill(pid, signal.SIGKILL)
            await submit(engine, letter(9), numbered(100), size=100)
            await until(lambda: len(receiver.accepted) == 2 * MAILS + 100, 90)
            await trio.sleep(0.5)
            assert len(receiver.accepted) == 2 * MAILS + 100
            tokens = engine.parts.tokens

    ids = [key_id(sender, tokens) for sender, _, _ in receiver.accepted]
    assert sorted(set(ids)) == [0, 1]
    assert ids.count(1) == MAILS + 100
    dkim_signed = [content for _, _, content in receiver.accepted if content.startswith(b"DKIM-Signature")]
    assert len(dkim_signed) == 2 * MAILS

    def record(name: bytes, timeout: int = 5) -> bytes:
        assert name.rstrip(b".") == f"test._domainkey.{DOMAIN}".encode()
        return hub.record.encode()

    for content in dkim_signed[::20]:
        assert dkim.verify(content, dnsfunc=record, minkey=1024)


def key_id(sender: str, tokens: Any) -> int:
    said = verify("b", tokens, sender.partition("@")[0].removeprefix("b-"), f"bounce.{DOMAIN}")
    assert said is not None, f"{sender}: a token of mail that is out does not verify"
    return said.key_id
