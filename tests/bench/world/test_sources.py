"""What a provider keeps of a source address: rates counted two ways, connections, and a name that mends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.world.manners import Manners, Reputation
from bench.world.provider import Provider
from bench.world.sources import SourceAccount, Standing

STERN = Reputation(
    throttle_refusals=3, block_refusals=5, forgets_per_second=0.5, throttled_share=0.5, block_seconds=10.0
)


def taken(account: SourceAccount, moments: list[float]) -> list[float]:
    return [now for now in moments if not account.over_rate(now)]


def test_a_rate_lets_its_burst_through_and_then_its_interval():
    account = SourceAccount(Manners(rate_per_minute=60, rate_burst=3))
    assert [account.over_rate(0.0) for _ in range(5)] == [False, False, False, True, True]
    assert not account.over_rate(1.0)
    assert account.over_rate(1.0)
    assert account.refusals == 3


def test_a_fixed_window_begins_with_its_first_message_and_lets_all_through_at_once():
    account = SourceAccount(Manners(rate_per_minute=60, rate_window_seconds=5.0))
    assert len(taken(account, [7.0] * 9)) == 5
    assert account.over_rate(11.9)
    assert len(taken(account, [12.0] * 9)) == 5


@given(
    st.lists(st.floats(0.0, 2.0), min_size=1, max_size=60),
    st.integers(1, 5),
    st.sampled_from([0.0, 1.0, 3.0]),
)
def test_no_stretch_of_time_gets_more_than_the_rate_and_one_burst(gaps, burst, window_seconds):
    per_second = 2.0
    account = SourceAccount(
        Manners(rate_per_minute=per_second * 60, rate_burst=burst, rate_window_seconds=window_seconds)
    )
    now, moments = 0.0, []
    for gap in gaps:
        now += gap
        moments.append(now)
    accepted = taken(account, moments)
    # Two windows may meet: the end of one and all of the next.
    extra = 2 * per_second * window_seconds if window_seconds else burst
    for first, begin in enumerate(accepted):
        for count, end in enumerate(accepted[first:], 1):
            assert count <= per_second * (end - begin) + extra + 1e-6


def test_the_cap_of_connections_counts_those_that_are_open():
    account = SourceAccount(Manners(connections_max=2))
    over = []
    for _ in range(3):
        account.opened()
        over.append(account.over_connections(0.0))
    assert over == [False, False, True]
    account.closed()
    assert not account.over_connections(0.0)
    assert account.connections_peak == 3


def test_two_sources_have_limits_of_their_own_over_all_hosts():
    provider = Provider("p", Manners(rate_per_minute=60, rate_burst=1))
    assert not provider.account("127.0.0.1").over_rate(0.0)
    assert provider.account("127.0.0.1").over_rate(0.0)
    assert not provider.account("127.0.0.2").over_rate(0.0)


def test_refusals_throttle_then_block_and_the_source_comes_back_throttled():
    account = SourceAccount(Manners(rate_per_minute=60, rate_burst=1, reputation=STERN))
    account.over_rate(0.0)
    standings = []
    for _ in range(5):
        assert account.over_rate(0.0)
        standings.append(account.standing(0.0))
    assert standings == [Standing.GOOD] * 2 + [Standing.THROTTLED] * 2 + [Standing.BLOCKED]
    assert account.standing(9.9) is Standing.BLOCKED
    assert account.standing(10.0) is Standing.THROTTLED
    assert account.standing(10.1) is Standing.GOOD
    assert account.blocks == 1


def test_a_throttled_source_gets_its_share_of_each_limit_until_time_has_mended_its_name():
    account = SourceAccount(Manners(rate_per_minute=120, rate_burst=1, connections_max=4, reputation=STERN))
    for _ in range(5):
        account.over_rate(0.0)
    assert account.standing(0.0) is Standing.THROTTLED
    assert not account.over_rate(0.9)
    assert not account.over_rate(1.9)
    assert account.over_rate(2.6)  # half the rate: the next one would be due after a second
    for _ in range(3):
        account.opened()
    assert account.over_connections(2.6)
    assert account.standing(20.0) is Standing.GOOD
    assert not account.over_connections(20.0)


@pytest.mark.parametrize("refused", ["rate", "connections"])
def test_refusals_without_a_reputation_never_block(refused):
    account = SourceAccount(Manners(rate_per_minute=1, rate_burst=1, connections_max=1))
    account.opened()
    account.opened()
    for _ in range(1_000):
        account.over_rate(0.0) if refused == "rate" else account.over_connections(0.0)
    assert account.standing(0.0) is Standing.GOOD
    assert account.blocks == 0
    assert "refusals" in repr(account)
