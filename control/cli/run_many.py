"""The running part of `emass send` over a bus: a coordinator, progress, and the report at the end.

No engine runs here: broadcasters on the bus do the sending. Ctrl-C stops the coordinator, not them: what they
have taken they go on sending, and `--resume` takes up where it was left, or another stop is made with
`emass campaign pause`. Touches: the job's folder (ledger, addresses), the bus. Raises CliError.
"""

import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from control.cli.addresses import FILE as ADDRESSES_FILE
from control.cli.addresses import copy_addresses, write_addresses
from control.cli.author import author
from control.cli.cluster_bus import OPERATOR, BusPlace, on_bus
from control.cli.errors import CliError
from control.cli.job import VERDICT_FILE, Job, reopen_source
from control.cli.people import People, Refused
from control.cli.progress import Progress, Snapshot
from control.cli.report import CampaignReport, DomainReport, Reason
from control.cli.report_shares import BroadcasterReport
from control.cli.run import conclude
from control.cli.seal import sealer
from control.cli.until import Until
from control.cli.verdicts import VerdictFile
from control.job.board import Board
from control.job.campaign_state import Wanted
from control.job.coordinator import Coordinator
from control.job.cutting import CutError, Cutter
from control.job.ledger import FILE as LEDGER_FILE
from control.job.ledger import Ledger, LedgerError
from control.job.own_counts import ask_counts
from engine.bus.api import Bus
from engine.bus.local import LocalBus
from engine.model.content import Content
from engine.runtime.crash import leaf_of

COUNTS_SECONDS = 5.0
STATUS_SECONDS = 12.0  # for a row of a living broadcaster to change; then somebody is missing


def run_many(
    *,
    folder: Path,
    job: Job,
    content: Content,
    people: People,
    place: BusPlace,
    shares: dict[str, float],
    until: Until,
    as_json: bool,
    addresses: str = "",
) -> int:
    """Coordinate, show, report. Returns the exit code."""
    run = ManyRun(folder, job, content, people, place, shares, until, addresses)

    async def live() -> tuple[ManyRun, CampaignReport]:
        return run, await run.live()

    return conclude(live, as_json=as_json, hint=f"go on with: emass send --data {folder} --resume")


