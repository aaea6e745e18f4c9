"""Which bus a command means, and the way onto it: `--bus`, or the `[bus]` of the hub's `emass.toml`.

`--bus HOST:PORT[,HOST:PORT...]` is NATS, with the seed and the certificate that go with it; `--bus local:DIR`
is a folder that engines of this machine share. `on_bus` is a member for the length of a block. A command
that asks gives up when the bus does not answer within some seconds; one that runs for long waits. Raises
InputError for what cannot be used, CliError for a bus that is not there.
"""

import fcntl
import os
import re
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import trio
from msgspec import Struct

from control.cli.errors import CliError, InputError
from control.config import load
from engine.bus.api import STREAM_OCTETS_MAX, Bus
from engine.bus.local import LocalBus
from engine.bus.nkeys import decode_seed
from engine.config import BusKind, Config, HostPort, UnitError
from engine.keyring import KeyringError, read_secret
from engine.observe.logs import configure_logs
from engine.runtime.crash import leaf_of
from engine.storage import StorageError

NATS_PORT = 4222
ONLINE_SECONDS = 5.0  # for a command: a person waits
TAKEN_SECONDS = 5.0  # for another command that is this member just now
OPERATOR = "operator"
LOCAL_PREFIX = "local:"


class BusPlace(Struct, frozen=True, kw_only=True):
    """Where a cluster's bus is: a folder, or servers with what they want to be shown."""

    folder: str = ""
    servers: tuple[str, ...] = ()
    seed_file: str = ""
    ca_file: str = ""
    replicas: int = 1
    stream_octets_max: int = STREAM_OCTETS_MAX

    def __str__(self) -> str:
        return f"{LOCAL_PREFIX}{self.folder}" if self.folder else ", ".join(self.servers)


def bus_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options by which a command names a bus."""
    for option in (
        click.option(
            "--bus-ca", metavar="FILE", default="", help="Certificate that its servers are judged by."
        ),
        click.option("--bus-seed", metavar="FILE", default="", help="Our key on it (an nkey seed)."),
        click.option(
            "--bus",
            "bus_text",
            metavar="BUS",
            default="",
            help="HOST:PORT[,HOST:PORT...] or local:DIR. Default: [bus] of the configuration.",
        ),
    ):
        command = option(command)
    return command


def parse_bus(text: str, seed_file: str = "", ca_file: str = "") -> BusPlace:
    """What --bus names. Raises InputError."""
    if text.startswith(LOCAL_PREFIX):
        folder = text.removeprefix(LOCAL_PREFIX)
        if not folder or seed_file or ca_file:
            raise InputError(f"--bus {text}: write local:DIR, without --bus-seed and --bus-ca")
        return BusPlace(folder=str(Path(folder).absolute()))
    try:
        servers = tuple(str(HostPort.parse(part.strip(), NATS_PORT)) for part in text.split(","))
    except UnitError as error:
        raise InputError(f"--bus {text}: {error}") from None
    files = (str(Path(name).absolute()) if name else "" for name in (seed_file, ca_file))
    return BusPlace(servers=servers, seed_file=next(files), ca_file=next(files))


def bus_of_config(config: Config) -> BusPlace:
    """The bus of a node's configuration, as an operator of it."""
    table = config.bus
    if table.kind is BusKind.LOCAL:
        return BusPlace(folder=table.folder or str(Path(config.node.data) / "bus"))
    keys = Path(config.keys.folder)
    return BusPlace(
        servers=tuple(map(str, table.servers)),
        seed_file=str(keys / table.seeds / f"{OPERATOR}.seed") if table.seeds else "",
        ca_file=str(keys / table.ca_file) if table.ca_file else "",
        replicas=table.replicas,
        stream_octets_max=int(table.stream_max),
    )


@asynccontextmanager
async def on_bus(
    place: BusPlace, member: str = "", *, online_seconds: float | None = ONLINE_SECONDS
) -> AsyncIterator[Bus]:
    """The bus for the length of the block; without a name as a member that leaves nothing behind.

    CliError when it does not answer within `online_seconds`; with None it may come later.
    """
    bus = await _open(place, member or f"{OPERATOR}-{secrets.token_hex(4)}", temporary=not member)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(bus.run)
            try:
                if online_seconds is not None:
                    await _until_online(bus, place, online_seconds)
                yield bus
            finally:
                bus.close()
    finally:
        if isinstance(bus, LocalBus):
            bus.close_files()


