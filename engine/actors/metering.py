"""Serves the numbers of this engine to a monitor: `/metrics` for Prometheus, `/healthz` for who wants a word.

Does nothing unless `[metrics] listen` names an address. Numbers are read at most once a second, whoever asks.
Mail does not depend on it: an address that cannot be used is tried again, with a line in the log, and a
page that cannot be made is the asker's trouble. Decides nothing. Touches: the listening socket; reads
what `measuring` reads. On crash: the numbers are where they were, but the loop's lag is counted anew.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import structlog
import trio

from engine.actors.measuring import measure
from engine.actors.parts import Parts
from engine.observe.exposition import Exposition
from engine.observe.lag import LoopLag
from engine.observe.logs import masked
from engine.observe.metrics import Family
from engine.observe.pages import Page, Pages
from engine.runtime.child import ChildState, SupervisorStatistics
from engine.runtime.spec import Context, Start
from engine.storage import SpaceLevel

FRESH_SECONDS = 1.0  # two monitors, or an impatient one, cost no more than one
FRESH_SECONDS_MAX = 10.0  # monitors ask each 15 s
FRESH_FACTOR = 20.0  # what took long to read is good for longer: 20,000 paths are half a second of the loop
LISTEN_SECONDS = 30.0  # until an address that is in use, or not there yet, is tried again

log = structlog.get_logger("metering")

Statistics = Callable[[], SupervisorStatistics]


def metering(parts: Parts, statistics: Statistics) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        place = parts.config.metrics.place
        task_status.started()  # mail does not wait for it
        if place is None:
            await context.stop.wait()
            return
        meter = Meter(parts, statistics)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(meter.lag.watch)
            nursery.start_soon(_listen, meter, place.host, place.port)
            await context.stop.wait()
            nursery.cancel_scope.cancel()

    return start


async def _listen(meter: "Meter", host: str, port: int) -> None:
    while True:
        try:
            await Pages({"/metrics": meter.metrics, "/healthz": meter.health}).listen(host, port)
        except OSError as error:
            log.error("metrics are not served", address=host, port=port, why=error.strerror or str(error))
        await trio.sleep(LISTEN_SECONDS)


class Meter:
    """The pages."""

    def __init__(self, parts: Parts, statistics: Statistics) -> None:
        self.lag = LoopLag()
        self._parts = parts
        self._statistics = statistics
        self._exposition = Exposition()
        self._lock = trio.Lock()
        self._families: list[Family] = []
        self._fresh_until = 0.0

    def __repr__(self) -> str:
        return f"<Meter with {len(self._families)} families>"

    async def metrics(self, accept: str) -> Page:
        """All numbers, in a form that `accept` names."""
        async with self._lock:
            if trio.current_time() >= self._fresh_until:
                started = trio.current_time()
                self._families = await measure(self._parts, self._statistics(), self.lag)
                done = trio.current_time()
                fresh_seconds = max(FRESH_SECONDS, FRESH_FACTOR * (done - started))
                self._fresh_until = done + min(fresh_seconds, FRESH_SECONDS_MAX)
            families = self._families
        # Writing takes some 5 us for each line: in a thread, mail goes on meanwhile.
        content_type, body = await trio.to_thread.run_sync(self._exposition.write, families, accept)
        return Page(body, content_type)

    async def health(self, accept: str) -> Page:
        """200 and "healthy": true, or 503 and why mail does not go.

        Meant for people and alarms. A full disk is not cured by a restart.
        """
        trouble = troubles(self._parts, self._statistics())
        facts = {"healthy": not trouble, "trouble": trouble, "crashes": crashes(self._statistics())}
        body = msgspec.json.format(msgspec.json.encode(facts)) + b"\n"
        return Page(body, "application/json", 503 if trouble else 200)


def troubles(parts: Parts, statistics: SupervisorStatistics) -> list[str]:
    """What keeps all mail from going."""
    found = [
        f"the actor {child.name} is {child.state.value}"
        for child in statistics.children
        if child.state is not ChildState.RUNNING
    ]
    if parts.committer is not None and parts.committer.failed is not None:
        found.append(f"the spool has failed: {parts.committer.failed}")
    if parts.space is not None and parts.space.level is SpaceLevel.STOP_LEASING:
        found.append("the disk is full: nothing is sent before there is room")
    return found


def crashes(statistics: SupervisorStatistics) -> list[dict[str, Any]]:
    """The last crash of each actor that had one, the latest first; addresses are masked."""
    last = [child.last_crash for child in statistics.children if child.last_crash is not None]
    return [
        {"actor": crash.name, "at": crash.when, "error": masked(f"{crash.error_type}: {crash.text}")}
        for crash in sorted(last, key=lambda crash: crash.when, reverse=True)
    ]
