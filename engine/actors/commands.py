"""Answers questions from outside (`emass queue`): what the engine does, why mail waits; and does as told.

Serves the bus subject `engine.<node>`. A request names what is wanted; the answer is JSON. A request that
makes no sense gets an error in the answer, never a crash. Pins and overrides whose time is over end here.
Touches: bus, resolver; reads what the actors share and the statistics of the tree (`explaining`), and
changes of it what an operator may (`operating`, `ruling`).
"""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
import trio

from engine.actors import (
    counting,
    explaining,
    operating,
    stopping,
    suppressing,
    tls_writing,
    tracing,
    waiting,
)
from engine.actors.messages import Lookup, Note
from engine.actors.operating import Author, Refused
from engine.actors.parts import Parts
from engine.actors.requests import CHANGES_MAX, Act, Peer, Request
from engine.actors.routing import RELAY
from engine.actors.ruling import Ruling
from engine.bus.api import PAYLOAD_OCTETS_MAX, Bus, BusFull, Question
from engine.model.address import AddressError, normalise_domain
from engine.model.decoding import UNDECODABLE
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.mx import Route
from engine.mta.policy.shaping import describe_match
from engine.runtime.answer import ActorDied
from engine.runtime.child import SupervisorStatistics
from engine.runtime.spec import Context, Start
from engine.storage import StorageError

LOOKUP_SECONDS = 5.0  # an operator waits that long for a route, not longer
QUESTIONS_MAX = 16  # answered side by side
EXPIRE_SECONDS = 1.0

ACTS: tuple[Callable[[Parts, Peer], dict[str, Act]], ...] = (  # of other files
    suppressing.acts,
    tls_writing.acts,
    stopping.acts,
    tracing.acts,
    waiting.acts,
    counting.acts,
)

log = structlog.get_logger("commands")

Statistics = Callable[[], SupervisorStatistics]


def commands(parts: Parts, statistics: Statistics) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        desk = Desk(parts, statistics, context.peer)
        task_status.started()

        room = trio.Semaphore(QUESTIONS_MAX)

        async def serve(bus: Bus) -> None:
            questions = bus.serve(f"engine.{parts.config.node.name}")
            while True:
                for question in await questions.receive(QUESTIONS_MAX):
                    await room.acquire()
                    nursery.start_soon(answer, question)  # one that takes long holds up nobody

        async def answer(question: Question) -> None:
            try:
                await question.answer(await desk.reply(question.payload))
            finally:
                room.release()

        async with trio.open_nursery() as nursery:
            for bus in {parts.bus, parts.cluster}:
                nursery.start_soon(serve, bus)
            nursery.start_soon(desk.end_what_is_over)
            await context.stop.wait()
            nursery.cancel_scope.cancel()

    return start


