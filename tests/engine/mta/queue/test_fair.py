"""Fair shares inside a site: weights hold while everybody waits, nobody saves up turns, nothing is lost."""

from array import array
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engine.mta.queue.fair import BULK, DEFAULT, QUANTUM, TRANSACTIONAL, FairQueue, Flow
from engine.mta.queue.scheduled import ScheduledQueue, ScheduledQueues


class House:
    """Scheduled queues and one path that they all wait for."""

    def __init__(self) -> None:
        self.queues = ScheduledQueues()
        self.path = FairQueue()
        self.released: list[tuple[int, str, int]] = []
        self.next_id = 1

    def add(
        self,
        number: int,
        campaign: int,
        workspace: str = "default",
        rank: int = BULK,
        weights: tuple[float, float] = (1.0, 1.0),
        domain: str = "a.example",
    ) -> None:
        for _ in range(number):
            queue = self.queues.add(campaign, domain, self.next_id)
            self.next_id += 1
            if queue is not None:
                self.path.push(queue, rank, workspace, *weights)

    def mark(self, spool_id: int, domain: str, campaign: int) -> None:
        self.released.append((spool_id, domain, campaign))

    def take(self, limit: int, held: frozenset[int] = frozenset()) -> list[int]:
        """The campaigns of what is released."""
        before = len(self.released)
        out = array("Q")

        def allowance(flow: Flow, wanted: int) -> int:
            return 0 if flow.campaign in held else wanted

        take = self.queues.take_until
        count = self.path.take(limit, take, out, self.mark, allowance if held else None)
        assert count == len(out) == len(self.released) - before
        return [campaign for _, _, campaign in self.released[before:]]


def shares(campaigns: list[int]) -> dict[int, float]:
    counted = Counter(campaigns)
    return {campaign: count / len(campaigns) for campaign, count in counted.items()}


def test_one_campaign_goes_out_in_acceptance_order_over_its_domains() -> None:
    house = House()
    for number in range(60):
        house.add(1, 1, domain=f"d{number % 7}.example")
    house.take(60)
    assert [spool_id for spool_id, _, _ in house.released] == list(range(1, 61))
    assert not house.path


def test_two_workspaces_get_what_their_weights_say_while_both_wait() -> None:
    house = House()
    house.add(20_000, 1, "a", weights=(1.0, 1.0))
    house.add(20_000, 2, "b", weights=(3.0, 1.0))
    found = shares([campaign for _ in range(80) for campaign in house.take(100)])
    assert abs(found[1] - 0.25) < 0.01
    assert abs(found[2] - 0.75) < 0.01


def test_more_campaigns_do_not_give_a_workspace_more() -> None:
    house = House()
    house.add(5_000, 1, "a")
    for campaign in range(2, 12):
        house.add(2_000, campaign, "b")
    found = shares([campaign for _ in range(60) for campaign in house.take(100)])
    assert abs(found[1] - 0.5) < 0.02
    assert all(abs(found[campaign] - 0.05) < 0.02 for campaign in range(2, 12))


def test_campaigns_of_one_workspace_share_by_their_own_weights() -> None:
    house = House()
    house.add(9_000, 1, "a", weights=(1.0, 1.0))
    house.add(9_000, 2, "a", weights=(1.0, 2.0))
    found = shares([campaign for _ in range(60) for campaign in house.take(100)])
    assert abs(found[1] - 1 / 3) < 0.02


def test_who_comes_later_does_not_make_up_for_the_time_it_was_away() -> None:
    house = House()
    house.add(10_000, 1, "a")
    house.take(5_000)
    house.add(10_000, 2, "b")
    found = shares(house.take(2_000))
    assert abs(found[1] - 0.5) < 0.03


def test_ordinary_mail_overtakes_campaigns_and_does_not_starve_them() -> None:
    house = House()
    house.add(10_000, 1, rank=BULK)
    house.add(10_000, 2, rank=DEFAULT)
    found = shares(house.take(4_000))
    assert abs(found[2] - 8 / 9) < 0.02
    assert found[1] > 0.08


def test_transactional_mail_is_apart_and_first() -> None:
    house = House()
    house.add(100, 1)
    house.add(3, 7, rank=TRANSACTIONAL)
    assert house.path.urgent
    out = array("Q")
    assert house.path.take_urgent(10, house.queues.take_until, out, house.mark) == 3
    assert list(out) == [101, 102, 103]
    assert not house.path.urgent
    assert house.path.ordinary


