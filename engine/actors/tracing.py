"""What operators ask to see of single sessions and messages: a wire trace, and where messages spend time.

`trace-start` puts a tap on, `trace-read` fetches what it heard, `trace-stop` takes it off; `timing` tells of
the messages that are followed. An act that makes no sense is refused. Touches nothing but what is asked.
"""

from typing import Any

import msgspec

from engine.actors.operating import TEXT_MAX, Refused
from engine.actors.parts import Parts
from engine.actors.requests import Act, Peer, Request
from engine.actors.routing import POOL
from engine.actors.taps import BODY_OCTETS_MAX, SESSIONS_MAX, Match, TooManyTaps
from engine.actors.timelines import STAGES
from engine.model.address import AddressError, normalise_domain
from engine.mta.net.tap import Tape

LINES_PER_ANSWER = 1_000  # the tape bounds their characters
TIMELINES_SHOWN = 200


class TraceOrder(msgspec.Struct, frozen=True):
    """What `asked` holds for `trace-start`."""

    site: str = ""
    source: str = ""
    host: str = ""
    domain: str = ""
    sessions: int = 1
    body: int = 512
    mask: bool = False


def acts(parts: Parts, peer: Peer) -> dict[str, Act]:
    desk = Tracing(parts)
    return {
        "trace-start": desk.start,
        "trace-read": desk.read,
        "trace-stop": desk.stop,
        "timing": desk.timing,
    }


class Tracing:
    """The acts of one engine."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def __repr__(self) -> str:
        return f"<Tracing {self._parts.taps!r}>"

    async def start(self, request: Request) -> dict[str, Any]:
        try:
            order = msgspec.convert(request.asked, TraceOrder)
        except msgspec.ValidationError as error:
            raise Refused(f"the trace makes no sense: {error}") from error
        if not 1 <= order.sessions <= SESSIONS_MAX:
            raise Refused(f"from 1 to {SESSIONS_MAX} sessions can be traced at a time")
        if not 0 <= order.body <= BODY_OCTETS_MAX:
            raise Refused(f"from 0 to {BODY_OCTETS_MAX:,} octets of a message can be shown")
        try:
            domain = normalise_domain(order.domain) if order.domain else ""
        except AddressError as error:
            raise Refused(f"{order.domain[:TEXT_MAX]!r}: {error}") from error
        pooled = tuple(f"{domain}{POOL}{name}" for name in self._parts.egress.targets)
        match = Match(order.site.lower(), order.source, order.host.lower(), domain, pooled)
        try:
            tape = Tape(body_octets=order.body, mask=order.mask)
            return {"trace": self._parts.taps.put(match, tape, order.sessions)}
        except TooManyTaps as error:
            raise Refused(f"{error}: end one first") from error

    async def read(self, request: Request) -> dict[str, Any]:
        fetched = self._parts.taps.fetch(request.number, LINES_PER_ANSWER)
        if fetched is None:
            raise Refused("this trace has ended: nobody has read it for a while")
        lines, more = fetched
        return {"lines": lines, "more": more, "dropped": self._parts.taps.dropped(request.number)}

    async def stop(self, request: Request) -> dict[str, Any]:
        self._parts.taps.remove(request.number)
        return {}

    async def timing(self, request: Request) -> dict[str, Any]:
        timelines = self._parts.timelines
        spool_id = request.number
        if spool_id and timelines.every and spool_id % timelines.every:
            raise Refused(
                f"message {spool_id} is not followed: only those whose number {timelines.every} divides are"
                " ([metrics] sample)"
            )
        shown = timelines.finished(spool_id, request.address.lower(), TIMELINES_SHOWN)
        return {
            "every": timelines.every,
            "stages": STAGES,
            "messages": [
                msgspec.to_builtins(each) | {"stages": dict(zip(STAGES, each.stages, strict=True))}
                for each in shown
            ],
        }
