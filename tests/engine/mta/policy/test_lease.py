"""A connection asks for what it is worth: a fraction of a second of its own rate."""

from hypothesis import given
from hypothesis import strategies as st

from engine.mta.policy.lease import FIRST_LEASE, LeaseSize

MOST = 64


def test_it_begins_small():
    assert LeaseSize(MOST).size == FIRST_LEASE


def test_the_first_grant_tells_no_rate():
    size = LeaseSize(MOST)
    size.granted(10.0, 0)
    assert size.size == FIRST_LEASE


def test_it_grows_to_150_ms_of_the_answered_rate():
    size = LeaseSize(MOST)
    size.granted(10.0, 0)
    size.granted(11.0, 200)
    assert size.size == 30


def test_a_slow_peer_gets_small_leases():
    size = LeaseSize(MOST)
    size.granted(10.0, 0)
    size.granted(14.0, 4)
    assert size.size == FIRST_LEASE


def test_running_dry_doubles_it_whatever_the_rate_was():
    size = LeaseSize(MOST)
    size.granted(10.0, 0)
    size.run_dry()
    size.granted(60.0, 4)
    assert size.size == 2 * FIRST_LEASE


def test_running_dry_counts_once():
    size = LeaseSize(MOST)
    size.run_dry()
    size.granted(1.0, 0)
    size.granted(2.0, 20)
    assert size.size == FIRST_LEASE


@given(
    st.lists(st.tuples(st.floats(0.0, 100.0), st.integers(0, 10_000), st.booleans()), min_size=1, max_size=30)
)
def test_it_stays_within_its_bounds(grants):
    size = LeaseSize(MOST)
    now, answered = 1.0, 0
    for pause, served, dry in grants:
        now += pause
        answered += served
        if dry:
            size.run_dry()
        size.granted(now, answered)
        assert FIRST_LEASE <= size.size <= MOST
