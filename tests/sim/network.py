"""A network in memory: the engine's end of a connection, the receiver's, and the way between.

Octets travel in order and take time; each connection may be cut at a drawn octet of either direction
(reset, closed, or silent from then on), its receiver may read slowly, and its window may be small. The
receivers are `bench.world` sessions, which do no IO: octets go in, `output` and a step come out. There is
no task per connection; what happens later stands in the clock's agenda. `cut_all` is the death of the
engine's process: its kernel sends what it had taken and closes.
"""

import random
import ssl
from collections.abc import Callable
from enum import Enum

import trio
from msgspec import Struct

from bench.world.provider import Provider
from engine.model.egress import Source
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.session import Progress, SessionError
from engine.mta.net.tls import TlsInfo
from tests.sim.clock import JumpingClock
from tests.sim.faults import InjectedBug
from tests.sim.receiving import Receiving
from tests.sim.scenario import NetManners
from tests.sim.witness import WireFacts, Witness

TLS = TlsInfo("TLSv1.3", "SIMULATED", 256, False)
CHECKPOINTS = 0.3  # the share of sends that pass through trio's scheduler first, as long runs of calls do


class Cut(Enum):
    RESET = "reset"
    CLOSE = "close"
    SILENCE = "silence"


class Fate(Struct, frozen=True):
    """What becomes of one connection: `up_at` and `down_at` are octets after which it is cut."""

    latency_seconds: tuple[float, float]
    window_octets: int
    sip_octets: int = 0  # 0 = reads all there is
    cut: Cut | None = None
    up_at: float = float("inf")
    down_at: float = float("inf")


class Peer(Struct, frozen=True):
    """One listening host (or one where nobody listens: `provider` None)."""

    name: str
    site: str
    provider: Provider | None


