"""Outcomes: which of them end an envelope."""

import pytest

from engine.model.disposition import Outcome
from engine.mta.spool.api import STATE_OF_OUTCOME, StateCounts


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_outcome_is_final_when_it_has_a_state_to_end_in(outcome: Outcome) -> None:
    assert outcome.final == (outcome in STATE_OF_OUTCOME)


def test_counts_add_up() -> None:
    counts = StateCounts(accepted=20, ambiguous=2, quarantined=1)
    for state in STATE_OF_OUTCOME.values():
        counts.add(state, 2)
    assert (counts.finished, counts.deferred) == (12, 5)
