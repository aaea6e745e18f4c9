"""One broadcaster: its stores, its tree, its life. What entry points use.

`open_engine` opens spool and bus, makes the shared parts and runs the tree; inside the block there is
an `Engine` to submit to, to watch and to stop. Leaving the block stops the tree politely (open
transactions finish, everything is settled). Raises EngineError with the cure when something cannot be
used; SupervisorGaveUp when the tree crashed too often.
"""

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import trio

from engine.actors.dkim_keys import dkim_keys_of
from engine.actors.outlook import outlooks
from engine.actors.parts import ConfigFile, Parts
from engine.actors.policy_store import BusPolicyStore
from engine.bus.api import Bus, NodeBus
from engine.bus.local import LocalBus
from engine.config import BusKind, ConfigError, load_config
from engine.config.replies import load_reply_rules
from engine.config.tables import Config
from engine.keyring import (
    KeyringError,
    RowKeyring,
    create_master_key,
    read_secret,
    row_secret,
)
from engine.model.egress import Credentials, Source
from engine.model.submission import Submission, encode_submission
from engine.mta.compose.token import TokenKeys
from engine.mta.net.egress import EgressError, check_sources, egress_sources, read_egress, unlocked
from engine.mta.net.http import HttpClient
from engine.mta.net.mx import Route
from engine.mta.net.resolver import Resolver, ResolverConfig
from engine.mta.net.sts import StsPolicies
from engine.mta.net.tls import TlsContexts, verifying_context
from engine.mta.net.tls_policy import TlsPolicies
from engine.mta.policy.forecast import PathOutlook
from engine.mta.policy.suppression_codec import AddressHasher
from engine.mta.spool.api import StateCounts
from engine.mta.spool.lmdb import LmdbSpool
from engine.mta.spool.place import check_place
from engine.mta.spool.suppressions import open_suppressions
from engine.mta.spool.tables import open_spool_environment
from engine.runtime.clock import Clock, SystemClock
from engine.runtime.supervisor import Tree
from engine.storage import Committer, Space, StorageError
from engine.token_ring import TokenRing, load_ring
from engine.tree import RESTARTS_MAX, engine_tree


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
        await self.parts.cluster.publish(self.chunk_stream, [encode_submission(item) for item in submissions])

    def backlog(self) -> int:
        """Submissions on this node's own bus that intake has not acknowledged."""
        return self.parts.bus.backlog(self.chunk_stream, "intake")

    def outlooks(self) -> list[PathOutlook]:
        """What is known of each path with work, for a forecast."""
        return outlooks(self.parts, trio.current_time())

    async def stop(self) -> None:
        """Stop politely: open transactions finish, everything is settled. The stores stay readable."""
        self.tree.stop()
        await self.stopped.wait()

    async def stop_when_drained(self) -> None:
        """Stop politely once an operator's drain has come to its end."""
        await self.parts.drained.wait()
        await self.stop()

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
            sources = unlocked(config, egress_sources(config))
            egress = read_egress(config, sources)
            check_sources(sources)
            data.mkdir(mode=0o700, parents=True, exist_ok=True)  # noqa: ASYNC240 - before anything runs
            ring = load_keys(config)
            dkim_keys = dkim_keys_of(config)
            environment = open_spool_environment(data / "spool", map_octets=config.limits.spool_map)
            stores.callback(environment.close)
            rows = row_secret(Path(config.keys.folder), config.keys.master)
            keyring = RowKeyring(data / "rows.keys", rows)
            hasher = AddressHasher(ring.suppression)
            suppressions = open_suppressions(data / "suppressions", hasher)
            stores.callback(suppressions.environment.close)
            place = check_place(data / "spool")
            bus = LocalBus(data / "bus", config.node.name)
            stores.callback(bus.close_files)
            cluster = open_cluster(config, bus)
            if cluster is not bus and isinstance(cluster, LocalBus):
                stores.callback(cluster.close_files)
        except (ConfigError, StorageError, KeyringError, EgressError) as error:
            raise EngineError(str(error)) from error
        except OSError as error:
            raise EngineError(f"{data}: cannot be used as the data folder: {error.strerror}") from error
        committer = Committer(
            environment,
            group_seconds=config.engine.group_commit,
            extra_sync_seconds=extra_sync_seconds,
            patient=True,
        )
        space = Space(
            environment,
            refuse_octets=config.limits.disk_refuse,
            stop_octets=config.limits.disk_stop,
            ballast_octets=config.limits.ballast,
        )
        space.measure()
        resolver = Resolver(resolver_config(config, sources), clock.monotonic)
        parts = Parts(
            config=config,
            clock=clock,
            spool=LmdbSpool(environment, committer, keyring, producer=config.node.name),
            committer=committer,
            space=space,
            bus=bus,
            cluster=cluster,
            place=place,
            resolver=resolver,
            tls_contexts=make_tls_contexts(config),
            tls_policies=None if static_route else find_tls_policies(config, resolver, bus, clock),
            sources=sources,
            egress=egress,
            tokens=TokenKeys(ring.current, ring.keys),
            replies=replies,
            dkim_keys=dkim_keys,
            static_route=lambda: static_route,
            credentials=credentials,
            config_file=config_file,
            suppressions=suppressions,
        )
        parts.use_ring(ring)
        tree: Tree
        spec = engine_tree(parts, lambda: tree.statistics(), restarts_max=restarts_max)  # noqa: PLW0108 - not yet bound
        tree = Tree(spec, clock=clock)
        engine = Engine(parts, tree)
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            nursery.start_soon(engine.stop_when_drained)
            try:
                yield engine
            finally:
                tree.stop()
                parts.drained.set()  # nobody waits for it any more