def test_a_held_campaign_is_passed_over_and_goes_on_later() -> None:
    house = House()
    house.add(500, 1)
    house.add(500, 2)
    assert set(house.take(200, held=frozenset({1}))) == {2}
    assert house.take(200, held=frozenset({1, 2})) == []
    assert Counter(house.take(800)) == {1: 500, 2: 300}


def test_an_allowance_that_is_smaller_than_the_wish_is_kept() -> None:
    house = House()
    house.add(500, 1)
    out = array("Q")
    count = house.path.take(
        100, house.queues.take_until, out, house.mark, lambda flow, wanted: min(wanted, 5)
    )
    assert count == 5


def test_shares_hold_in_small_takes_as_well() -> None:
    house = House()
    house.add(3_000, 1, "a")
    house.add(3_000, 2, "b")
    found = shares([campaign for _ in range(3_000) for campaign in house.take(1)])
    assert abs(found[1] - 0.5) < 0.01


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(1, 4), st.integers(1, 80)),
            st.tuples(st.just("take"), st.just(0), st.integers(1, 200)),
            st.tuples(st.just("hold"), st.integers(1, 4), st.integers(1, 200)),
        ),
        max_size=40,
    )
)
def test_everything_comes_out_once_and_shares_are_never_off_by_more_than_a_turn(
    steps: list[tuple[str, int, int]],
) -> None:
    house = House()
    waiting: Counter[int] = Counter()
    for action, campaign, number in steps:
        if action == "add":
            house.add(number, campaign, f"w{campaign % 2}", domain=f"d{number % 3}.example")
            waiting[campaign] += number
            continue
        held = frozenset({campaign}) if action == "hold" else frozenset()
        free = sum(count for of, count in waiting.items() if of not in held)
        got = house.take(number, held)
        assert len(got) == min(number, free)
        waiting.subtract(got)
    assert bool(house.path) == any(waiting.values())
    left = house.take(10**9)
    assert Counter(left) == Counter({of: count for of, count in waiting.items() if count})
    ids = [spool_id for spool_id, _, _ in house.released]
    assert sorted(ids) == list(range(1, house.next_id))


def test_a_turn_is_at_most_half_a_lease() -> None:
    house = House()
    house.add(1_000, 1, "a")
    house.add(1_000, 2, "b")
    runs, last = [0], 0
    for campaign in house.take(1_000):
        if campaign != last:
            runs.append(0)
            last = campaign
        runs[-1] += 1
    assert max(runs) <= 2 * QUANTUM


# --- places -------------------------------------------------------------------------------------------


def test_a_queue_that_went_elsewhere_is_taken_from_there_alone() -> None:
    house, other = House(), FairQueue()
    house.add(5, 1)
    (queue,) = house.path.flows()[0].queues()
    other.push(queue, BULK, "default")
    assert queue.place is other
    assert list(house.path.flows()[0].queues()) == []
    assert house.take(9) == []
    assert not house.path, "what is left of it is cleared away"
    out = array("Q")
    other.take(9, house.queues.take_until, out, house.mark)
    assert list(out) == [1, 2, 3, 4, 5]


def test_a_queue_without_a_place_stays_where_it_is() -> None:
    house = House()
    house.add(5, 1)
    house.add(5, 1, domain="b.example")
    parked = next(queue for queue in house.path.flows()[0].queues() if queue.domain == "a.example")
    parked.place = None
    assert house.take(9) == [1] * 5
    assert {domain for _, domain, _ in house.released} == {"b.example"}
    assert list(parked) == [1, 2, 3, 4, 5]


def test_transactional_mail_without_a_place_is_passed_over() -> None:
    house = House()
    house.add(2, 1, rank=TRANSACTIONAL)
    (queue,) = house.path.flows()[0].queues()
    queue.place = None
    out = array("Q")
    assert house.path.take_urgent(9, house.queues.take_until, out, house.mark) == 0
    assert not house.path


def test_a_queue_that_comes_back_stands_there_once() -> None:
    house = House()
    house.add(100, 1)
    (queue,) = house.path.flows()[0].queues()
    for _ in range(3):
        queue.place = None
        house.path.push(queue, BULK, "default")
    assert list(house.path.flows()[0].queues()) == [queue]
    calls: list[int] = []

    def take(queue: ScheduledQueue, limit: int, below: int) -> "array[int]":
        calls.append(limit)
        return house.queues.take_until(queue, limit, below)

    out = array("Q")
    assert house.path.take(100, take, out, house.mark) == 100
    assert list(out) == list(range(1, 101))
    assert len(calls) == 1, "its ids go out at once, not one by one"
