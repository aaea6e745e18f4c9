"""One seed, lived through: the world, the engine's process and its restarts, the feeder, the end.

The engine's tree is the real one. A process that dies is cancelled after its disk, bus and network have
been cut off, so that nothing it still does on its way out counts; the next incarnation gets the same disk
and bus. The run is over when every envelope is final or held and the tree has stopped politely, or when
virtual time runs out, which is a finding of its own.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
import trio
from msgspec import Struct

from bench.world.provider import Provider
from engine.actors.parts import Parts
from engine.model.event import EventBatch, decode_events
from engine.model.submission import SubmitChunk, SubmitContent, encode_submission
from engine.mta.net.mx import site_key
from engine.mta.spool.api import Listed, StateCounts
from engine.mta.spool.memory import Disk
from engine.runtime.answer import ActorDied
from engine.runtime.child import Killed
from engine.runtime.clock import EPOCH_SECONDS, SystemClock
from engine.runtime.crash import leaves_of
from engine.runtime.supervisor import SupervisorGaveUp, Tree
from engine.tree import engine_tree
from tests.fakes.engine_house import chunks, letter, memory_parts
from tests.sim.clock import JumpingClock
from tests.sim.faults import STEPS_MAX, InjectedBug, Saboteur, pick
from tests.sim.names import SimResolver
from tests.sim.network import Peer, SimNetwork
from tests.sim.scenario import Blow, Scenario, scenario
from tests.sim.store import TOLD_TO_FAIL, BusStore, SimBus, SimSpool
from tests.sim.witness import CrashFacts, Witness

RESTARTS_MAX = 1_000  # the saboteur strikes more often than any engine crashes
END_SECONDS = 1_500.0  # two silent peers in a row, after the last envelope's expiry
STOP_SECONDS = 700.0  # a stop waits for the peers' last replies
LOOK_SECONDS = 0.5
INJECTED = (Killed, InjectedBug, ActorDied)  # whoever asked a dead actor may die of it


class Evidence(Struct):
    """Everything that the checks need, and nothing that they could change."""

    scenario: Scenario
    witness: Witness
    batches: list[EventBatch]
    counts: dict[int, StateCounts]
    listing: list[Listed]
    open_leases: int
    unsettled: int
    trouble: list[str]  # what the run itself had to say: it stalled, it gave up
    steps: int
    seconds: float

    @property
    def transcript(self) -> str:
        return self.witness.transcript


def run_seed(seed: int, tell: Callable[[str], None] | None = None) -> Evidence:
    """Live through a seed."""
    clock = JumpingClock()
    house = House(scenario(seed), clock, tell)
    with deterministic(seed), quiet(house.heard):
        trio.run(house.live, clock=clock, instruments=[house.saboteur])
    for error in (clock.error, house.saboteur.error):
        if error is not None:
            raise error
    return house.evidence()


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Let trio choose the order of tasks by seed: it sorts them before it shuffles."""
    core: Any = trio._core._run
    before, state = core._ALLOW_DETERMINISTIC_SCHEDULING, core._r.getstate()
    core._ALLOW_DETERMINISTIC_SCHEDULING = True
    core._r.seed(seed)
    try:
        yield
    finally:
        core._ALLOW_DETERMINISTIC_SCHEDULING = before
        core._r.setstate(state)


