"""The counters that every report stands on: states of which each envelope has exactly one."""

from hypothesis import given
from hypothesis import strategies as st

from engine.mta.spool.api import STATE_OF_OUTCOME, StateCounts

STATES = (*STATE_OF_OUTCOME.values(), "ambiguous", "quarantined")


@given(st.lists(st.sampled_from(STATES)), st.integers(0, 50))
def test_what_is_in_no_other_state_is_deferred(settled, waiting):
    counts = StateCounts(accepted=len(settled) + waiting)
    for state in settled:
        counts.add(state, 1)
    assert counts.deferred == waiting
    assert counts.finished + counts.ambiguous + counts.quarantined == len(settled)


def test_was_ambiguous_is_no_state():
    counts = StateCounts(accepted=1)
    counts.add("was_ambiguous", 1)
    assert counts.deferred == 1
