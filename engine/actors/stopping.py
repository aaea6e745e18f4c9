"""What an operator may do to mail: suspend, resume, cancel, retry, reroute, drain; and what stands.

Each act names its mail (`aiming`), is kept before it is answered (`stops`), is felt at once by those who send
(the version they compare, and a word to the scheduler), and is noted as a change with author and reason. An
act that makes no sense is refused with what would. What takes a walk over the spool is carried out by
`sweeping` afterwards. Touches: the bus table through `stops`.
"""

from math import isfinite
from typing import Any

import msgspec
import trio

from engine.actors.aiming import count_left, doubts, find_aim
from engine.actors.messages import StopsChanged
from engine.actors.operating import TEXT_MAX, Author, Refused
from engine.actors.parts import Parts
from engine.actors.requests import Act, Peer, Request
from engine.actors.stops import Aim, Draining, Scope, StopKind, StopOrder, TooManyStops
from engine.config.units import Duration
from engine.model.event import Adapted

DRAIN_SECONDS = 600.0  # where nobody says how long: a rest of a receiver is longer, and not waited for
STATES = ("deferred", "ambiguous", "quarantined")
ASSUMPTIONS = ("", "delivered", "failed")
REROUTABLE = (Scope.CAMPAIGN, Scope.DOMAIN, Scope.WORKSPACE, Scope.ALL)
LISTED_MAX = 500
NAMED_MAX = 3


def acts(parts: Parts, peer: Peer) -> dict[str, Act]:
    desk = Stopping(parts, peer)
    return {
        "suspend": desk.suspend,
        "resume": desk.resume,
        "cancel": desk.cancel,
        "retry": desk.retry,
        "reroute": desk.reroute,
        "stops": desk.stops,
        "drain": desk.drain,
        "drain-status": desk.drain_status,
    }


