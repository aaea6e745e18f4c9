"""Looks after the egress sources: probes suspended ones, and checks our own names once at the start.

A suspended source whose time is over is tried (its address is bound, its proxy greeted) and only then given
back to mail; a failed probe suspends it for longer. The look at PTR records and EHLO names runs beside the
start, for public addresses only, and ends in warnings: mail does not wait for it. Decides nothing: what
follows from a probe is `parts.source_states`'. Touches: sockets for a moment, DNS. On crash: nothing is
lost; the names are checked again.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio

from engine.actors.parts import Parts
from engine.actors.source_states import PROBE_SECONDS, SourceStates
from engine.model.egress import Source
from engine.model.reply import TransportFailure
from engine.mta.net.dial import probe
from engine.mta.net.fcrdns import check_names
from engine.runtime.spec import Context, Start

LOOK_SECONDS = 1.0

Probe = Callable[[Source, float], Awaitable[TransportFailure | None]]

log = structlog.get_logger("sources")


def source_keeper(parts: Parts, probe: Probe = probe) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_check_names, parts)
            nursery.start_soon(_probe_for_ever, parts.source_states, probe)
            task_status.started()
            await context.stop.wait()
            nursery.cancel_scope.cancel()

    return start


async def _check_names(parts: Parts) -> None:
    found = await check_names(parts.resolver, parts.sources)
    parts.source_states.remark(found)
    for name, findings in found.items():
        for finding in findings:
            log.warning("our own names", source=name, finding=finding)


async def _probe_for_ever(states: SourceStates, probe: Probe) -> None:
    async def look_at(source: Source) -> None:
        failure = await probe(source, PROBE_SECONDS)
        if failure is None:
            log.info("source is there again", source=source.name)
            states.found(source.name)
        else:
            log.warning("source is suspended", source=source.name, why=failure.detail)
            states.failed(source.name, failure, trio.current_time())

    while True:
        await trio.sleep(LOOK_SECONDS)
        due = states.due(trio.current_time())
        if due:
            async with trio.open_nursery() as nursery:  # all at once: one dead proxy must not hold up others
                for source in due:
                    nursery.start_soon(look_at, source)
