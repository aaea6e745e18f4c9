"""Everything that a coordinator knows of its job, in one place: ledger, outcomes, roster, and how they meet.

Facts come in (claims, events, rows of `status`, retired broadcasters, chunks cut again); standings for the
spreading, what nobody has claimed, and what is over come out. A claim that was seen once counts for ever,
also when the bus has forgotten it: such chunks are never moved. Who is retired gives up what was claimed
under that epoch of its spool. A broadcaster that says nonsense hurts its own part alone: claims that name no
broadcaster and events of people whom it was not given are warned of and left out, the ledger never sees them.
Touches: the ledger, whose lines wait for its `sync`. Times are arguments.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping

from control.job.cutting import Cut, chunk_id, chunk_number
from control.job.ledger import ChunkLine, Ledger
from control.job.outcomes import BROADCASTERS_MAX, Outcomes
from control.job.roster import Roster, is_broadcaster
from control.job.spreading import Standing, Unclaimed
from control.job.telling import Teller
from engine.model.event import ChunkRefused, EventBatch
from engine.mta.spool.api import StateCounts

WARNINGS_MAX = 50
EPOCH_CHARS_MAX = 120  # an epoch is a few random letters; the ledger keeps one per chunk
REFUSALS_MAX = 6  # of one chunk: who will not have it twice will not have it the third time


class Board:
    """One job. `weights` names the broadcasters that get work; empty = every one that lives, alike."""

    def __init__(self, ledger: Ledger, job: str, campaign: int, weights: Mapping[str, float]) -> None:
        self.ledger = ledger
        self.outcomes = Outcomes()
        self.roster = Roster()
        self.tellers: dict[str, Teller] = {}
        self.payloads: dict[int, bytes] = {}  # of chunks that nobody has accepted
        self.refusals: list[tuple[str, ChunkRefused]] = []  # that the coordinator has not answered
        self.warnings: list[str] = []
        self.retired: dict[str, str] = {}  # broadcaster -> epoch
        self.forgotten: set[int] = set()  # claims that the bus does not know any more
        self.weights = dict(weights)
        self._job = job
        self._campaign = campaign
        self._cut = 0  # chunks whose people are known
        self._firsts: list[int] = [line.first for line in ledger]
        self._sent_at: dict[int, float] = {}
        self._assigned: Counter[str] = Counter()  # people in chunks that a broadcaster has or is to have
        self._written_off: Counter[str] = Counter()
        self._unclaimed: dict[int, None] = {}  # in order
        self._refused: Counter[int] = Counter()
        self._abandoned: dict[int, int] = {}  # chunks that nobody takes -> their people
        self._accepted: set[int] = set()  # whose acceptance was heard in this run
        self._touched: set[int] = set()
        self._closed_until: dict[str, float] = {}
        for line in ledger:
            if line.holder is not None:
                self._assigned[line.holder] += line.count
            if line.claimed is None:
                self._unclaimed[line.number] = None

    def __repr__(self) -> str:
        return f"<Board of {self._job}: {self.ledger!r}, {len(self._unclaimed)} unclaimed, {self.counts()}>"

    # --- facts ---------------------------------------------------------------------------------------------

    def teller(self, name: str) -> Teller:
        """What that broadcaster tells; made when it is first named."""
        found = self.tellers.get(name)
        if found is None:
            found = self.tellers[name] = Teller(name, self._campaign, self.outcomes, self._holds)
        return found

    def plan(self, cut: Cut, payload: bytes) -> ChunkLine:
        """A chunk was cut: the next one of the ledger, or one behind its end."""
        self._cut += 1
        if self._cut > len(self.ledger.chunks):
            line = self.ledger.cut(cut.first, cut.last, len(cut.records))
            self._firsts.append(line.first)
            self._unclaimed[line.number] = None
        else:
            line = self.ledger[self._cut]
        by = line.claimed[0] if line.claimed is not None and line.accepted else None
        self.outcomes.plan(cut.records, cut.last, by)
        if line.retired:
            self._give_up(line)
        elif not line.accepted:
            self.payloads[line.number] = payload
        self._touched.add(line.number)
        return line

    def give(self, number: int, name: str, now: float) -> None:
        """A chunk is about to be published to a broadcaster."""
        before = self.ledger[number].holder
        self.ledger.publish(number, name)
        self._reassign(self.ledger[number], before)
        self._sent_at[number] = now

    def take_back(self, number: int, name: str) -> None:
        """What was published to that broadcaster is not on the bus."""
        before = self.ledger[number].holder
        self.ledger.drop(number, name)
        self._reassign(self.ledger[number], before)

    def close_for(self, name: str, until: float) -> None:
        """Its stream takes nothing just now."""
        self._closed_until[name] = until

    def hear_claim(self, key: str, value: bytes | None) -> None:
        """A row of the table `claims`."""
        line = self.line_of(key)
        if line is None:
            return
        if value is None:
            if line.claimed is not None:
                self.forgotten.add(line.number)
            return
        name, _, epoch = value.decode(errors="replace").partition(" ")
        self.forgotten.discard(line.number)
        if self._may_claim(name, epoch):
            self._claim(line, name, epoch)
            return
        self.warn(f"chunk {line.number} was claimed by somebody who is no broadcaster: {name[:80]!r}")
        if line.claimed is None and line.number not in self._abandoned:
            self._abandon(line)  # that row stands in the way of everybody else

    def hear_events(self, name: str, batch: EventBatch) -> None:
        """A batch of what a broadcaster tells."""
        teller = self.teller(name)
        chunks, finished = teller.add(batch)
        if teller.foreign:
            self.warn(f"{name} tells of people whom it was not given: that is not counted")
        for event in chunks:
            line = self.line_of(event.chunk)
            if isinstance(event, ChunkRefused):
                if line is None or _was_given(line, name):
                    self.refusals.append((name, event))
                continue
            if line is None or not self._may_claim(name, batch.epoch):
                continue
            self._claim(line, name, batch.epoch)
            if line.claimed == (name, batch.epoch) and line.number not in self._accepted:
                self._accept(line)
        for record in finished:
            self._touched.add(bisect_right(self._firsts, record))

    def hear_retired(self, name: str, epoch: bytes | None) -> None:
        """A row of the table `retired`."""
        if epoch is None:
            self.retired.pop(name, None)
            return
        self.retired[name] = epoch.decode(errors="replace")
        for line in self.ledger:
            self._retire(line)

    def refuse(self, number: int, name: str) -> bool:
        """A broadcaster will not have a chunk; whether to give it out again. Nobody takes it: abandoned."""
        line = self.ledger[number]
        if line.accepted or line.retired:
            return False
        self._refused[number] += 1
        if self._refused[number] >= REFUSALS_MAX:
            self._abandon(line)
            return False
        if line.claimed is None and name in line.targets:
            self.take_back(number, name)
        return True

    def give_up_events(self, name: str) -> int:
        """Whatever a broadcaster has not told of what it claimed, it never will; how many are ambiguous."""
        lost = 0
        for line in self.ledger:
            if line.claimed is not None and line.claimed[0] == name and not (line.finished or line.retired):
                self.ledger.retire(line.number)
                if line.number <= self._cut:
                    lost += self._give_up(line)
        return lost

    def awaits_acceptance(self, name: str) -> bool:
        """Whether it has claimed a chunk and not said that it has it in its spool."""
        return any(
            line.claimed is not None and line.claimed[0] == name and not (line.accepted or line.retired)
            for line in self.ledger
        )

    # --- what follows --------------------------------------------------------------------------------------

    def names(self) -> set[str]:
        """Every broadcaster that has, had or may get something: whose events count."""
        named = {*self.weights, *self.tellers, *self._assigned}
        return named if self.weights else named | set(self.roster.names())

    def standings(self, now: float) -> list[Standing]:
        """Of all that get work."""
        unclaimed: Counter[str] = Counter()
        for number in self._unclaimed:
            holder = self.ledger[number].holder
            if holder is not None:
                unclaimed[holder] += 1
        return [
            Standing(
                name,
                self.weights.get(name, 1.0),
                self.is_open(name, now),
                unclaimed[name],
                self.waiting(name),
                self.unfinished(name),
                self.teller(name).speed.per_second,
            )
            for name in sorted(self.weights or self.roster.names())[:BROADCASTERS_MAX]
        ]

    def is_open(self, name: str, now: float) -> bool:
        """It may get a chunk now."""
        if self._closed_until.get(name, now) > now or not self.roster.is_open(name, now):
            return False
        status = self.roster.status(name)
        return name not in self.retired or (status is not None and status.epoch != self.retired[name])

    def measure(self, now: float) -> None:
        """Take every broadcaster's speed."""
        for name, teller in self.tellers.items():
            if teller.caught_up:
                teller.speed.add(teller.tried, self.waiting(name), now)
            else:
                teller.speed.start(teller.tried, now)

    def waiting(self, name: str) -> int:
        """Envelopes that it has, or is to have, and that were not tried yet."""
        return max(0, self._assigned[name] - self.teller(name).tried - self._written_off[name])

    def unfinished(self, name: str) -> int:
        counts = self.outcomes.counts(name)
        over = counts.finished + counts.ambiguous + counts.quarantined
        return max(0, self._assigned[name] - over)

    def unclaimed(self, now: float) -> Iterator[Unclaimed]:
        """What nobody has claimed, and can be published."""
        for number in self._unclaimed:
            line = self.ledger[number]
            if number in self.payloads:
                since = now - self._sent_at.get(number, now)
                yield Unclaimed(number, line.count, line.targets, since)

    def finish_chunks(self) -> None:
        """Note which chunks are over. Only those are looked at where something happened."""
        for number in self._touched:
            if not 0 < number <= self._cut:
                continue
            line = self.ledger[number]
            if line.accepted and not line.finished and not self.outcomes.unfinished(line.first, line.last):
                self.ledger.finish(number)
        self._touched.clear()

    @property
    def nothing_unclaimed(self) -> bool:
        return not self._unclaimed

    @property
    def is_over(self) -> bool:
        """Of every chunk that is cut, each person has a state that is not waiting."""
        left = self.outcomes.planned() - self.abandoned
        return self.nothing_unclaimed and left <= 0 and not self.counts().deferred

    @property
    def abandoned(self) -> int:
        """People in chunks that nobody takes: they get nothing."""
        return sum(self._abandoned.values())

    def line_of(self, chunk: str) -> ChunkLine | None:
        """The line of a chunk's id; None for a chunk of another job."""
        number = chunk_number(self._job, chunk)
        if number is None or not 0 < number <= len(self.ledger.chunks):
            return None
        return self.ledger[number]

    def counts(self) -> StateCounts:
        return self.outcomes.counts()

    @property
    def first_attempts(self) -> int:
        return sum(teller.tried for teller in self.tellers.values())

    def gone(self, now: float) -> dict[str, int]:
        """Broadcasters that are not there, and how many of their messages wait for them."""
        waiting = {
            name: self.unfinished(name) for name in self._assigned if not self.roster.is_live(name, now)
        }
        return {name: number for name, number in sorted(waiting.items()) if number and not self._is_off(name)}

    def claims(self) -> Iterator[tuple[str, bytes]]:
        """Every claim that was ever seen, as it was written."""
        for line in self.ledger:
            if line.claimed is not None:
                yield chunk_id(self._job, line.number), " ".join(line.claimed).encode()

    def last_claim(self) -> str | None:
        """The chunk that was claimed last, about: the first that an older copy of the bus would not know."""
        for line in reversed(self.ledger.chunks):
            if line.claimed is not None:
                return chunk_id(self._job, line.number)
        return None

    def warn(self, text: str) -> bool:
        """Keep it for the report; whether it is new."""
        if text in self.warnings or len(self.warnings) >= WARNINGS_MAX:
            return False
        self.warnings.append(text)
        return True

    def _is_off(self, name: str) -> bool:
        return name in self.retired

    def _may_claim(self, name: str, epoch: str) -> bool:
        known = name in self._assigned or len(self._assigned) < BROADCASTERS_MAX
        return known and is_broadcaster(name) and len(epoch) <= EPOCH_CHARS_MAX

    def _holds(self, teller: Teller, record: int, epoch: str) -> bool:
        """Whether the person at that place was given to it, or is in a chunk that it says it has.

        A spool that goes on under another name is known by its epoch.
        """
        number = bisect_right(self._firsts, record)
        if not number:
            return False
        line = self.ledger[number]
        if record > line.last:
            return False
        if line.claimed is not None and line.claimed[1] == epoch:
            return True
        return _was_given(line, teller.name) or chunk_id(self._job, number) in teller.took

    def _abandon(self, line: ChunkLine) -> None:
        self._abandoned[line.number] = line.count
        self._unclaimed.pop(line.number, None)
        self.payloads.pop(line.number, None)

    def _claim(self, line: ChunkLine, name: str, epoch: str) -> None:
        if line.claimed is None:
            before = line.holder
            self.ledger.claim(line.number, name, epoch)
            self._reassign(line, before)
            self._unclaimed.pop(line.number, None)
            self._abandoned.pop(line.number, None)
            self._sent_at.pop(line.number, None)
            self._retire(line)
        elif line.claimed != (name, epoch):
            self.outcomes.may_be_doubled(line.first, line.last)
            self.warn(
                f"chunk {line.number} was claimed by {line.claimed[0]} and then by {name}:"
                f" its {line.count:,} people may get two messages (the bus had forgotten the first claim)"
            )

    def _accept(self, line: ChunkLine) -> None:
        if not line.accepted:
            self.ledger.accept(line.number)
        self._accepted.add(line.number)
        self._abandoned.pop(line.number, None)
        self.payloads.pop(line.number, None)
        assert line.claimed is not None
        self.outcomes.accept(line.first, line.last, line.claimed[0])
        self._touched.add(line.number)

    def _retire(self, line: ChunkLine) -> None:
        if line.claimed is None or line.retired or line.finished:
            return
        name, epoch = line.claimed
        if name in self.retired and self.retired[name] in ("", epoch):
            self.ledger.retire(line.number)
            if line.number <= self._cut:
                self._give_up(line)

    def _give_up(self, line: ChunkLine) -> int:
        assert line.claimed is not None
        name = line.claimed[0]
        count = self.outcomes.give_up(line.first, line.last, name)
        self._written_off[name] += count
        return count

    def _reassign(self, line: ChunkLine, before: str | None) -> None:
        if before != line.holder:
            if before is not None:
                self._assigned[before] -= line.count
            if line.holder is not None:
                self._assigned[line.holder] += line.count


def _was_given(line: ChunkLine, name: str) -> bool:
    """Whether that broadcaster has or had a copy: it may take it, refuse it, and tell of its people."""
    return name in line.targets or (line.claimed is not None and line.claimed[0] == name)