class Desk:
    """Where requests are answered."""

    def __init__(self, parts: Parts, statistics: Statistics, peer: Peer) -> None:
        self._parts = parts
        self._statistics = statistics
        self._peer = peer
        self._ruling = Ruling(parts)
        self._known: dict[str, Act] = {
            "show": self._show,
            "explain": self._explain,
            "forecast": self._forecast,
            "changes": self._changes,
            "signals": self._signals,
            "pin": self._pin,
            "unpin": self._unpin,
            "reset": self._reset,
            "lift": self._lift,
            "overrides": self._overrides,
            "override": self._override,
            "end-override": self._end_override,
            "reload": self._reload,
        }
        for acts in ACTS:
            self._known |= acts(parts, peer)

    def __repr__(self) -> str:
        return f"<Desk for {', '.join(self._known)}>"

    async def reply(self, payload: bytes) -> bytes:
        """The JSON answer to one request."""
        try:
            request = msgspec.json.decode(payload, type=Request)
        except UNDECODABLE as error:
            return _error(f"the request does not decode: {error}")
        act = self._known.get(request.command)
        if act is None:
            return _error(f"unknown command {request.command[:40]!r}")
        try:
            answer = msgspec.json.encode(await act(request))
        except Refused as refused:
            return _error(str(refused))
        except (StorageError, BusFull) as error:  # a full disk must not cost more than this act
            return _error(f"it could not be kept: {error}")
        await self._tell_notes()
        if len(answer) > PAYLOAD_OCTETS_MAX:
            return _error(f"the answer has {len(answer):,} octets: more than the bus takes; ask for less")
        return answer

    async def end_what_is_over(self) -> None:
        """Take off the pins and overrides whose time is over, for ever."""
        while True:
            for pin in self._parts.controls.over(self._parts.clock.now()):
                try:
                    await self._parts.controls.remove(pin.path, pin.knob)
                except (StorageError, BusFull) as error:
                    log.warning("a pin that is over could not be removed", path=pin.path, error=str(error))
                    break
                by = Author(pin.author, "its time is over")
                operating.release(self._parts, pin.path, pin.knob, by, trio.current_time())
                await self._tell_notes()
            if await self._ruling.end_over():
                await self._tell_notes()
            await trio.sleep(EXPIRE_SECONDS)

    async def _tell_notes(self) -> None:
        """Hand changes to the journal: no site may be awake to do it."""
        notes = self._parts.notes
        if not notes:
            return
        told = Note(list(notes))
        notes.clear()
        await self._peer("spooler").tell(told)

    # --- questions -------------------------------------------------------------------------------------

    async def _show(self, request: Request) -> dict[str, Any]:
        parts, now = self._parts, trio.current_time()
        rows, hidden = explaining.path_rows(parts, now)
        return {
            "sites": rows,
            "sites_hidden": hidden,
            "sources": parts.source_states.rows(now),
            "holds": [
                explaining.hold_facts(hold, now) for hold in parts.holds.all(now)[: explaining.ROWS_MAX]
            ],
            "forecast": explaining.forecasts(parts, now),
            "connections": len(parts.connections),
            "suppressions": suppressing.suppression_facts(parts),
            "actors": self._statistics(),
        }

    async def _forecast(self, request: Request) -> dict[str, Any]:
        return explaining.forecasts(self._parts, trio.current_time())

    async def _explain(self, request: Request) -> dict[str, Any]:
        try:
            domain = normalise_domain(request.address.rpartition("@")[2])
        except AddressError as error:
            raise Refused(f"{request.address[:200]!r}: {error}") from error
        way = explaining.way_of(self._parts, domain, request.campaign)
        route = await self._route(f"{RELAY}{way.relay}" if way.relay else domain)
        return explaining.explain(self._parts, domain, route, request.campaign, trio.current_time())

    async def _route(self, domain: str) -> Route | TransportFailure:
        with trio.move_on_after(LOOKUP_SECONDS):
            try:
                found: Route | TransportFailure = await self._peer("resolver").ask(
                    lambda answer: Lookup(domain, answer)
                )
                return found
            except ActorDied as error:
                raise Refused(f"the resolver has just restarted, ask again: {error}") from error
        return TransportFailure(FailureKind.DNS, Verb.RESOLVE, f"no answer within {LOOKUP_SECONDS:g} s")

    async def _changes(self, request: Request) -> dict[str, Any]:
        key = operating.find_path(self._parts, request.path) if request.path else ""
        limit = max(1, min(request.limit, CHANGES_MAX))
        found = [one for one in self._parts.changes if not key or one.change.path == key]
        names = ("path", "provider", "knob", "before", "after", "reason", "rule", "author", "campaign")
        return {
            "path": key,
            "changes": [
                {"at": one.at} | {name: getattr(one.change, name) for name in names} for one in found[-limit:]
            ],
        }

    async def _signals(self, request: Request) -> dict[str, Any]:
        """What the path's loop was told, for a replay; times are wall seconds."""
        key = operating.find_path(self._parts, request.path)
        memory = self._parts.memory.get(key)
        if memory is None:
            raise Refused(f"nothing has gone over {key} yet")
        ahead = self._parts.clock.now() - trio.current_time()
        start_connections, start_per_second = memory.governor.start
        signals = [msgspec.structs.replace(each, at=each.at + ahead) for each in memory.governor.signals]
        path = self._parts.paths.get(key)
        hosts = () if path is None or path.route is None else path.route.hosts
        site, domain = memory.place.site, memory.place.domain
        return {
            "path": key,
            "source": key.partition(">")[0],
            "site": site,
            "domain": domain,
            "hosts": [host.name for host in hosts],
            "provider": memory.provider.name,
            "start_connections": start_connections,
            "start_per_second": start_per_second if math.isfinite(start_per_second) else None,
            "connections": str(memory.shaping.connections),
            "rate": None if memory.shaping.rate is None else str(memory.shaping.rate),
            "signals": signals,
        }

    async def _overrides(self, request: Request) -> dict[str, Any]:
        standing = self._parts.overrides
        return {
            "overrides": [
                msgspec.to_builtins(each)
                | {"values": each.values, "match": describe_match(standing.rule(each))}
                for each in standing.all()
            ]
        }

    # --- acts ------------------------------------------------------------------------------------------

    async def _pin(self, request: Request) -> dict[str, Any]:
        key, by = self._aim(request)
        now = trio.current_time()
        done = await operating.pin(self._parts, key, request.knob, request.value, request.seconds, by, now)
        return {"done": done}

    async def _unpin(self, request: Request) -> dict[str, Any]:
        key, by = self._aim(request)
        return {"done": await operating.unpin(self._parts, key, request.knob, by, trio.current_time())}

    async def _reset(self, request: Request) -> dict[str, Any]:
        key, by = self._aim(request)
        return {"done": await operating.reset(self._parts, key, by, trio.current_time())}

    async def _lift(self, request: Request) -> dict[str, Any]:
        by, now = Author(request.author, request.reason), trio.current_time()
        subject, value = request.subject, request.subject_value
        return {"done": operating.lift(self._parts, request.path, subject, value, by, now)}

    async def _override(self, request: Request) -> dict[str, Any]:
        by = Author(request.author, request.reason)
        done, warnings = await self._ruling.override(request.said, request.seconds, by)
        return {"done": done, "warnings": warnings}

    async def _end_override(self, request: Request) -> dict[str, Any]:
        return {"done": await self._ruling.end(request.number, Author(request.author, request.reason))}

    async def _reload(self, request: Request) -> dict[str, Any]:
        by = Author(request.author, request.reason)
        done: dict[str, Any] = msgspec.to_builtins(await self._ruling.reload(by))
        return done

    def _aim(self, request: Request) -> tuple[str, Author]:
        by = Author(request.author, request.reason)
        return operating.find_path(self._parts, request.path), by


def _error(text: str) -> bytes:
    return msgspec.json.encode({"error": text})
