"""One broadcaster: its stores, its tree, its life. What entry points use.

`open_engine` opens spool and bus, makes the shared parts and runs the tree; inside the block there is
an `Engine` to submit to, to watch and to stop. Leaving the block stops the tree politely (open
transactions finish, everything is settled). Raises EngineError with the cure when something cannot be
used; SupervisorGaveUp when the tree crashed too often.
"""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import trio

from engine.actors.outlook import outlooks
from engine.actors.parts import ConfigFile, Parts
from engine.bus.local import LocalBus
from engine.config import ConfigError, load_config
from engine.config.replies import load_reply_rules
from engine.config.tables import Config
from engine.keyring import (
    TOKEN_KINDS,
    KeyringError,
    RowKeyring,
    create_master_key,
    derive_token_key,
    load_master_key,
)
from engine.model.address import AddressError, normalise_domain
from engine.model.egress import Source
from engine.model.submission import Submission, encode_submission
from engine.mta.compose.token import TokenKeys
from engine.mta.net.mx import Route
from engine.mta.net.resolver import Resolver, ResolverConfig
from engine.mta.policy.forecast import PathOutlook
from engine.mta.proto.smtp_options import Credentials
from engine.mta.spool.api import StateCounts
from engine.mta.spool.lmdb import LmdbSpool
from engine.mta.spool.tables import open_spool_environment
from engine.runtime.clock import Clock, SystemClock
from engine.runtime.supervisor import Tree
from engine.storage import Committer, Space, StorageError
from engine.tree import RESTARTS_MAX, engine_tree

TOKEN_KEY_ID = 0  # rotation comes with the control plane; older ids keep verifying


class EngineError(Exception):
    """The engine cannot start; the message names the thing and the cure."""


class Engine:
    """A running broadcaster."""

    def __init__(self, parts: Parts, tree: Tree) -> None:
        self.parts = parts
        self.tree = tree
        self.stopped = trio.Event()

    def __repr__(self) -> str:
        return f"<Engine {self.parts.config.node.name}: {self.parts.spool!r}>"

    @property
    def chunk_stream(self) -> str:
        return f"chunks.{self.parts.config.node.name}"

    async def submit(self, submissions: list[Submission]) -> None:
        """Put contents and chunks on the bus; durable there when this returns."""
        await self.parts.bus.publish(self.chunk_stream, [encode_submission(item) for item in submissions])

    def backlog(self) -> int:
        """Submissions on the bus that intake has not acknowledged."""
        return self.parts.bus.backlog(self.chunk_stream, "intake")

    def outlooks(self) -> list[PathOutlook]:
        """What is known of each path with work, for a forecast."""
        return outlooks(self.parts, trio.current_time())

    async def stop(self) -> None:
        """Stop politely: open transactions finish, everything is settled. The stores stay readable."""
        self.tree.stop()
        await self.stopped.wait()

    def hurry(self) -> None:
        """Stop firmly: nobody waits for a peer any more. Unanswered final dots are settled as ambiguous."""
        self.tree.stop()
        self.parts.domains.stop_all_firmly()
        self.parts.connections.stop_all_firmly()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the tree until it is stopped."""
        try:
            await self.tree.run(task_status=task_status)
        finally:
            self.stopped.set()

    def counts(self, campaign: int) -> StateCounts:
        return self.parts.spool.counts(campaign)


@asynccontextmanager
async def open_engine(
    config: Config,
    *,
    static_route: Route | None = None,
    credentials: Credentials | None = None,
    clock: Clock | None = None,
    extra_sync_seconds: float = 0.0,
    restarts_max: int = RESTARTS_MAX,
    config_path: Path | None = None,
) -> AsyncIterator[Engine]:
    """Run a broadcaster over `config.node.data`. `static_route` sends all mail to one host.

    `config_path` is the file that `config` was made from, for rules that are read anew while it runs.
    """
    clock = clock or SystemClock()
    data = Path(config.node.data)
    with ExitStack() as stores:
        try:
            replies = load_reply_rules(Path(config.engine.replies) if config.engine.replies else None)
            config_file = None
            if config_path is not None:
                config_file = ConfigFile(
                    config_path.absolute(),  # noqa: ASYNC240 - asks no disk
                    os.environ,
                    load_config(config_path, os.environ),
                )
            data.mkdir(mode=0o700, parents=True, exist_ok=True)  # noqa: ASYNC240 - before anything runs
            master = load_keys(config)
            environment = open_spool_environment(data / "spool", map_octets=config.limits.spool_map)
            stores.callback(environment.close)
            keyring = RowKeyring(data / "rows.keys", master)
            bus = LocalBus(data / "bus", config.node.name)
            stores.callback(bus.close_files)
        except (ConfigError, StorageError, KeyringError) as error:
            raise EngineError(str(error)) from error
        except OSError as error:
            raise EngineError(f"{data}: cannot be used as the data folder: {error.strerror}") from error
        committer = Committer(
            environment,
            group_seconds=config.engine.group_commit,
            extra_sync_seconds=extra_sync_seconds,
        )
        space = Space(
            environment,
            refuse_octets=config.limits.disk_refuse,
            stop_octets=config.limits.disk_stop,
            ballast_octets=config.limits.ballast,
        )
        space.measure()
        sources = egress_sources(config)
        parts = Parts(
            config=config,
            clock=clock,
            spool=LmdbSpool(environment, committer, keyring, producer=config.node.name),
            committer=committer,
            space=space,
            bus=bus,
            resolver=Resolver(resolver_config(config, sources), clock.monotonic),
            sources=sources,
            tokens=token_keys(master),
            replies=replies,
            dkim_keys={key.name: str(Path(config.keys.folder) / key.file) for key in config.keys.dkim},
            static_route=lambda: static_route,
            credentials=credentials,
            config_file=config_file,
        )
        tree: Tree
        spec = engine_tree(parts, lambda: tree.statistics(), restarts_max=restarts_max)  # noqa: PLW0108 - not yet bound
        tree = Tree(spec, clock=clock)
        engine = Engine(parts, tree)
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            try:
                yield engine
            finally:
                tree.stop()


def load_keys(config: Config) -> bytes:
    """The master key; a data folder that is used without `emass init` gets its own."""
    folder = Path(config.keys.folder)
    path = folder / config.keys.master
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        create_master_key(path)
    return load_master_key(path)


def token_keys(master: bytes) -> TokenKeys:
    return TokenKeys(
        current=TOKEN_KEY_ID,
        keys={TOKEN_KEY_ID: {kind: derive_token_key(master, TOKEN_KEY_ID, kind) for kind in TOKEN_KINDS}},
    )


def egress_sources(config: Config) -> tuple[Source, ...]:
    """The configured sources, or one that leaves the address to the system."""
    name = host_name()
    if not config.engine.source:
        return (Source("default", name),)
    return tuple(
        Source(rule.name, rule.ehlo_name or name, rule.address or None) for rule in config.engine.source
    )


def host_name() -> str:
    """Our EHLO name where none is configured: the host's, if it is a domain name at all."""
    name = socket.getfqdn()
    try:
        return normalise_domain(name)
    except AddressError:
        return "localhost.localdomain"


def resolver_config(config: Config, sources: tuple[Source, ...]) -> ResolverConfig:
    table = config.resolver
    return ResolverConfig(
        servers=tuple((server.host, server.port) for server in table.servers),
        allow_private=table.allow_private,
        timeout_seconds=table.timeout,
        attempts=table.attempts,
        own_names=tuple(source.ehlo_name for source in sources),
        smtp_port=config.engine.smtp_port,
    )