@contextmanager
def quiet(hear: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Log lines go to `hear` as values: formatting them would cost more than the run."""
    before = structlog.get_config()

    def take(logger: Any, method: str, event: Any) -> Any:
        event["level"] = method
        hear(event)
        raise structlog.DropEvent

    structlog.configure(processors=[take], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)


class House:
    """One run."""

    def __init__(self, script: Scenario, clock: JumpingClock, tell: Callable[[str], None] | None) -> None:
        self.script = script
        self.witness = Witness(tell)
        self._clock = clock
        dice = random.Random(script.seed)
        self._dice = {
            name: random.Random(dice.getrandbits(64))
            for name in ("net", "disk", "dns", "engine", "bus", "blows", "feed")
        }
        self.saboteur = Saboteur(script.blows, self._strike, self._overrun)
        self.network = SimNetwork(self._peers(), script.net, clock, self._dice["net"], self.witness)
        self._disk = Disk()
        self._disk.epoch = f"{script.seed:016x}"
        self._bus_store = BusStore()
        self._wall_step = 0.0
        self._fed = False
        self._trouble: list[str] = []
        self._scope: trio.CancelScope | None = None  # of the living incarnation
        self._parts: Parts
        self._tree: Tree | None = None
        self._spool: SimSpool
        self._bus: SimBus
        self._ended_at = 0.0

    # --- the run -----------------------------------------------------------------------------------------

    async def live(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed)
            with trio.move_on_after(END_SECONDS) as self._patience:
                while not await self._incarnation():
                    await trio.sleep(self._dice["blows"].uniform(0.0, 2.0))
            if self._patience.cancelled_caught:
                self._trouble.append(f"not over after {END_SECONDS:g} virtual seconds: {self._tree!r}")
            self._ended_at = trio.current_time()
            nursery.cancel_scope.cancel()
        for provider in self._providers.values():
            errors = provider.tally.protocol_errors.copy()
            if provider.tally.counts["pipelining_refused"]:
                # It refuses what it had read behind a final dot; the rest of that flight comes out of
                # sequence, and a sender who was promised PIPELINING is not to blame.
                for kind in ("rcpt_out_of_sequence", "data_out_of_sequence"):
                    errors.pop(kind, None)
            self.witness.protocol_errors.update(errors)

    def _peers(self) -> dict[str, Peer]:
        world = self.script.world
        self._providers = {
            each.name: Provider(
                each.name, each.manners, seed=world.seed, domains=each.domains, sink=lambda messages: None
            )
            for each in world.providers
        }
        return {
            world.addresses_of_hosts[host.name]: Peer(
                host.name,
                site_key([one.name for one in site.hosts]),
                self._providers[each.name] if host.listens else None,
            )
            for each in world.providers
            for site in each.sites
            for host in site.hosts
        }

    async def _incarnation(self) -> bool:
        """One life of the engine's process. True when its work is done and it stopped politely."""
        self.witness.starts.append(trio.current_time())
        self.witness.note("process starts", len(self.witness.starts))
        parts = self._parts = self._make_parts()
        tree: Tree
        spec = engine_tree(parts, lambda: tree.statistics(), restarts_max=RESTARTS_MAX)  # noqa: PLW0108 - not yet bound
        tree = self._tree = Tree(spec, clock=parts.clock)
        done = False
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            self._stopped = trio.Event()
            try:
                nursery.start_soon(self._run_tree, tree)
                while not self._finished() and not nursery.cancel_scope.cancel_called:
                    await trio.sleep(LOOK_SECONDS)
                self.witness.note("all is done")
                tree.stop()
                with trio.move_on_after(STOP_SECONDS):
                    await self._stopped.wait()
                    done = not nursery.cancel_scope.cancel_called
                if not self._stopped.is_set():
                    self._trouble.append(f"did not stop within {STOP_SECONDS:g} virtual seconds")
                    done = True
            finally:
                nursery.cancel_scope.cancel()
        self._scope = None
        return done and self._finished()

    async def _run_tree(self, tree: Tree) -> None:
        try:
            await tree.run()
        except SupervisorGaveUp as error:
            leaves = leaves_of(error.__cause__) if error.__cause__ is not None else []
            self.witness.note("gave up", error)
            if not all(is_injected(leaf) for leaf in leaves):
                self._trouble.append(f"the tree gave up: {error}")
            self._die()
        finally:
            self._stopped.set()

    def _make_parts(self) -> Parts:
        script, dice = self.script, self._dice
        parts = memory_parts(sources=script.sources, **script.engine)
        self._spool = SimSpool(self._disk, script.disk, self._clock, dice["disk"], self.witness)
        self._bus = SimBus(
            "node", self._bus_store, dice["bus"], refusing=script.bus_refusing, witness=self.witness
        )
        shared: Any = parts
        shared.spool = shared.committer = self._spool
        shared.bus = shared.cluster = self._bus
        shared.resolver = SimResolver(script.world, script.dns, dice["dns"], self.witness)
        shared.network = self.network
        shared.dice = dice["engine"]
        shared.clock = SystemClock(wall=self._wall, monotonic=trio.current_time)
        return parts

    def _wall(self) -> float:
        return EPOCH_SECONDS + trio.current_time() + self._wall_step

    def _finished(self) -> bool:
        if not self._fed:
            return False
        for mailing in self.script.mailings:
            counts = self._spool.counts(mailing.campaign)
            if counts.accepted < len(mailing.recipients) or counts.deferred:
                return False
        return True

    # --- the mail ----------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Somebody else's process, which never dies; what it is not sure of it submits again."""
        bus = SimBus("feeder", self._bus_store, self._dice["feed"], refusing=0.0, witness=self.witness)
        async with trio.open_nursery() as nursery:
            for mailing in self.script.mailings:
                nursery.start_soon(self._submit, bus, mailing)
        self._fed = True

    async def _submit(self, bus: SimBus, mailing: Any) -> None:
        dice, stream = self._dice["feed"], "chunks.node"
        await trio.sleep(mailing.starts_at)
        content = letter(mailing.campaign, workspace=mailing.workspace, message_class=mailing.message_class)
        await bus.publish(stream, [encode_submission(SubmitContent(content))])
        made = chunks(
            mailing.recipients,
            campaign=mailing.campaign,
            size=mailing.chunk_size,
            expires_at=EPOCH_SECONDS + mailing.starts_at + mailing.lives_seconds,
        )
        for chunk in made:
            payload = encode_submission(SubmitChunk(chunk))
            await bus.publish(stream, [payload])
            if self.script.resubmits and dice.random() < 0.3:
                await bus.publish(stream, [payload])
            await trio.sleep(dice.choice((0.0, 0.0, 0.3)))

    # --- what goes wrong ---------------------------------------------------------------------------------

    def _strike(self, blow: Blow) -> bool:
        """False when there is nobody to be hit just now."""
        if self._scope is None or self._tree is None:
            return False
        match blow.kind:
            case "actor":
                self.witness.fault("kills actor", blow.whom)
                self._tree.kill(blow.whom)
            case "dynamic":
                supervisor = getattr(self._parts, blow.whom)
                victim = pick(sorted(supervisor.names()), self._dice["blows"])
                if victim is None:
                    return False
                self.witness.fault("kills one of " + blow.whom, victim)
                supervisor.kill(victim)
            case "bug":
                (self.network if blow.whom == "network" else self._spool).buggy = True
            case "process":
                self.witness.fault("kills the process")
                self._die()
            case "clock":
                self.witness.fault("sets the clock", f"{blow.seconds:+.1f}")
                self._wall_step += blow.seconds
        return True

    def _overrun(self) -> None:
        self._trouble.append(f"not over after {STEPS_MAX:,} steps")
        self._patience.cancel()

    def _die(self) -> None:
        """kill -9, or the power: what is not synced is gone, what the kernel has taken still goes out."""
        if self._scope is not None and not self._scope.cancel_called:
            self._spool.lose_power()
            self._bus.lose_power()
            self.network.cut_all()
            self._scope.cancel()

    # --- what is heard -----------------------------------------------------------------------------------

    def heard(self, event: dict[str, Any]) -> None:
        error = event.get("exc_info")
        if event["event"] == "actor crashed" and isinstance(error, Exception):
            injected = all(is_injected(leaf) for leaf in leaves_of(error))
            self.witness.crashed(CrashFacts(str(event["actor"]), describe(error), injected))
        else:
            facts = {key: value for key, value in event.items() if key not in ("event", "level")}
            self.witness.note("log", event["level"], event["event"], facts)
            if event["level"] in ("error", "critical", "exception"):
                self.witness.errors.append(f"{event['event']} {facts}")

    def evidence(self) -> Evidence:
        payloads = self._bus_store.streams.get("events.node", [])
        spool = self._spool.memory
        kept = [payload for _, payload in spool.events(0, 1_000_000)]  # the bus was full at the end
        return Evidence(
            scenario=self.script,
            witness=self.witness,
            batches=[decode_events(payload) for payload in (*payloads, *kept)],
            counts={mailing.campaign: spool.counts(mailing.campaign) for mailing in self.script.mailings},
            listing=spool.listing(0, 1_000_000),
            open_leases=spool.open_leases(),
            unsettled=len(self._parts.unsettled),
            trouble=self._trouble,
            steps=self.saboteur.steps,
            seconds=self._ended_at,
        )


def is_injected(error: BaseException) -> bool:
    """Done by the saboteur or by the disk, whose word may have been put into another exception."""
    return isinstance(error, INJECTED) or TOLD_TO_FAIL in str(error)


def describe(error: Exception) -> str:
    """One line: the innermost frames say where."""
    leaf = leaves_of(error)[0]
    trace, places = leaf.__traceback__, []
    while trace is not None:
        places.append(f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(leaf).__name__}: {leaf} at {' > '.join(places[-4:])}"
