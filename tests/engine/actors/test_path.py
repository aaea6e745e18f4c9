"""What the scheduler keeps of one path: how much it may still be offered, and what it has."""

import pytest

from engine.actors.path import URGENT_PLACES, Path, count_waiting
from engine.mta.queue.fair import BULK, TRANSACTIONAL
from engine.mta.queue.scheduled import ScheduledQueues

SITE, NOWHERE = "out>mx.test", "!gone.test"


def waiting(path: Path, rank: int) -> Path:
    queue = ScheduledQueues().add(7, "a.test", 1)
    assert queue is not None
    path.waiting.push(queue, rank, "")
    return path


@pytest.mark.parametrize(
    ("credit", "rank", "is_open"),
    [
        (1, BULK, True),
        (0, BULK, False),
        (0, TRANSACTIONAL, True),  # it has places of its own
        (1 - URGENT_PLACES, TRANSACTIONAL, True),
        (-URGENT_PLACES, TRANSACTIONAL, False),
        (-1, BULK, False),
    ],
)
def test_transactional_mail_finds_a_path_open_when_others_do_not(
    credit: int, rank: int, is_open: bool
) -> None:
    path = waiting(Path(SITE), rank)
    path.credit = credit
    assert bool(path.open) == is_open


@pytest.mark.parametrize("rank", [BULK, TRANSACTIONAL])
def test_a_path_that_is_new_or_closed_takes_nothing_before_it_tells_of_room(rank: int) -> None:
    path = waiting(Path(SITE), rank)
    assert not path.open
    path.credit = 5
    assert path.open
    path.close()
    assert not path.open


def test_a_domain_without_a_route_has_no_places_beyond_what_it_said() -> None:
    path = waiting(Path(NOWHERE), TRANSACTIONAL)
    path.credit = 0
    assert not path.open


def test_it_shows_what_it_has() -> None:
    path = Path(SITE)
    path.credit = 3
    path.mark(11, "a.test", 7)
    assert repr(path) == "<Path out>mx.test: 1 released, room for 3, <FairQueue: []>>"


def test_a_path_that_is_emptied_hands_out_its_queues_without_a_place() -> None:
    path = waiting(Path(SITE), BULK)
    (queue,) = path.waiting.flows()[0].queues()
    assert queue.place is path.waiting
    assert path.empty() == [queue]
    assert queue.place is None
    assert len(queue) == 1, "its ids are its own"
    assert not path.waiting
    assert path.empty() == []


def test_a_path_that_is_emptied_leaves_alone_what_went_elsewhere() -> None:
    path, other = waiting(Path(SITE), BULK), Path("out>mx.other.test")
    (queue,) = path.waiting.flows()[0].queues()
    other.waiting.push(queue, BULK, "")
    assert path.empty() == []
    assert queue.place is other.waiting


def test_what_waits_is_counted_as_far_as_it_matters() -> None:
    queues = ScheduledQueues()
    path = Path(SITE)
    for domain in ("a.test", "b.test"):
        queue = queues.add(7, domain, 1)
        assert queue is not None
        path.waiting.push(queue, BULK, "")
        queues.add(7, domain, 2)
    (flow,) = path.waiting.flows()
    assert [count_waiting(flow, most) for most in (1, 3, 9)] == [1, 3, 4]
