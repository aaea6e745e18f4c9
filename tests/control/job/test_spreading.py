"""Shares follow weight and speed, bounds hold, and every chunk is claimed once, whoever dies meanwhile."""

import random
from typing import Any

from hypothesis import given as for_all
from hypothesis import strategies as st

from control.job.spreading import (
    CHUNK_ENTRIES_MIN,
    Bounds,
    Deal,
    Move,
    Standing,
    Unclaimed,
    choose,
    deal,
    given,
    has_room,
    moves,
)
from engine.model.envelope import CHUNK_ENTRIES_MAX

BOUNDS = Bounds(chunks_ahead=2, ahead_seconds=10, waiting_min=1_000, unfinished_max=5_000)


def test_the_one_that_would_be_through_first_gets_the_next_chunk() -> None:
    slow = Standing("a", waiting=500, unfinished=500, per_second=10)
    fast = Standing("b", waiting=2_000, unfinished=2_000, per_second=1_000)
    assert choose([slow, fast], 100) == "b"
    assert deal([slow, fast], 1_000_000) is not None
    assert deal([slow, fast], 1_000_000).name == "b"  # type: ignore[union-attr]


def test_a_weight_counts_like_speed() -> None:
    assert choose([Standing("a", weight=1), Standing("b", weight=2)], 100) == "b"
    a, b = Standing("a", weight=1, waiting=150), Standing("b", weight=2, waiting=300)
    assert choose([a, b], 100) == "b"
    assert choose([given(a, -150, 0), given(b, 100, 0)], 100) == "a"


def test_who_was_not_measured_is_taken_for_average() -> None:
    known = [Standing("a", per_second=100.0, waiting=1_000), Standing("b", per_second=300.0, waiting=1_000)]
    assert choose([*known, Standing("c", waiting=550)], 1) == "c"
    assert choose([*known, Standing("c", waiting=700)], 1) == "b"


def test_nobody_open_or_with_room_gets_nothing() -> None:
    closed = Standing("a", open=False)
    full = Standing("b", unclaimed_chunks=2, unfinished=1)
    much = Standing("c", waiting=1_000, unfinished=1_000)
    old = Standing("d", waiting=0, unfinished=5_000)
    for each in (closed, full, much, old):
        assert choose([each], 100, BOUNDS) is None
        assert deal([each], 100, BOUNDS) is None


def test_a_chunk_is_as_large_as_there_is_room() -> None:
    busy = Standing("a", waiting=700, unfinished=700)
    assert deal([busy], 1_000_000, BOUNDS) == Deal("a", 300)
    assert deal([given(busy, 250, 0)], 1_000_000, BOUNDS) is None
    fast = Standing("a", waiting=700, unfinished=700, per_second=200.0)
    assert deal([fast], 1_000_000, BOUNDS) == Deal("a", 1_300)


def test_an_idle_broadcaster_gets_a_chunk_however_narrow_the_bounds() -> None:
    assert has_room(Standing("a"), 5_000, Bounds(waiting_min=0, unfinished_max=1))


def test_chunks_shrink_towards_the_end_to_a_part_of_each_ones_share() -> None:
    two = [Standing("a", weight=3), Standing("b", weight=1)]
    assert deal(two, 10_000_000).size == CHUNK_ENTRIES_MAX  # type: ignore[union-attr]
    assert deal(two, 8_000) == deal([two[0], given(two[1], 9, 0)], 8_000)
    assert deal(two, 8_000).size == 1_500  # type: ignore[union-attr]
    assert deal([given(two[0], 9, 0), two[1]], 8_000).size == 500  # type: ignore[union-attr]
    assert deal(two, 1).size == CHUNK_ENTRIES_MIN  # type: ignore[union-attr]


def test_a_chunk_of_a_dead_broadcaster_moves_and_one_of_a_living_one_has_patience() -> None:
    dead, living = Standing("a", open=False, unclaimed_chunks=1), Standing("b")
    chunk = Unclaimed(1, 100, ("a",), 0.0)
    assert moves([chunk], [dead, living]) == [Move(1, "b")]
    slow = Standing("a", unclaimed_chunks=1)
    assert moves([chunk], [slow, living]) == []
    assert moves([Unclaimed(1, 100, ("a",), 31.0)], [slow, living]) == [Move(1, "b")]


