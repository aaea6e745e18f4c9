"""Scheduled queues against a naive model: every id goes out once, in acceptance order where promised."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from engine.mta.queue.scheduled import COMPACT_AT, ScheduledQueue, ScheduledQueues

DOMAINS = st.sampled_from(["a.example", "b.example"])
CAMPAIGNS = st.integers(1, 2)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), CAMPAIGNS, DOMAINS, st.integers(1, 50)),
        st.tuples(st.just("take"), CAMPAIGNS, DOMAINS, st.integers(0, 5)),
        st.tuples(st.just("remove"), CAMPAIGNS, DOMAINS, st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_queues_hold_what_a_plain_model_holds(steps: list[tuple[str, int, str, int]]) -> None:
    queues = ScheduledQueues()
    model: dict[tuple[int, str], list[int]] = defaultdict(list)
    for action, campaign, domain, number in steps:
        held = model[campaign, domain]
        found = {queue.campaign: queue for queue in queues.of_domain(domain)}
        if action == "add":
            made = queues.add(campaign, domain, number)
            assert (made is not None) == (not held)
            held.append(number)
        elif action == "remove":
            gone = queues.remove_campaign(campaign)
            assert {queue.domain: sorted(queue) for queue in gone} == {
                name: sorted(ids) for (of, name), ids in model.items() if of == campaign and ids
            }
            model = defaultdict(list, {key: ids for key, ids in model.items() if key[0] != campaign})
        elif held:
            first = found[campaign].first
            waited = list(found[campaign])
            taken = list(queues.take_until(found[campaign], number, 25))
            assert taken[:1] == [first][:number]
            assert taken == waited[: len(taken)], "from the front"
            assert all(spool_id <= 25 for spool_id in taken[1:])
            after = waited[len(taken) :]
            assert len(taken) == number or not after or after[0] > 25
            for spool_id in taken:
                held.remove(spool_id)
        waiting = {key: sorted(ids) for key, ids in model.items() if ids}
        seen = {
            (queue.campaign, name): sorted(queue)
            for name in queues.domains()
            for queue in queues.of_domain(name)
        }
        assert seen == waiting
        assert len(queues) == queues.waiting == sum(map(len, waiting.values()))


@given(st.lists(st.integers(1, 7), max_size=30), st.integers(1, 60))
def test_ids_go_out_in_acceptance_order(sizes: list[int], count: int) -> None:
    queue = ScheduledQueue(1, "a.example")
    for spool_id in range(1, count + 1):
        queue.add(spool_id)
    out = [spool_id for size in sizes for spool_id in queue.take(size)]
    assert out == list(range(1, count + 1))[: sum(sizes)]
    assert list(queue) == list(range(1, count + 1))[sum(sizes) :]


@given(st.integers(1, 20), st.integers(1, 20))
def test_a_lease_that_was_returned_goes_out_first_again(count: int, size: int) -> None:
    queue = ScheduledQueue(1, "a.example")
    for spool_id in range(1, count + 1):
        queue.add(spool_id)
    for spool_id in reversed(queue.take(size)):
        queue.add(spool_id)
    if size < count:  # an emptied queue keeps no place
        assert list(queue) == list(range(1, count + 1))


def test_a_queue_stops_before_an_id_whose_turn_is_elsewhere() -> None:
    queue = ScheduledQueue(1, "a.example")
    for spool_id in (5, 6, 9):
        queue.add(spool_id)
    assert list(queue.take(10, 8)) == [5, 6]
    assert list(queue.take(10, 8)) == [9], "the first goes in any case"
    assert list(queue.take(10, 8)) == []
    assert len(queue) == 0


def test_a_late_id_goes_to_the_end() -> None:
    queue = ScheduledQueue(1, "a.example")
    for spool_id in (5, 6, 3, 9):
        queue.add(spool_id)
    assert list(queue) == [5, 6, 3, 9]
    assert repr(queue) == "<ScheduledQueue 1 a.example: 4 waiting>"


def test_a_long_queue_gives_its_memory_back_while_it_is_taken() -> None:
    queue = ScheduledQueue(1, "a.example")
    for spool_id in range(3 * COMPACT_AT):
        queue.add(spool_id)
    out = []
    while len(queue):
        out.extend(queue.take(100))
        assert len(queue._ids) - len(queue) < COMPACT_AT
    assert out == list(range(3 * COMPACT_AT))


def test_a_queue_exists_while_it_holds_something() -> None:
    queues = ScheduledQueues()
    queue = queues.add(1, "a.example", 7)
    assert queue is not None
    assert queues.add(1, "a.example", 8) is None
    assert repr(queues) == "<ScheduledQueues: 2 waiting for 1 domains>"
    assert list(queues.take_until(queue, 5, 100)) == [7, 8]
    assert (queues.of_domain("a.example"), list(queues.domains())) == ([], [])
    assert queues.add(1, "a.example", 9) is not None


def test_a_removed_campaign_is_empty_for_whoever_holds_its_queue() -> None:
    queues = ScheduledQueues()
    queue = queues.add(1, "a.example", 7)
    assert queue is not None
    assert [list(gone) for gone in queues.remove_campaign(1)] == [[7]]
    assert (len(queue), queues.waiting) == (0, 0)


def test_all_queues_are_those_that_hold_something() -> None:
    queues = ScheduledQueues()
    for campaign, domain in ((1, "a.example"), (2, "a.example"), (1, "b.example")):
        queues.add(campaign, domain, 7)
    gone = queues.of_domain("a.example")[0]
    queues.take_until(gone, 1, 7)
    assert {(queue.campaign, queue.domain) for queue in queues.all()} == {(2, "a.example"), (1, "b.example")}
    queues.remove_campaign(1)
    assert [queue.campaign for queue in queues.all()] == [2]


def test_a_new_queue_waits_for_a_place() -> None:
    queue = ScheduledQueues().add(1, "a.example", 7)
    assert queue is not None
    assert queue.place is None