def open_cluster(config: Config, bus: LocalBus) -> Bus:
    """The bus that this engine shares with others; its own where it is alone. Raises EngineError."""
    table = config.bus
    if table.kind is BusKind.LOCAL:
        return LocalBus(Path(table.folder), config.node.name) if table.folder else bus
    from engine.bus.nats import NatsBus  # the extra `cluster`: an engine alone does without

    folder = Path(config.keys.folder)
    try:
        seed = read_secret(folder / table.seeds / "engine.seed").decode().strip() if table.seeds else None
        return NatsBus(
            [(server.host, server.port) for server in table.servers],
            config.node.name,
            seed=seed,
            ca_file=folder / table.ca_file if table.ca_file else None,
            replicas=table.replicas,
            stream_octets_max=int(table.stream_max),
        )
    except (ValueError, OSError) as error:  # the error's own text may hold what the file holds
        raise EngineError(
            f"[bus] seeds or ca_file in {folder} cannot be used ({type(error).__name__}):"
            " put back this node's files, or join it anew"
        ) from None


def load_keys(config: Config) -> TokenRing:
    """The token keys and the key of suppressions; of a master key where there is one.

    A data folder that is used without `emass init` gets its own. Raises KeyringError.
    """
    table, folder = config.keys, Path(config.keys.folder)
    keyless = not (folder / table.master).exists() and not (folder / table.ring).exists()
    if keyless and config.bus.kind is BusKind.LOCAL:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        create_master_key(folder / table.master)
    return load_ring(folder, table.master, table.ring)


def make_tls_contexts(config: Config) -> TlsContexts:
    """What peers' certificates are judged by. Raises EngineError."""
    try:
        return TlsContexts(config.tls.ca_file or None)
    except OSError as error:
        why = error.strerror or str(error)
        raise EngineError(
            f"[tls] ca_file {config.tls.ca_file}: cannot be used ({why}): name a file of certificates in PEM"
        ) from error


def find_tls_policies(config: Config, resolver: Resolver, bus: NodeBus, clock: Clock) -> TlsPolicies | None:
    """What looks for the demands of recipients' domains; None when both kinds are off.

    The authorities have been read once before: `make_tls_contexts` says what is wrong with them.
    """
    table = config.tls
    if not (table.mta_sts or table.dane):
        return None
    sts = None
    if table.mta_sts:
        context = verifying_context(table.ca_file or None)
        client = HttpClient(resolver, context, allow_private=config.resolver.allow_private)
        sts = StsPolicies(resolver, client, BusPolicyStore(bus), clock.now)
    return TlsPolicies(resolver, sts, dane=table.dane)


def resolver_config(config: Config, sources: tuple[Source, ...]) -> ResolverConfig:
    table = config.resolver
    return ResolverConfig(
        trust_ad=table.trust_ad,
        servers=tuple((server.host, server.port) for server in table.servers),
        allow_private=table.allow_private,
        timeout_seconds=table.timeout,
        attempts=table.attempts,
        own_names=tuple(source.ehlo_name for source in sources),
        smtp_port=config.engine.smtp_port,
    )
