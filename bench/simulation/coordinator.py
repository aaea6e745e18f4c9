"""The coordinator of a simulated job: cuts the list, deals chunks, moves what nobody claims, folds events.

Who gets a chunk, how large it is and what moves is decided by `control.job.spreading`; here are the
ceilings of the one process that does it (on one core, folding first), of its bus (chunks published and
claimed), and of engines that make chunks durable. The list is shuffled, so that each chunk has mail for
every provider in the list's proportions. A dead broadcaster's claimed chunks stay with it; those it had not
claimed move. Pure.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from bench.simulation.model import ACCEPTS_PER_SECOND, Broadcaster, Scenario
from control.job.roster import Speed
from control.job.spreading import Standing, Unclaimed, deal, given, moves


class Engine(Protocol):
    """What the coordinator knows of a broadcaster, and may do."""

    spec: Broadcaster
    alive: bool
    speed: Speed

    @property
    def waiting(self) -> int: ...

    @property
    def fresh(self) -> int: ...

    def accept(self, counts: Sequence[int]) -> None: ...

    def known_alive(self, now: float) -> bool: ...


class Parcel(Struct):
    """A chunk that is published and not claimed: how many people of each provider, and who has a copy."""

    number: int
    count: int
    counts: list[int]
    targets: list[str]
    at: float


class Ceiling:
    """So much a second, in steps. Of what is left over no more than `keeps` stays for the next step."""

    __slots__ = ("_keeps", "_room", "per_second")

    def __init__(self, per_second: float, keeps: float = 1.0) -> None:
        self.per_second = per_second
        self._keeps = keeps
        self._room = 0.0

    def __repr__(self) -> str:
        return f"<Ceiling {self.per_second:g}/s, {self._room:.1f} left>"

    def step(self, seconds: float) -> None:
        self._room = min(self._room, self._keeps) + self.per_second * seconds

    @property
    def room(self) -> float:
        return self._room

    def take(self, count: float) -> bool:
        """Whether there is room; a large one may borrow from the next steps, which pay for it."""
        if self._room <= 0:
            return False
        self._room -= count
        return True


class CoordinatorModel:
    """Of one job."""

    def __init__(self, scenario: Scenario, engines: Sequence[Engine]) -> None:
        spec = scenario.coordinator
        self.left = scenario.messages  # not cut yet
        self.chunks = 0
        self.moved_chunks = 0
        self.unfolded = 0  # events
        self._scenario = scenario
        self._engines = {each.spec.name: each for each in engines}
        self._unclaimed: list[Parcel] = []
        self._owed = [0.0] * len(scenario.providers)
        self._core = Ceiling(1.0, keeps=0.0)  # seconds of one core: an idle one is gone
        self._per_person = 1 / spec.people_per_second
        self._per_event = 1 / spec.events_per_second
        self._publish = Ceiling(spec.publishes_per_second)
        self._claim = Ceiling(spec.claims_per_second)
        self._accept = {each.spec.name: Ceiling(ACCEPTS_PER_SECOND) for each in engines}

    def __repr__(self) -> str:
        return f"<CoordinatorModel {self.left:,} left, {len(self._unclaimed)} chunks unclaimed>"

    @property
    def held(self) -> int:
        """People whom no engine has accepted."""
        return self.left + sum(parcel.count for parcel in self._unclaimed)

    def hand_out(self, now: float, seconds: float) -> bool:
        """Deal, move and claim what can be in a step. False: there is nothing that more time would let go."""
        for ceiling in (self._core, self._publish, self._claim, *self._accept.values()):
            ceiling.step(seconds)
        self._fold()
        if not self.held:
            return False
        acted = bool(self._unclaimed)
        standings = self._standings(now)
        if self._unclaimed:
            self._move(now, list(standings.values()))
            self._claim_all()
            standings = self._standings(now)
        bounds = self._scenario.bounds
        while self.left:
            if self._core.room <= 0 or self._publish.room < 1:
                return True
            dealt = deal(list(standings.values()), self.left, bounds)
            if dealt is None:
                return acted
            count = min(dealt.size, self.left)
            self._core.take(count * self._per_person)
            self._publish.take(1)
            self.left -= count
            self.chunks += 1
            parcel = Parcel(self.chunks, count, self._mixed(count), [dealt.name], now)
            claimed = self._claimed(parcel)
            if not claimed:
                self._unclaimed.append(parcel)
            standings[dealt.name] = given(standings[dealt.name], count, int(not claimed))
            acted = True
        return acted

    def told(self, events: int) -> None:
        """So many more events were published."""
        self.unfolded += events

    def fold_rest(self) -> float:
        """Nothing else is to be done; how many seconds what is left takes."""
        seconds, self.unfolded = self.unfolded * self._per_event, 0
        return seconds

    def _fold(self) -> None:
        """The report takes in what came in the last step, as far as there is time."""
        room = self._core.room
        count = (
            self.unfolded if not self._per_event else min(self.unfolded, max(0, int(room / self._per_event)))
        )
        self._core.take(count * self._per_event)
        self.unfolded -= count

    def _standings(self, now: float) -> dict[str, Standing]:
        chunks, people = dict.fromkeys(self._engines, 0), dict.fromkeys(self._engines, 0)
        for parcel in self._unclaimed:
            chunks[parcel.targets[-1]] += 1
            people[parcel.targets[-1]] += parcel.count
        measured = self._scenario.measures_speed
        return {
            name: Standing(
                name,
                engine.spec.weight,
                engine.known_alive(now),
                chunks[name],
                engine.fresh + people[name],
                engine.waiting + people[name],
                engine.speed.per_second if measured else None,
            )
            for name, engine in self._engines.items()
        }

    def _move(self, now: float, standings: Sequence[Standing]) -> None:
        known = {parcel.number: parcel for parcel in self._unclaimed}
        unclaimed = [
            Unclaimed(parcel.number, parcel.count, tuple(parcel.targets), now - parcel.at)
            for parcel in self._unclaimed
        ]
        for move in moves(unclaimed, standings, self._scenario.bounds):
            parcel = known[move.number]
            parcel.targets.append(move.name)
            parcel.at = now
            self.moved_chunks += 1

    def _claim_all(self) -> None:
        self._unclaimed = [parcel for parcel in self._unclaimed if not self._claimed(parcel)]

    def _claimed(self, parcel: Parcel) -> bool:
        """Whoever lives and has a copy takes it: the newest one first."""
        for name in reversed(parcel.targets):
            engine = self._engines[name]
            if engine.alive and self._claim.room >= 1 and self._accept[name].take(parcel.count):
                self._claim.take(1)
                engine.accept(parcel.counts)
                return True
        return False

    def _mixed(self, count: int) -> list[int]:
        """People of each provider in the list's proportions; what rounding owes comes with later chunks."""
        owed = self._owed
        for index, provider in enumerate(self._scenario.providers):
            owed[index] += count * provider.share
        counts = [max(0, int(part)) for part in owed]
        missing = count - sum(counts)
        by_debt = sorted(range(len(owed)), key=lambda index: counts[index] - owed[index])
        step = 1 if missing > 0 else -1
        turn = 0
        while missing:
            index = by_debt[turn % len(by_debt)] if step > 0 else by_debt[-1 - turn % len(by_debt)]
            turn += 1
            if counts[index] + step >= 0:
                counts[index] += step
                missing -= step
        for index, taken in enumerate(counts):
            owed[index] -= taken
        return counts