class SimNetwork:
    """`engine.mta.net.network.Network` without sockets. `peers` are the hosts by address."""

    def __init__(
        self,
        peers: dict[str, Peer],
        manners: NetManners,
        clock: JumpingClock,
        dice: random.Random,
        witness: Witness,
    ) -> None:
        self.witness = witness
        self.clock = clock
        self.dice = dice
        self._peers = peers
        self._manners = manners
        self._open: dict[int, SimWire] = {}
        self.buggy = False  # the next call of any wire raises

    async def dial(
        self, source: Source, address: str, port: int, timeout_seconds: float
    ) -> "SimWire | TransportFailure":
        peer, manners, dice = self._peers[address], self._manners, self.dice
        facts = self.witness.opened(source.name, peer.site)
        wire: SimWire | None = None
        try:
            if dice.random() < manners.black_holes:
                self.witness.fault("black hole", peer.name)
                await trio.sleep(timeout_seconds)
                return _failure(FailureKind.CONNECT_TIMEOUT)
            await trio.sleep(2 * dice.uniform(*manners.latency_seconds))
            if peer.provider is None or dice.random() < manners.refusals:
                return _failure(FailureKind.CONNECT_REFUSED)
            wire = SimWire(
                self, facts, self._fate(), Receiving(peer.name, peer.provider, source.address or "")
            )
            self._open[facts.number] = wire
            return wire
        finally:
            if wire is None:
                self.witness.closed(facts)

    def _fate(self) -> Fate:
        manners, dice = self._manners, self.dice
        fate = {
            "latency_seconds": manners.latency_seconds,
            "window_octets": manners.window_octets,
            "sip_octets": dice.choice((1, 40, 700)) if dice.random() < manners.slow_readers else 0,
        }
        for cut, share in (
            (Cut.RESET, manners.resets),
            (Cut.CLOSE, manners.closes),
            (Cut.SILENCE, manners.silences),
        ):
            if dice.random() < share:
                at = dice.randrange(manners.cut_octets)
                way = dice.choice(("up_at", "down_at"))
                self.witness.fault(cut.value, way, at)
                return Fate(**fate, cut=cut, **{way: at if way == "up_at" else at // 10})  # type: ignore[arg-type]
        return Fate(**fate)  # type: ignore[arg-type]

    def gone(self, wire: "SimWire") -> None:
        self._open.pop(wire.facts.number, None)
        self.witness.closed(wire.facts)

    def fail_on_purpose(self) -> None:
        if self.buggy:
            self.buggy = False
            self.witness.fault("bug in a connection")
            raise InjectedBug("the network was told to raise")

    def cut_all(self) -> None:
        for wire in list(self._open.values()):
            wire.close()


class SimWire:
    """The engine's end: what `engine.mta.net.network.Wire` promises."""

    def __init__(self, network: SimNetwork, facts: WireFacts, fate: Fate, receiving: Receiving) -> None:
        self.network = network
        self.facts = facts
        self.fate = fate
        self._receiving = receiving
        self._lot = trio.lowlevel.ParkingLot()  # waits for octets
        self._room = trio.lowlevel.ParkingLot()  # waits for room
        self._inbox = bytearray()
        self._ended = False
        self._reset = False
        self._closed = False
        self._silent = False
        self._up_at = self._down_at = trio.current_time()  # when the last octets of either way arrive
        self._up = self._down = 0
        self._on_the_way = 0  # octets up that no receiver has yet
        self._tls_answer: list[bool | None] = []
        receiving.begin(self)

    def __repr__(self) -> str:
        return f"<SimWire {self.facts}>"

    # --- the engine's calls ------------------------------------------------------------------------------

    async def send(self, data: bytes, progress: Progress | None = None) -> None:
        self.network.fail_on_purpose()
        if self.network.dice.random() < CHECKPOINTS:
            await trio.lowlevel.checkpoint()
        if not self._closed:
            self.network.witness.sent(self.facts, data)
        done = 0
        while done < len(data):
            if self._closed:
                raise SessionError(TransportFailure(FailureKind.STOPPED, Verb.IDLE, "closed here"))
            if self._reset:
                raise SessionError(TransportFailure(FailureKind.CLOSED, Verb.IDLE, "Broken pipe"))
            room = self.fate.window_octets - self._on_the_way - len(self._receiving.unread)
            if room <= 0 and not self._receiving.over:
                await self._room.park()
                continue
            count = min(max(room, 1), len(data) - done)
            self._carry_up(data[done : done + count])
            done += count
            if progress is not None:
                progress(count)

    async def receive(self) -> bytes:
        self.network.fail_on_purpose()
        if self.network.dice.random() < CHECKPOINTS:
            await trio.lowlevel.checkpoint()
        while not self._inbox:
            if self._closed:
                raise SessionError(TransportFailure(FailureKind.STOPPED, Verb.IDLE, "closed here"))
            if self._reset:
                raise SessionError(
                    TransportFailure(FailureKind.CLOSED, Verb.IDLE, "Connection reset by peer")
                )
            if self._ended:
                return b""
            await self._lot.park()
        return self._take()

    def receive_nowait(self) -> bytes | None:
        if self._inbox:
            return self._take()
        return b"" if self._ended or self._reset else None

    async def start_tls(
        self, server_name: str | None, context: ssl.SSLContext, timeout_seconds: float
    ) -> TlsInfo | TransportFailure:
        """Shakes hands without cryptography: one round trip, and the receiver's word."""
        self._travel_up(0, lambda: self._answer_tls(self._receiving.handshake()))
        with trio.move_on_after(timeout_seconds):
            while not (self._tls_answer or self._reset or self._ended):
                await self._lot.park()
            if self._tls_answer and self._tls_answer[0]:
                return TLS
            return TransportFailure(FailureKind.TLS, Verb.TLS, "wrong version number")
        return TransportFailure(FailureKind.TIMEOUT, Verb.TLS, f"no handshake in {timeout_seconds:g} s")

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._lot.unpark_all()
        self._room.unpark_all()
        self.network.gone(self)
        self._travel_up(0, self._receiving.end)

    def _take(self) -> bytes:
        taken = bytes(self._inbox)
        self._inbox.clear()
        return taken

    # --- the way up --------------------------------------------------------------------------------------

    def _carry_up(self, octets: bytes) -> None:
        fate = self.fate
        left = fate.up_at - self._up
        cut = left < len(octets)
        if cut:
            octets = octets[: max(0, int(left))]
        self._up += len(octets)
        self._on_the_way += len(octets)
        if octets:
            self._travel_up(len(octets), lambda: self._receiving.take(octets))
        if cut:
            self._cut()

    def _travel_up(self, count: int, arrive: Callable[[], None]) -> None:
        if self._silent:
            return
        self._up_at = max(self._up_at, trio.current_time() + self._latency())

        def arrived() -> None:
            self._on_the_way -= count
            arrive()

        self.network.clock.at(self._up_at, arrived)

    def room_made(self) -> None:
        self._room.unpark_all()

    # --- the way down ------------------------------------------------------------------------------------

    def carry_down(self, octets: bytes) -> None:
        """b"" = the receiver says no more."""
        left = self.fate.down_at - self._down
        cut = left < len(octets)
        if cut:
            octets = octets[: max(0, int(left))]
            self._travel_down(octets)
            self._cut()
        else:
            self._down += len(octets)
            self._travel_down(octets, ends=not octets)

    def _travel_down(self, octets: bytes, *, ends: bool = False) -> None:
        if self._silent:
            return
        self._down_at = max(self._down_at, trio.current_time() + self._latency())

        def arrive() -> None:
            self._inbox += octets
            self._ended = self._ended or ends
            self._lot.unpark_all()

        self.network.clock.at(self._down_at, arrive)

    def _answer_tls(self, answer: bool | None) -> None:
        if answer is None or self._silent:
            return
        self._down_at = max(self._down_at, trio.current_time() + self._latency())

        def arrive() -> None:
            self._tls_answer.append(answer)
            self._lot.unpark_all()

        self.network.clock.at(self._down_at, arrive)

    # --- what goes wrong ---------------------------------------------------------------------------------

    def _cut(self) -> None:
        """The drawn octet is reached: both ends hear of it in their time, or never."""
        match self.fate.cut:
            case Cut.SILENCE:
                self._silent = True
            case Cut.CLOSE:
                self._travel_up(0, self._receiving.end)
                self._travel_down(b"", ends=True)
                self._silent = True
            case _:
                self._travel_up(0, self._receiving.finish)
                self._down_at = max(self._down_at, trio.current_time() + self._latency())
                self.network.clock.at(self._down_at, self._be_reset)
                self._silent = True

    def _be_reset(self) -> None:
        self._reset = True
        self._lot.unpark_all()
        self._room.unpark_all()

    def _latency(self) -> float:
        return self.network.dice.uniform(*self.fate.latency_seconds)


def _failure(kind: FailureKind) -> TransportFailure:
    return TransportFailure(kind, Verb.CONNECT, kind.value.replace("_", " "))