def test_a_chunk_never_goes_where_a_copy_of_it_is() -> None:
    dead, living = Standing("a", open=False), Standing("b")
    assert moves([Unclaimed(1, 100, ("b", "a"), 99.0)], [dead, living]) == []
    assert moves([Unclaimed(1, 100, (), 0.0)], [dead, living]) == [Move(1, "b")]


def test_moves_count_each_other() -> None:
    dead, living = Standing("a", open=False), Standing("b")
    chunks = [Unclaimed(number, 100, ("a",), 0.0) for number in range(1, 6)]
    assert len(moves(chunks, [dead, living], BOUNDS)) == BOUNDS.chunks_ahead


class World:
    """Broadcasters that take chunks, work, die and come back, under a coordinator that follows the rules."""

    def __init__(self, dice: random.Random, weights: dict[str, float], total: int, bounds: Bounds) -> None:
        self.dice = dice
        self.bounds = bounds
        self.left = total
        self.alive = dict.fromkeys(weights, True)
        self.weights = weights
        self.streams: dict[str, list[int]] = {name: [] for name in weights}
        self.chunks: dict[int, Any] = {}  # number -> [count, targets, claimed by]
        self.untried: dict[str, int] = dict.fromkeys(weights, 0)
        self.sent = 0

    def standings(self) -> list[Standing]:
        found = []
        for name, weight in self.weights.items():
            unclaimed = [c for c in self.chunks.values() if c[2] is None and c[1] and c[1][-1] == name]
            waiting = self.untried[name] + sum(c[0] for c in unclaimed)
            found.append(
                Standing(name, weight, self.alive[name], len(unclaimed), waiting, waiting, 100.0 * weight)
            )
        return found

    def publish(self, number: int, name: str) -> None:
        self.chunks[number][1].append(name)
        self.streams[name].append(number)
        now = {each.name: each for each in self.standings()}[name]
        assert now.unclaimed_chunks <= self.bounds.chunks_ahead
        assert now.waiting <= max(
            self.bounds.waiting_min, 100 * self.weights[name] * self.bounds.ahead_seconds
        ) or (now.waiting == self.chunks[number][0])
        assert now.unfinished <= self.bounds.unfinished_max or now.unfinished == self.chunks[number][0]

    def coordinate(self) -> None:
        unclaimed = [
            Unclaimed(number, count, tuple(targets), 0.0)
            for number, (count, targets, claimed) in self.chunks.items()
            if claimed is None
        ]
        for move in moves(unclaimed, self.standings(), self.bounds):
            self.publish(move.number, move.name)
        while self.left and (dealt := deal(self.standings(), self.left, self.bounds)):
            count = min(dealt.size, self.left)
            self.left -= count
            number = len(self.chunks) + 1
            self.chunks[number] = [count, [], None]
            self.publish(number, dealt.name)

    def work(self) -> None:
        for name in self.weights:
            if not self.alive[name]:
                continue
            if self.streams[name] and self.dice.random() < 0.7:
                number = self.streams[name].pop(0)
                if self.chunks[number][2] is None:
                    self.chunks[number][2] = name
                    self.untried[name] += self.chunks[number][0]
            done = min(self.untried[name], self.dice.randrange(1_000))
            self.untried[name] -= done
            self.sent += done

    def turn_fate(self) -> None:
        name = self.dice.choice(list(self.weights))
        others = sum(self.alive.values()) - self.alive[name]
        self.alive[name] = not self.alive[name] or not others

    @property
    def over(self) -> bool:
        return not self.left and not any(self.untried.values()) and all(c[2] for c in self.chunks.values())


@for_all(
    seed=st.integers(0, 2**32),
    weights=st.lists(st.floats(0.1, 10), min_size=1, max_size=5),
    total=st.integers(1, 60_000),
)
def test_whoever_dies_and_comes_back_everybody_is_sent_once_within_the_bounds(
    seed: int, weights: list[float], total: int
) -> None:
    dice = random.Random(seed)
    named = {f"b{number}": weight for number, weight in enumerate(weights)}
    world = World(dice, named, total, BOUNDS)
    for _ in range(20_000):
        world.coordinate()
        world.work()
        if dice.random() < 0.1:
            world.turn_fate()
        if world.over:
            break
    assert world.over
    assert world.sent == total == sum(count for count, _, _ in world.chunks.values())
