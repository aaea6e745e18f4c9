"""The running part of `emass send`: an engine, a feeder, a watcher, and the report at the end.

The feeder cuts chunks and puts them on the bus, never further ahead than a set backlog; the job record
counts them. The watcher folds events and shows progress until the job is finished, its time is up, or
somebody says stop. Ctrl-C stops politely: open transactions finish, everything is settled; a second
one stops firmly. What waits stays in the data folder, and the command that goes on with it is printed.
"""

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import trio
from msgspec.structs import replace
from rich.console import Console

from control.cli.errors import CliError
from control.cli.fold import Fold
from control.cli.forecast import (
    Bounds,
    Counted,
    Running,
    announce,
    count_domains,
    find_routes,
    first_outlooks,
    new_resolver,
    predict,
)
from control.cli.job import VERDICT_FILE, Job, cut_chunks, save_job
from control.cli.people import People, Refused
from control.cli.progress import Progress, Snapshot, count_sent
from control.cli.report import CampaignReport, find_mistakes, print_report, report_json
from control.cli.route import find_route
from control.cli.until import Until
from control.cli.verdicts import VerdictFile
from engine.app import Engine, EngineError, open_engine
from engine.bus.api import Subscription
from engine.config import Config
from engine.model.content import Content
from engine.model.event import decode_events
from engine.model.submission import SubmitChunk, SubmitContent
from engine.mta.net.mx import Route
from engine.mta.policy.forecast import Forecast
from engine.mta.spool.api import StateCounts
from engine.observe.logs import configure_logs
from engine.runtime.crash import leaf_of
from engine.runtime.supervisor import SupervisorGaveUp

BACKLOG_CHUNKS_MAX = 8  # on the bus and not yet accepted
BACKLOG_ENVELOPES_MAX = 2_000_000  # accepted and not yet finished: 0.4 GB of spool
WATCH_SECONDS = 0.1
FORECAST_SECONDS = 2.0  # before that nothing was measured that tells more than the first forecast
FOLD_BATCHES = 512
LAST_EVENTS_SECONDS = 30.0  # to fold what is left; the closed bus ends it sooner


def run_job(
    *,
    folder: Path,
    job: Job,
    content: Content,
    people: People,
    config: Config,
    until: Until,
    as_json: bool,
) -> int:
    """Send, show, report. Returns the exit code; raises CliError for what the user must mend."""
    run = Run(folder, job, content, people, config, until)

    async def live() -> tuple[Run, CampaignReport]:
        return run, await run.live()

    return conclude(live, as_json=as_json, hint=run.resume_hint)


class Ended(Protocol):
    """What `conclude` wants to know of a run that is over."""

    finished: bool

    @property
    def reading(self) -> bool: ...


def conclude(
    live: Callable[[], Awaitable[tuple[Ended, CampaignReport]]], *, as_json: bool, hint: str = ""
) -> int:
    """Run `live` under trio and print its report; the engine's own errors become one line."""
    run: Ended
    report: CampaignReport
    configure_logs("error" if as_json else "warning")
    try:
        run, report = trio.run(live)
    except* (CliError, EngineError, SupervisorGaveUp) as group:
        raise _one_line(group, hint) from None
    if as_json:
        print(report_json(report))
    else:
        print_report(report, Console())
    if not run.finished:
        unread = ", and the list is not read to its end" if run.reading else ""
        waiting = f"emass: {report.counts.deferred:,} messages wait{unread}"
        print(f"{waiting}; {hint}" if hint else waiting, file=sys.stderr)  # a demo leaves nothing to resume
    return 1 if find_mistakes(report) else 0


def _one_line(group: BaseExceptionGroup[Any], hint: str) -> CliError:
    error = leaf_of(group)
    if isinstance(error, CliError):
        return error
    if isinstance(error, SupervisorGaveUp):
        cause = f": {leaf_of(error.__cause__)}" if isinstance(error.__cause__, Exception) else ""
        return CliError(f"the engine gave up: {error}{cause}" + (f"; {hint}" if hint else ""))
    return CliError(str(error))