async def _open(place: BusPlace, member: str, *, temporary: bool) -> Bus:
    if not place.folder:
        return _open_nats(place, member)
    folder = Path(place.folder)
    if not folder.is_dir():  # noqa: ASYNC240 - one stat at the start
        raise InputError(f"{folder}: is no folder of a bus (an engine makes it when it starts)")
    deadline = trio.current_time() + TAKEN_SECONDS
    while True:
        try:
            return LocalBus(folder, member, temporary=temporary)
        except StorageError as error:
            if trio.current_time() > deadline:
                raise CliError(str(error)) from error
        await trio.sleep(0.1)  # another command is this member for a moment


def _open_nats(place: BusPlace, member: str) -> Bus:
    try:
        from engine.bus.nats import NatsBus  # the extra `cluster`
    except ImportError as error:
        raise CliError(f"a bus over NATS needs the extra: pip install 'emass[cluster]' ({error})") from error
    servers = [HostPort.parse(text, NATS_PORT) for text in place.servers]
    ca_file = Path(place.ca_file) if place.ca_file else None
    if ca_file is not None and not ca_file.exists():
        raise InputError(f"{ca_file}: is not there; it is the certificate that the bus is judged by")
    return NatsBus(
        [(server.host, server.port) for server in servers],
        member,
        seed=_read_seed(place.seed_file),
        ca_file=ca_file,
        replicas=place.replicas,
        stream_octets_max=place.stream_octets_max,
    )


def _read_seed(name: str) -> str | None:
    if not name:
        return None
    try:
        seed = read_secret(Path(name)).decode().strip()
        decode_seed(seed)
    except KeyringError as error:
        raise InputError(str(error)) from None
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None
    return seed


async def _until_online(bus: Bus, place: BusPlace, seconds: float) -> None:
    with trio.move_on_after(seconds):
        while not bus.online:  # noqa: ASYNC110 - the bus has no bell for it
            await trio.sleep(0.02)
    if not bus.online:
        raise CliError(f"the bus at {place} does not answer (is the hub up? `emass status` on it)")


@asynccontextmanager
async def as_writer(place: BusPlace) -> AsyncIterator[Bus]:
    """A member of always the same name, one command at a time: what it writes stands, and is counted on."""
    if place.folder:
        async with on_bus(place, OPERATOR) as bus:
            yield bus
        return
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:40]
    member = f"{OPERATOR}-{host}"
    lock = await _take_lock(Path(tempfile.gettempdir()) / f"emass-{os.getuid()}-{member}.lock")
    try:
        async with on_bus(place, member) as bus:
            yield bus
    finally:
        os.close(lock)


async def _take_lock(path: Path) -> int:
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise CliError(f"{path}: cannot be opened: {error.strerror}") from error
    deadline = trio.current_time() + TAKEN_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if trio.current_time() > deadline:
                os.close(lock)
                raise CliError(f"{path}: another command is writing to the bus; try again") from None
        else:
            return lock
        await trio.sleep(0.1)


def place_of(bus_text: str, seed_file: str, ca_file: str, named_config: str | None) -> BusPlace:
    """The bus that a command's options mean. Raises InputError, ConfigError."""
    if bus_text:
        return parse_bus(bus_text, seed_file, ca_file)
    if seed_file or ca_file:
        raise InputError("--bus-seed and --bus-ca belong to --bus")
    return bus_of_config(load(named_config, os.environ, Path.cwd()))


def run_on_bus(work: Callable[[], Awaitable[Any]]) -> Any:
    """Run a command's work; what went wrong in it rises as it is, not in groups."""

    async def run() -> Any:
        try:
            return await work()
        except* Exception as group:
            raise leaf_of(group) from None

    configure_logs("error")  # a command says what it has to say; its output may be JSON
    return trio.run(run)