class Stopping:
    """The acts of one engine."""

    def __init__(self, parts: Parts, peer: Peer) -> None:
        self._parts = parts
        self._peer = peer

    def __repr__(self) -> str:
        return f"<Stopping {self._parts.stops!r}>"

    # --- acts ------------------------------------------------------------------------------------------

    async def suspend(self, request: Request) -> dict[str, Any]:
        """Let mail wait (for so many seconds)."""
        aim, by = await self._aim(request), _author(request)
        until = self._until(request)
        await self._give(StopKind.SUSPEND, aim, by, until=until)
        self._note("suspend", aim, f"{aim} suspended {_time(request)}: {by.reason}", by)
        return self._done(f"{aim} is suspended {_time(request)}", aim)

    async def resume(self, request: Request) -> dict[str, Any]:
        """End a suspension, a reroute or the cancel of a campaign; or a drain."""
        stops, by = self._parts.stops, _author(request)
        if request.asked.get("drain"):
            return self._resume_drain(by)
        aim = await self._standing_aim(request)
        ended = []
        for order in stops.all():
            if order.aim == aim and order.kind is not StopKind.RETRY and await stops.end(order):
                ended.append(order.kind.value)
        if not ended:
            raise Refused(f"nothing is said of {aim}; {self._what_stands()}")
        await self._tell()
        self._note("resume", aim, f"{aim}: {' and '.join(ended)} ended: {by.reason}", by)
        return self._done(f"{aim}: {' and '.join(ended)} ended")

    async def cancel(self, request: Request) -> dict[str, Any]:
        """End what waits, for good. A campaign stays cancelled until it is resumed."""
        aim, by = await self._aim(request), _author(request)
        before = 0 if aim.scope is Scope.CAMPAIGN else self._parts.spool.next_id
        await self._give(StopKind.CANCEL, aim, by, before_id=before)
        self._note("cancel", aim, f"{aim} cancelled: {by.reason}", by)
        later = "" if before else ", and what comes later, too"
        return self._done(f"{aim} is cancelled: what waits is being ended{later}", aim)

    async def retry(self, request: Request) -> dict[str, Any]:
        """Have what waits or is parked tried at once, or take it for delivered or failed."""
        aim, by = await self._aim(request), _author(request)
        states = request.asked.get("states") or ["deferred"]
        assume = request.asked.get("assume") or ""
        wrong = [state for state in states if state not in STATES] if isinstance(states, list) else [states]
        if wrong:
            raise Refused(f"{str(wrong[0])[:TEXT_MAX]!r} cannot be tried again: {', '.join(STATES)} can")
        if assume not in ASSUMPTIONS:
            raise Refused(f"{str(assume)[:TEXT_MAX]!r} cannot be assumed: delivered and failed can")
        if assume and "deferred" in states:
            raise Refused("deferred mail was refused for now: what it became is known; cancel it")
        before = self._parts.spool.next_id
        await self._give(StopKind.RETRY, aim, by, before_id=before, states=tuple(states), assume=assume)
        what = f"what is {' or '.join(states)}"
        done = f"is taken for {assume}" if assume else "is tried again"
        self._note("retry", aim, f"{aim}: {what} {done}: {by.reason}", by)
        answer = self._done(f"{aim}: {what} {done}", aim)
        return answer if assume else answer | {"warnings": answer["warnings"] + _rests(self._parts)}

    async def reroute(self, request: Request) -> dict[str, Any]:
        """Send mail over another pool or relay (for so many seconds)."""
        aim, by = await self._aim(request), _author(request)
        if aim.scope not in REROUTABLE:
            raise Refused(
                f"a {aim.scope.value} is a place that mail is routed to: reroute a campaign, domain or"
                f" workspace, or suspend the {aim.scope.value}"
            )
        target, known = str(request.asked.get("to", "")), self._parts.egress.targets
        if target not in known:
            there = f"there are: {', '.join(known)}" if known else "emass.toml names none"
            raise Refused(f"no pool or relay is called {target[:TEXT_MAX]!r}; {there}")
        await self._give(StopKind.REROUTE, aim, by, until=self._until(request), target=target)
        self._note("reroute", aim, f"{aim} goes over {target} {_time(request)}: {by.reason}", by)
        return self._done(f"{aim} goes over {target} {_time(request)}", aim)

    async def stops(self, request: Request) -> dict[str, Any]:
        """What stands."""
        every = self._parts.stops.all()
        draining = self._parts.stops.draining
        return {
            "stops": [
                msgspec.to_builtins(each)
                | {"kind": each.kind.value, "scope": each.aim.scope.value, "value": each.aim.value}
                for each in every[-LISTED_MAX:]
            ],
            "hidden": max(0, len(every) - LISTED_MAX),
            "draining": None if draining is None else msgspec.to_builtins(draining),
        }

    # --- drain -----------------------------------------------------------------------------------------

    async def drain(self, request: Request) -> dict[str, Any]:
        """Take nothing new, send what is queued, then stop; after so many seconds stop anyway."""
        by, seconds = _author(request), request.seconds or DRAIN_SECONDS
        _check_seconds(seconds)
        wall = self._parts.clock.now()
        self._parts.stops.draining = Draining(wall + seconds, by.reason, by.name)
        text = f"draining for {Duration(seconds)} at most, then the engine stops"
        self._note("drain", Aim(Scope.ALL), f"{text}: {by.reason}", by)
        return {"done": text} | await self.drain_status(request)

    async def drain_status(self, request: Request) -> dict[str, Any]:
        draining, wall = self._parts.stops.draining, self._parts.clock.now()
        return {
            "draining": draining is not None,
            "left": await count_left(self._parts),
            "seconds_left": None if draining is None else max(0.0, draining.until - wall),
        }

    def _resume_drain(self, by: Author) -> dict[str, Any]:
        stops = self._parts.stops
        if stops.draining is None:
            raise Refused("the engine is not being drained")
        if self._parts.drained.is_set():
            raise Refused("it is drained: the engine is stopping")
        stops.draining = None
        self._note("resume", Aim(Scope.ALL), f"no longer draining: {by.reason}", by)
        return self._done("no longer draining: new work is taken")

    # --- what they share -------------------------------------------------------------------------------

    async def _aim(self, request: Request) -> Aim:
        return await find_aim(self._parts, request.subject, request.subject_value)

    async def _standing_aim(self, request: Request) -> Aim:
        """As it was given, since a name that the engine knows no more must be resumed, too."""
        for order in self._parts.stops.all():
            if (order.aim.scope.value, order.aim.value) == (request.subject, request.subject_value):
                return order.aim
        try:
            return await self._aim(request)
        except Refused as refused:
            raise Refused(f"{refused}; {self._what_stands()}") from refused

    def _what_stands(self) -> str:
        said = [f"{each.kind.value} {each.aim}" for each in self._parts.stops.all()]
        more = f" and {len(said) - 3:,} more" if len(said) > 3 else ""
        return f"what stands: {', '.join(said[:3])}{more}" if said else "nothing stands"

    def _until(self, request: Request) -> float | None:
        if request.seconds is None:
            return None
        _check_seconds(request.seconds)
        return self._parts.clock.now() + request.seconds

    async def _give(self, kind: StopKind, aim: Aim, by: Author, **facts: Any) -> None:
        order = StopOrder(0, kind, aim, by.reason, by.name, self._parts.clock.now(), **facts)
        try:
            await self._parts.stops.give(order)
        except TooManyStops as error:
            raise Refused(str(error)) from error
        if kind is not StopKind.RETRY and not order.before_id:  # the gate alone tells old mail from new
            await self._tell()

    async def _tell(self) -> None:
        await self._peer("scheduler").tell(StopsChanged())

    def _note(self, knob: str, aim: Aim, text: str, by: Author) -> None:
        self._parts.note(Adapted("", "", knob, None, None, text, author=by.name, campaign=aim.campaign))

    def _done(self, text: str, aim: Aim | None = None) -> dict[str, Any]:
        return {"done": text, "warnings": [] if aim is None else doubts(self._parts, aim)}


def _rests(parts: Parts) -> list[str]:
    """Where a retry alone moves nothing."""
    now = trio.current_time()
    resting = [key for key, memory in parts.memory.items() if memory.rest(now)[0]]
    if not resting:
        return []
    more = f" and {len(resting) - NAMED_MAX} more" if len(resting) > NAMED_MAX else ""
    paths = ", ".join(resting[:NAMED_MAX])
    return [f"mail that goes over {paths}{more} waits on: that rests, and `emass queue lift` ends a rest"]


def _author(request: Request) -> Author:
    return Author(request.author, request.reason)


def _time(request: Request) -> str:
    return "until it is resumed" if request.seconds is None else f"for {Duration(request.seconds)}"


def _check_seconds(seconds: float) -> None:
    if not (isfinite(seconds) and seconds > 0):
        raise Refused("the time must be longer than 0 s")
