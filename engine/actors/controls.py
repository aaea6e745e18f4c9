"""What operators have pinned: kept in the bus table `controls`, so that it survives a restart.

One key for each path and knob. A pin is put on when the memory of its path is made, which may be long
after it was set, and taken off when its time is over. Decides nothing: the governor keeps a pin within
the bounds of the shaping. A row that does not decode is left where it is and said once in the log: a
newer engine may have written it. Touches: the bus table.
"""

import math

import msgspec
import structlog
from msgspec import Struct

from engine.actors.memory import PathMemory
from engine.bus.api import NodeBus
from engine.model.decoding import UNDECODABLE
from engine.mta.policy.governor import Knob

TABLE = "controls"
PINS_MAX = 10_000  # more than anybody sets by hand

log = structlog.get_logger("controls")


class Pin(Struct, frozen=True):
    """`knob` of `path` is held at `value` (connections, or messages a second) until wall seconds `until`."""

    path: str
    knob: Knob
    value: float
    until: float | None  # None = until somebody takes it off
    reason: str
    author: str


class TooManyPins(Exception):
    """PINS_MAX pins stand already."""


class Controls:
    """All pins of one engine. What it says is what the table holds."""

    def __init__(self, bus: NodeBus) -> None:
        self._bus = bus
        self._pins: dict[tuple[str, Knob], Pin] = {}
        for key, value in bus.items(TABLE).items():
            try:
                pin = msgspec.json.decode(value, type=Pin)
            except UNDECODABLE as error:
                log.warning("a pin does not decode", key=key, error=str(error))
                continue
            self._pins[pin.path, pin.knob] = pin

    def __repr__(self) -> str:
        return f"<Controls: {len(self._pins)} pins>"

    def of(self, path: str) -> list[Pin]:
        return [pin for knob in Knob if (pin := self._pins.get((path, knob))) is not None]

    def over(self, wall: float) -> list[Pin]:
        """Those whose time is over."""
        return [pin for pin in self._pins.values() if _end(pin) <= wall]

    async def put(self, pin: Pin) -> None:
        """Durable on return. Raises TooManyPins."""
        if (pin.path, pin.knob) not in self._pins and len(self._pins) >= PINS_MAX:
            raise TooManyPins(f"{PINS_MAX:,} pins stand already: take some off first")
        await self._bus.put(TABLE, _key(pin.path, pin.knob), msgspec.json.encode(pin))
        self._pins[pin.path, pin.knob] = pin

    async def remove(self, path: str, knob: Knob) -> Pin | None:
        """Durable on return; the pin that stood, or None."""
        pin = self._pins.get((path, knob))
        if pin is not None:
            await self._bus.delete(TABLE, _key(path, knob))
            self._pins.pop((path, knob), None)
        return pin

    def apply(self, memory: PathMemory, now: float, wall: float) -> None:
        """Put on what is pinned for a path whose memory is new."""
        for pin in self.of(memory.key):
            if _end(pin) > wall:
                memory.governor.pin(pin.knob, pin.value, now, f"{pin.reason} (by {pin.author}, kept)")
        memory.publish_changes(now)


def _end(pin: Pin) -> float:
    return math.inf if pin.until is None else pin.until


def _key(path: str, knob: Knob) -> str:
    return f"{knob.value} {path}"
