"""The receiver's end of a simulated connection: what `bench.world.receiver` is on sockets.

Feeds a `bench.world` session what arrives, sends what it says, and does the step it names: wait, start
TLS, close. May read in small sips with pauses between. No task: whatever is later stands in the clock's
agenda. An exception in here is a bug of the simulation and ends the run.
"""

from typing import TYPE_CHECKING

import trio

from bench.world.answers import Step
from bench.world.provider import Provider
from bench.world.session import Session
from tests.sim.witness import Receipt

if TYPE_CHECKING:
    from tests.sim.network import SimWire

LINGER_SECONDS = 0.5  # a closing receiver hears out its sender so long
SIP_SECONDS = 0.02  # a slow reader's pause between two reads


class Receiving:
    """The receiver's end."""

    def __init__(self, host: str, provider: Provider, source: str) -> None:
        self.provider = provider
        self._source = source
        self.session: Session  # begins once the source is counted
        self._host = host
        self.wire: SimWire
        self.unread = bytearray()
        self.ended = False  # nothing more comes
        self.over = False
        self._waiting = False  # in a tarpit, or between two sips
        self._handshake = False
        self._garbling = False
        self._closing = False

    def begin(self, wire: "SimWire") -> None:
        self.wire = wire
        self.provider.opened(self._source)
        self.session = Session(self.provider, self._host, self._source)
        self._idle_seconds = self.provider.manners.idle_seconds
        self._heard_at = trio.current_time()
        wire.network.clock.at(self._heard_at + self._idle_seconds, self._look_at_the_clock)
        self._work()

    def take(self, octets: bytes) -> None:
        if self.over or self._closing:
            return
        self.unread += octets
        self._read()

    def end(self) -> None:
        """The sender closed, or is gone."""
        self.ended = True
        if self._closing or not (self.unread or self._waiting):
            self.finish()

    def finish(self) -> None:
        if not self.over:
            self.over = True
            self.unread.clear()
            self.provider.closed(self._source)

    def handshake(self) -> bool | None:
        """The sender's hello in TLS: whether it gets on; None when nothing answers any more."""
        if self.over or self._closing:
            return None
        if self._garbling:
            self._close()
            return False
        assert self._handshake, "TLS began before the 220"
        self._handshake = False
        self.session.started_tls()
        self._work()
        return True

    def _read(self) -> None:
        if self._waiting or self.over or self._closing or not self.unread:
            return
        sip = self.wire.fate.sip_octets or len(self.unread)
        octets = bytes(self.unread[:sip])
        del self.unread[:sip]
        self.wire.room_made()
        self._heard_at = trio.current_time()
        self.session.receive(octets)
        self._work()
        if self.unread and not self._waiting:
            self._pause(SIP_SECONDS)
        elif self.ended and not self._waiting:
            self.finish()

    def _pause(self, seconds: float) -> None:
        self._waiting = True
        self.wire.network.clock.at(trio.current_time() + seconds, self._go_on)

    def _go_on(self) -> None:
        self._waiting = False
        if self.over or self._closing:
            return
        if self.session.next_step is Step.WAIT:
            self._work()
        self._read()
        if self.ended and not self._waiting and not self.unread:
            self.finish()

    def _work(self) -> None:
        session = self.session
        session.advance(trio.current_time())
        for item in session.accepted:
            receipt = Receipt(
                item.recipient, item.message_id, trio.current_time(), self.wire.facts.number, item.answered
            )
            self.wire.network.witness.received(receipt)
        session.accepted.clear()
        if session.output:
            self.wire.carry_down(bytes(session.output))
            session.output.clear()
        match session.next_step:
            case Step.READ:
                pass
            case Step.WAIT:
                self._pause(session.wait_seconds)
            case Step.TLS:
                self._handshake = True
            case Step.GARBLE:
                self._garbling = True
            case Step.CLOSE:
                self._close()
            case Step.ABORT:
                self.wire.carry_down(b"")
                self.finish()

    def _close(self) -> None:
        """Say goodbye, and read on for a moment without listening."""
        self._closing = True
        self.unread.clear()
        self.wire.carry_down(b"")
        if self.ended:
            self.finish()
        else:
            self.wire.network.clock.at(trio.current_time() + LINGER_SECONDS, self.finish)

    def _look_at_the_clock(self) -> None:
        if self.over or self._closing:
            return
        until = self._heard_at + self._idle_seconds
        if until > trio.current_time():
            self.wire.network.clock.at(until, self._look_at_the_clock)
            return
        self.session.timed_out()
        self.wire.carry_down(bytes(self.session.output))
        self._close()
