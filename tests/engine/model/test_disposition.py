"""Outcomes: which of them end an envelope."""

import pytest

from engine.model.disposition import ASSUMED, Outcome, assumed
from engine.mta.spool.api import STATE_OF_OUTCOME, StateCounts


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_outcome_is_final_when_it_has_a_state_to_end_in(outcome: Outcome) -> None:
    assert outcome.final == (outcome in STATE_OF_OUTCOME)


def test_counts_add_up() -> None:
    counts = StateCounts(accepted=20, ambiguous=2, quarantined=1)
    for state in STATE_OF_OUTCOME.values():
        counts.add(state, 2)
    assert (counts.finished, counts.deferred) == (12, 5)


def test_what_is_assumed_is_over_and_says_by_what_rule() -> None:
    taken = assumed(5, 2, "they have it")
    failed = assumed(5, 2, "they say no", delivered=False)
    assert [each.outcome for each in (taken, failed)] == [Outcome.DELIVERED, Outcome.BOUNCED]
    assert (taken.spool_id, taken.attempt, taken.rule, taken.reply) == (5, 2, ASSUMED, "they have it")
    assert taken.outcome.final
    assert failed.outcome.final