class ManyRun:
    """One run over a job's folder."""

    def __init__(
        self,
        folder: Path,
        job: Job,
        content: Content,
        people: People,
        place: BusPlace,
        shares: dict[str, float],
        until: Until,
        addresses: str = "",
    ) -> None:
        self.finished = False
        self.reading = True
        self._folder = folder
        self._job = job
        self._content = content
        self._people = people
        self._place = place
        self._shares = shares
        self._until = until
        self._addresses = addresses
        self._refused = 0
        self._verdicts = VerdictFile(folder / VERDICT_FILE)
        self._began = 0.0
        self._own: dict[str, dict[str, int] | None] = {}

    async def live(self) -> CampaignReport:
        # From the start to the very end: a Ctrl-C while stopping must not become a KeyboardInterrupt.
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            try:
                ledger = Ledger(self._folder / LEDGER_FILE, self._job.id)
            except LedgerError as error:
                raise CliError(str(error)) from error
            try:
                with self._verdicts:
                    board = await self._coordinate(ledger, signals)
            except* (LedgerError, CutError) as group:
                raise CliError(str(leaf_of(group))) from None
            finally:
                with suppress(LedgerError):
                    ledger.close()
        return self._report(board)

    async def _coordinate(self, ledger: Ledger, signals: AsyncIterator[int]) -> Board:
        member = f"{OPERATOR}-{self._job.id}"
        board = Board(ledger, self._job.id, self._job.campaign, self._shares)
        cutter = Cutter(
            self._people,
            job=self._job.id,
            campaign=self._job.campaign,
            expires_at=self._job.expires_at,
            refuse=self._refuse,
        )
        async with on_bus(self._place, member, online_seconds=None) as bus:
            coordinator = Coordinator(
                bus,
                board,
                cutter,
                self._content,
                job=self._job.id,
                author=author(),
                left=lambda: max(0, self._people.total_estimate - cutter.people - self._refused),
                prepare=sealer(bus, self._content, self._job.options.dkim_key),
            )
            self._began = trio.current_time()
            async with trio.open_nursery() as heeding:
                heeding.start_soon(self._heed_signals, coordinator, heeding.cancel_scope, signals)
                with Progress() as progress:
                    await coordinator.run(self._looker(coordinator, cutter, bus, progress))
                    self.reading = coordinator.reading and coordinator.state.state is not Wanted.CANCEL
                    self.finished = coordinator.is_over
                if bus.online:
                    await self._ask_all(bus, board)
                heeding.cancel_scope.cancel()
            for name, teller in board.tellers.items():
                if teller.missing:
                    board.warn(f"{teller.missing:,} events of {name} never came: the bus has lost them")
            if coordinator.state.state is not Wanted.RUN:
                board.warn(_state_words(coordinator))
        if self.finished and self._place.folder:  # nothing of ours is unread there
            LocalBus.remove_member(Path(self._place.folder), member)
        return board

    def _looker(
        self, coordinator: Coordinator, cutter: Cutter, bus: Bus, progress: Progress
    ) -> Callable[[], bool]:
        """Shows where the job stands, and says when it is time to end."""

        def look() -> bool:
            now = trio.current_time()
            board = coordinator.board
            to_send = cutter.people
            if coordinator.reading:
                to_send = max(to_send, self._people.total_estimate - self._refused)
            note = self._note(coordinator, bus, now)
            progress.show(Snapshot(board.counts(), to_send, board.outcomes.retrying(), note), now)
            if self._until.seconds is not None and now - self._began > self._until.seconds:
                return True
            if self._until.first_pass and not coordinator.reading and board.nothing_unclaimed:
                return board.first_attempts >= cutter.people
            return False

        return look

    def _note(self, coordinator: Coordinator, bus: Bus, now: float) -> str:
        """The most important thing that is going on beside sending."""
        board = coordinator.board
        if not bus.online:
            return f"the bus at {self._place} does not answer"
        if coordinator.state.state is not Wanted.RUN:
            return _state_words(coordinator)
        if now - self._began > STATUS_SECONDS:
            gone = board.gone(now)
            if gone:
                told = ", ".join(f"{name} with {number:,}" for name, number in gone.items())
                return f"waits for {told} (`emass broadcaster retire` gives one up)"
            if not any(board.is_open(each.name, now) for each in board.standings(now)):
                return "no broadcaster is there and takes work (`emass broadcaster list`)"
        return "reading the list" if coordinator.reading else ""

    def _refuse(self, refused: Refused) -> None:
        self._refused += 1
        self._verdicts.write(refused)

    async def _ask_all(self, bus: Bus, board: Board) -> None:
        """What the broadcasters' own spools count, to hold it against what they told."""

        async def ask(name: str) -> None:
            self._own[name] = await ask_counts(bus, name, self._job.campaign, COUNTS_SECONDS)

        async with trio.open_nursery() as nursery:
            for name in sorted(board.tellers):
                if board.roster.is_live(name, trio.current_time()):
                    nursery.start_soon(ask, name)

    async def _heed_signals(
        self, coordinator: Coordinator, scope: trio.CancelScope, signals: AsyncIterator[int]
    ) -> None:
        async for _ in signals:
            if coordinator.stop.is_set():
                scope.cancel()
                continue
            with suppress(OSError):
                print("emass: stopping; broadcasters go on with what they have taken", file=sys.stderr)
            coordinator.stop.set()

    # --- the report --------------------------------------------------------------------------------------

    def _report(self, board: Board) -> CampaignReport:
        path = self._folder / ADDRESSES_FILE
        again = People(reopen_source(self._job), self._content.fields)
        domains = write_addresses(path, again, board.outcomes)
        if self._addresses:
            copy_addresses(path, Path(self._addresses))
        if board.abandoned:
            board.warn(
                f"{board.abandoned:,} people are in chunks that no broadcaster takes: they got nothing"
            )
        if board.outcomes.doubled:
            board.warn(f"{board.outcomes.doubled:,} people were delivered to by two broadcasters")
        shares = self._shares_report(board)
        for share in shares:
            if share.differs:
                board.warn(
                    f"{share.name} counts {share.own} itself; its events add up otherwise, so some were lost"
                )
        return CampaignReport(
            board.counts(),
            # Each broadcaster's own clock for its own part: clocks of machines differ.
            max((teller.fold.seconds for teller in board.tellers.values()), default=0.0),
            merge_domains(domains, board),
            self._refused,
            str(self._folder / VERDICT_FILE) if self._refused else "",
            str(self._folder),
            broadcasters=shares,
            addresses_file=str(path),
            warnings=tuple(board.warnings),
        )

    def _shares_report(self, board: Board) -> tuple[BroadcasterReport, ...]:
        chunks = Counter(line.holder for line in board.ledger)
        names = [name for name in sorted(board.names()) if chunks[name] or name in self._shares]
        return tuple(
            BroadcasterReport(
                name,
                self._shares.get(name, 1.0 if not self._shares else 0.0),
                chunks[name],
                board.outcomes.counts(name),
                board.teller(name).speed.per_second,
                name in self._own,
                name in board.retired,
                self._own.get(name),
            )
            for name in names
        )


def merge_domains(domains: dict[str, Any], board: Board) -> tuple[DomainReport, ...]:
    """Counts by address, and the reasons that all broadcasters were given."""
    reasons: dict[str, dict[tuple[str, str, str], Reason]] = {}
    for teller in board.tellers.values():
        for domain in teller.fold.reports():
            known = reasons.setdefault(domain.domain, {})
            for reason in domain.reasons:
                key = (reason.state, reason.text, reason.status)
                count = reason.count + (known[key].count if key in known else 0)
                known[key] = Reason(reason.state, reason.text, count, reason.sample, reason.status)
    return tuple(
        DomainReport(name, counts, tuple(reasons.get(name, {}).values())) for name, counts in domains.items()
    )


def _state_words(coordinator: Coordinator) -> str:
    state = coordinator.state
    what = "paused" if state.state is Wanted.PAUSE else "cancelled"
    why = f": {state.reason}" if state.reason else ""
    return f"the campaign was {what} by {state.by or 'somebody'}{why}"