class Run:
    """One run over a job's folder."""

    def __init__(
        self, folder: Path, job: Job, content: Content, people: People, config: Config, until: Until
    ) -> None:
        self.finished = False
        self._folder = folder
        self._job = job
        self._content = content
        self._people = people
        self._config = config
        self._until = until
        self._fold = Fold(job.campaign)
        self._verdicts = VerdictFile(folder / VERDICT_FILE)
        self._refused = 0
        self._read = 0  # people cut into chunks so far
        self._reading = True
        self._forecast: Forecast | None = None
        self._stop = trio.Event()

    @property
    def reading(self) -> bool:
        """The list has not been read to its end."""
        return self._reading

    @property
    def resume_hint(self) -> str:
        return f"go on with: emass send --data {self._folder} --resume"

    async def live(self) -> CampaignReport:
        # From the start to the very end: a Ctrl-C while stopping must not become a KeyboardInterrupt.
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            route = await find_route(self._job.options.route, self._config)
            with self._verdicts:
                return await self._send(route, signals)

    async def _send(self, route: Route | None, signals: AsyncIterator[int]) -> CampaignReport:
        counted = count_domains(self._people.source)
        routes = {} if route is not None else await find_routes(counted, new_resolver(self._config))
        file = Path(self._job.options.config) if self._job.options.config else None
        async with open_engine(self._config, static_route=route, config_path=file) as engine:
            self._say_forecast(engine, counted, routes)
            began = trio.current_time()
            events = engine.parts.bus.subscribe(f"events.{self._config.node.name}", "report")
            async with trio.open_nursery() as heeding:
                heeding.start_soon(self._heed_signals, engine, signals)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._feed, engine)
                    nursery.start_soon(self._follow, events)
                    with Progress() as progress:
                        await self._watch(engine, progress)
                    nursery.cancel_scope.cancel()
                seconds = trio.current_time() - began
                await engine.stop()
                heeding.cancel_scope.cancel()
            with trio.move_on_after(LAST_EVENTS_SECONDS), suppress(trio.ClosedResourceError):
                await self._follow(events)  # to the end: a stopped engine publishes no more
            counts = engine.counts(self._job.campaign)
            self.finished = not self._reading and counts.accepted >= self._read and not counts.deferred
            return CampaignReport(
                counts,
                self._fold.seconds,
                self._fold.reports(),
                self._refused,
                str(self._folder / VERDICT_FILE) if self._refused else "",
                str(self._folder),
                self._forecast,
                self._forecast_error(seconds),
            )

    def _say_forecast(self, engine: Engine, counted: Counted, routes: dict[str, Route | None]) -> None:
        """Before the start: when this will be done."""
        sent = count_sent(engine.counts(self._job.campaign))
        left = max(0.0, 1 - sent / counted.people) if counted.people else 0.0
        outlooks = first_outlooks(counted, routes, Bounds.of_engine(engine), left)
        self._forecast = predict(outlooks)
        if self._forecast.messages:
            print(announce(self._forecast, outlooks), file=sys.stderr, flush=True)

    def _forecast_error(self, seconds: float) -> float | None:
        """How far off the forecast was, as a share of the real time; None while the end is not reached."""
        if not self.finished or self._forecast is None or self._forecast.expected_seconds is None:
            return None
        return (self._forecast.expected_seconds - seconds) / max(seconds, 0.1)

    async def _feed(self, engine: Engine) -> None:
        """Submit what was not submitted before; count everything."""
        await engine.submit([SubmitContent(self._content)])
        already = self._job.chunks_published
        number = 0
        for chunk in cut_chunks(self._people, self._job, self._refuse):
            number += 1
            self._read += len(chunk.entries)
            self._fold.expect(chunk.id, [entry.recipient.rpartition("@")[2] for entry in chunk.entries])
            if number > already:
                while self._is_far_ahead(engine):  # noqa: ASYNC110
                    await trio.sleep(WATCH_SECONDS)  # the spool's counters ring no bell
                await engine.submit([SubmitChunk(chunk)])
                self._job = replace(
                    self._job,
                    chunks_published=number,
                    people_published=self._job.people_published + len(chunk.entries),
                )
                save_job(self._folder, self._job)
            await trio.lowlevel.checkpoint()
        self._reading = False
        self._job = replace(self._job, complete=True)
        save_job(self._folder, self._job)
        if not number:
            self._stop.set()

    def _is_far_ahead(self, engine: Engine) -> bool:
        if engine.backlog() > BACKLOG_CHUNKS_MAX:
            return True
        return engine.counts(self._job.campaign).deferred > BACKLOG_ENVELOPES_MAX

    def _refuse(self, refused: Refused) -> None:
        self._refused += 1
        self._verdicts.write(refused)

    async def _follow(self, events: Subscription) -> None:
        """Fold events as they are published. Never acknowledged: a resumed run folds all of them again."""
        while True:
            for delivery in await events.receive(FOLD_BATCHES):
                self._fold.add(decode_events(delivery.payload))
            await trio.lowlevel.checkpoint()

    async def _watch(self, engine: Engine, progress: Progress) -> None:
        """Return when the job is finished, its time is up, or a stop was asked for."""
        started = trio.current_time()
        forecast = Running(engine, self._fold)
        while not self._stop.is_set():
            counts = engine.counts(self._job.campaign)
            to_send = self._people.total_estimate if self._reading else self._read
            note = "reading the list" if self._reading else ""
            to_send = max(to_send, self._read)
            now = trio.current_time()
            left = to_send - count_sent(counts)
            told = forecast.look(left, now) if now - started >= FORECAST_SECONDS and left else ""
            progress.show(Snapshot(counts, to_send, self._fold.retrying, note, told), now)
            if engine.stopped.is_set():
                return
            if not self._reading and self._is_over(counts):
                return
            if self._until.seconds is not None and trio.current_time() - started > self._until.seconds:
                return
            with trio.move_on_after(WATCH_SECONDS):
                await self._stop.wait()

    def _is_over(self, counts: StateCounts) -> bool:
        if counts.accepted < self._read:
            return False
        if self._until.first_pass:
            return self._fold.first_attempts >= self._read
        return counts.deferred == 0

    async def _heed_signals(self, engine: Engine, signals: AsyncIterator[int]) -> None:
        """The first asks for a stop, the next ones do not wait for it."""
        async for _ in signals:
            firm = self._stop.is_set()
            how = " at once" if firm else "; open transactions finish first (again: at once)"
            with suppress(OSError):
                print(f"emass: stopping{how}", file=sys.stderr)
            self._stop.set()
            if firm:
                engine.hurry()
