"""A cluster's hub in a folder, as `emass init --cluster` makes it, with its real nats-server.

The desk runs in the test's own loop, or a whole `emass up` beside it; both leave nothing behind. Wants
nats-server unpacked (PeerMissing says how).
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio

from bench.peers.nats import NatsServer
from bench.peers.place import home
from bench.peers.process import PeerFailed, free_port
from control.cli.__main__ import run
from control.cluster.authority import CERTIFICATE_FILE, fingerprint
from control.cluster.connecting import open_bus
from control.cluster.join_code import JoinCode
from control.cluster.join_desk import Desk
from control.cluster.nats_server import nats_argv, reload_nats, write_nats_config
from control.cluster.registry import NodeRole, Registry, with_code
from control.cluster.registry_file import changing
from engine.bus.nats import NatsBus
from engine.bus.nkeys import new_seed, public_of
from engine.config import Config, load_config

START_SECONDS_MAX = 40.0
ROOT = Path(__file__).parents[2]


class HubHouse:
    """The hub's folder, and its server while it runs."""

    def __init__(self, folder: Path, *settings: str) -> None:
        port = free_port("127.0.0.1")
        options = [part for each in settings for part in ("--set", each)]
        made = ["init", str(folder), "--cluster", "--algorithm", "ed25519-sha256"]
        assert run([*made, "--listen", f"127.0.0.1:{port}", *options]) == 0
        self.folder = folder
        self.file = folder / "emass.toml"
        self.config: Config = load_config(self.file, {})
        self.data = Path(self.config.node.data)

    def change(self, change: Callable[[Registry], Registry]) -> None:
        """Change the register, and have a running server follow."""
        changing(self.data, change, then=lambda after: write_nats_config(self.config, after, time.time()))
        reload_nats(self.data)

    def code(self, node: str, seconds: float = 600) -> JoinCode:
        """A code for a node."""
        seed, now = new_seed(), time.time()
        public = public_of(seed)
        self.change(lambda before: with_code(before, node, NodeRole.BROADCASTER, public, now, seconds))
        digest = fingerprint(Path(self.config.keys.folder) / CERTIFICATE_FILE)
        return JoinCode(self.config.bus.servers[0], digest, node, seed)

    @contextmanager
    def server(self) -> Iterator[None]:
        """The nats-server, alone."""
        environ = {"EMASS_NATS_SERVER": str(home("nats") / "usr/sbin/nats-server")}
        argv = nats_argv(self.config, environ)
        with (self.folder / "nats.log").open("ab") as log:
            process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *argv], stdout=log, stderr=log)
        try:
            wait_for(lambda: NatsServer._answers(self), "the nats-server")  # type: ignore[arg-type]
            yield
        finally:
            process.kill()
            process.wait()

    @property
    def address(self) -> tuple[str, int]:
        return self.config.bus.listen.host, self.config.bus.listen.port

    @asynccontextmanager
    async def desk(self, wall: Callable[[], float] = time.time) -> AsyncIterator[NatsBus]:
        """The desk at work."""
        async with on_bus(self.config, "agent") as bus, trio.open_nursery() as nursery:
            nursery.start_soon(Desk(self.config, bus, wall).run)
            yield bus
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def on_bus(config: Config, process: str) -> AsyncIterator[NatsBus]:
    """A node's process on the bus, once it is let in."""
    bus = open_bus(config, process)
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        with trio.fail_after(START_SECONDS_MAX):
            while not bus.online:
                await trio.sleep(0.01)
        try:
            yield bus
        finally:
            bus.close()


def wait_for(happened: Callable[[], bool], what: str) -> None:
    """Wait until it has, or fail with its name."""
    until = time.monotonic() + START_SECONDS_MAX
    while not happened():
        if time.monotonic() > until:
            raise PeerFailed(f"{what} did not come")
        time.sleep(0.05)


@contextmanager
def up(file: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A whole `emass up`, stopped politely at the end."""
    program = home("nats") / "usr/sbin/nats-server"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EMASS_")}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "control.cli", "up", "--config", str(file)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT,
            env=environ | {"EMASS_NATS_SERVER": str(program)},
        )  # fmt: skip
    try:
        wait_for(lambda: b" is up: " in log.read_bytes() or process.poll() is not None, f"{file}")
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(START_SECONDS_MAX)
        process.kill()
        process.wait()
