"""Who gets the next chunk, how large it is, and which ones move: weight times measured speed, within bounds.

A broadcaster's turn comes when what waits for it would take it the least time; near the end of the list
chunks shrink to a part of what is left, so that all finish together. Three bounds hold the work back: chunks
that nobody claimed yet, envelopes that were not tried yet (some time's worth of its speed), and envelopes
that are not finished. A chunk that nobody claimed moves when its broadcaster cannot take it, to one that
has not had it; whoever claims first has it, so a copy that is left behind does no harm. Pure.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from engine.model.envelope import CHUNK_ENTRIES_MAX

CHUNK_ENTRIES_MIN = 100  # smaller ones cost more in claims and commits than they even out
PARTS_LEFT = 4  # a chunk is at most a quarter of its broadcaster's share of what is left
SPEED_FLOOR = 0.05  # of the fastest: one that stands still gets a little, to be measured by


class Bounds(Struct, frozen=True):
    """How far ahead of a broadcaster the coordinator goes."""

    chunks_ahead: int = 4  # unclaimed; intake takes as many at a time
    ahead_seconds: float = 120.0  # of its speed, envelopes that were not tried yet
    waiting_min: int = 2_000  # of those, whatever the speed: a second of a fast one, until it is measured
    unfinished_max: int = 2_000_000  # 0.4 GB of its spool
    unclaimed_seconds: float = 30.0  # after that a living broadcaster's chunk moves, too


DEFAULT_BOUNDS = Bounds()


class Standing(Struct, frozen=True):
    """What is known of one broadcaster. `waiting` and `unfinished` count envelopes, unclaimed ones too."""

    name: str
    weight: float = 1.0
    open: bool = True  # it lives, is ready and takes work
    unclaimed_chunks: int = 0
    waiting: int = 0  # given to it and not tried yet
    unfinished: int = 0  # given to it and not finished yet
    per_second: float | None = None  # envelopes tried; None = not measured yet


class Deal(Struct, frozen=True):
    """The next chunk: whose it is, and how many envelopes it may have."""

    name: str
    size: int


class Unclaimed(Struct, frozen=True):
    """A published chunk that nobody has claimed."""

    number: int
    count: int
    targets: tuple[str, ...]  # who has a copy, the last one newest
    since_seconds: float  # how long ago the newest was published


class Move(Struct, frozen=True):
    number: int
    name: str


def deal(standings: Sequence[Standing], left: int, bounds: Bounds = DEFAULT_BOUNDS) -> Deal | None:
    """The next chunk of a list of which about `left` people are not cut yet; None = nobody has room."""
    forces = _forces(standings)
    everything = sum(forces[each.name] for each in standings if each.open) or 1.0
    for each in sorted(standings, key=lambda each: (each.waiting / forces[each.name], each.name)):
        share = left * forces[each.name] / everything
        size = min(CHUNK_ENTRIES_MAX, max(CHUNK_ENTRIES_MIN, int(share / PARTS_LEFT)))
        if has_room(each, size, bounds):
            return Deal(each.name, size)
        if has_room(each, CHUNK_ENTRIES_MIN, bounds):
            return Deal(each.name, max(CHUNK_ENTRIES_MIN, room(each, bounds)))
    return None


def choose(standings: Iterable[Standing], size: int, bounds: Bounds = DEFAULT_BOUNDS) -> str | None:
    """Who gets a chunk of this size: the one that would be through with it first. None = nobody has room."""
    known = list(standings)
    forces = _forces(known)
    fitting = [each for each in known if has_room(each, size, bounds)]
    best = min(fitting, key=lambda each: ((each.waiting + size) / forces[each.name], each.name), default=None)
    return None if best is None else best.name


def has_room(standing: Standing, size: int, bounds: Bounds = DEFAULT_BOUNDS) -> bool:
    """Whether a chunk of this size keeps a broadcaster within the bounds. One without work always may."""
    if not standing.open or standing.unclaimed_chunks >= bounds.chunks_ahead:
        return False
    if not standing.unfinished:
        return True
    return size <= room(standing, bounds)


def room(standing: Standing, bounds: Bounds = DEFAULT_BOUNDS) -> int:
    """How many envelopes a broadcaster with work may get."""
    waiting_max = max(bounds.waiting_min, int((standing.per_second or 0.0) * bounds.ahead_seconds))
    return min(waiting_max - standing.waiting, bounds.unfinished_max - standing.unfinished)


def moves(
    unclaimed: Iterable[Unclaimed], standings: Sequence[Standing], bounds: Bounds = DEFAULT_BOUNDS
) -> list[Move]:
    """What goes to another broadcaster now; each move is counted before the next one is decided."""
    now = {each.name: each for each in standings}
    found: list[Move] = []
    for chunk in unclaimed:
        holder = now.get(chunk.targets[-1]) if chunk.targets else None
        patient = holder is not None and holder.open and chunk.since_seconds < bounds.unclaimed_seconds
        if patient:
            continue
        name = choose((each for each in now.values() if each.name not in chunk.targets), chunk.count, bounds)
        if name is not None:
            found.append(Move(chunk.number, name))
            if holder is not None:
                now[holder.name] = given(holder, -chunk.count, -1)
            now[name] = given(now[name], chunk.count, 1)
    return found


def given(standing: Standing, envelopes: int, chunks: int) -> Standing:
    """The broadcaster with so much more work that is not claimed yet."""
    return Standing(
        standing.name,
        standing.weight,
        standing.open,
        standing.unclaimed_chunks + chunks,
        standing.waiting + envelopes,
        standing.unfinished + envelopes,
        standing.per_second,
    )


def _forces(standings: Iterable[Standing]) -> dict[str, float]:
    """Weight times speed; who was not measured is taken for an average one."""
    known = list(standings)
    measured = [each.per_second for each in known if each.per_second is not None]
    fastest = max(measured, default=0.0)
    average = sum(measured) / len(measured) if fastest else 1.0
    floor = fastest * SPEED_FLOOR or 1.0
    return {
        each.name: each.weight * max(floor, average if each.per_second is None else each.per_second)
        for each in known
    }
