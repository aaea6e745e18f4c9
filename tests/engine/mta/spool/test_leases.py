"""Who holds which envelope, also when commits fail."""

import pytest

from engine.config import AmbiguousPolicy
from engine.model.disposition import DelayReason, Disposition, Outcome
from engine.model.envelope import Envelope
from engine.mta.spool.api import SUSPECTS_MAX, Lease
from engine.mta.spool.leases import OpenLeases, judge_orphans, orphan, pack_lease, unpack_lease


def a_lease(number: int, *ids: int) -> Lease:
    return Lease(number, tuple(Envelope(i, 1, 1, "a@b.example", "b.example", (), 0.0, 0.0) for i in ids))


def end(spool_id: int, outcome: Outcome = Outcome.DELIVERED) -> Disposition:
    return Disposition(spool_id, 0, outcome)


def test_a_claim_takes_what_nobody_holds() -> None:
    leases = OpenLeases()
    first = leases.claim([[1, 1, 2], [2, 3]], 10)
    assert first.orders == ((1, 2), (3,))
    assert leases.claim([[3, 4]], 20).orders == ((4,),)
    assert (leases.held, len(leases)) == (4, 0)


def test_a_grant_keeps_what_became_a_lease_and_lets_the_rest_go() -> None:
    leases = OpenLeases()
    claim = leases.claim([[1, 2, 3]], 10)
    leases.grant(claim, [[a_lease(10, 1, 2)]])
    assert (len(leases), leases.held, 10 in leases) == (1, 2, True)
    assert leases.claim([[1, 2, 3]], 20).orders == ((3,),)


def test_a_settle_takes_only_what_its_lease_holds() -> None:
    leases = OpenLeases()
    leases.grant(leases.claim([[1, 2], [3]], 10), [[a_lease(10, 1, 2), a_lease(11, 3)]])
    taken = leases.take([(10, [end(1), end(3), end(1)]), (99, [end(2)]), (0, [end(2), end(7)])])
    assert [(item.spool_id) for item in taken.dispositions] == [1, 7]
    assert (taken.items, taken.finished) == (((10, 1),), ())
    assert leases.take([(10, [end(2)])]).finished == (10,)
    assert (len(leases), leases.held) == (1, 1)


def test_returned_envelopes_are_told_apart() -> None:
    leases = OpenLeases()
    leases.grant(leases.claim([[1, 2]], 10), [[a_lease(10, 1, 2)]])
    assert leases.take([(10, [end(1, Outcome.RETURNED), end(2)])]).returned == {10: {1}}


def test_a_failed_settle_wins_over_a_lease_that_was_waiting_behind_it() -> None:
    leases = OpenLeases()
    leases.grant(leases.claim([[1]], 10), [[a_lease(10, 1)]])
    taken = leases.take([(10, [end(1)])])
    claim = leases.claim([[1]], 20)
    assert leases.is_claimed(claim, 1)
    leases.restore(taken)
    assert not leases.is_claimed(claim, 1)
    leases.release(claim)
    assert (leases.held, 10 in leases) == (1, True)
    assert leases.take([(10, [end(1)])]).finished == (10,)


def test_clear_forgets_all() -> None:
    leases = OpenLeases()
    leases.grant(leases.claim([[1]], 10), [[a_lease(10, 1)]])
    leases.clear()
    assert (len(leases), leases.held) == (0, 0)


def test_a_lease_on_disk_reads_back() -> None:
    items = [(1, 0), (2**64 - 1, 255)]
    assert unpack_lease(pack_lease(items)) == items


def test_an_orphan_is_ambiguous_and_retried_or_held() -> None:
    retried = orphan(5, 2, AmbiguousPolicy.RETRY, 9.0, False)
    held = orphan(5, 2, AmbiguousPolicy.HOLD, 9.0, True)
    assert (retried.outcome, retried.attempt, retried.due) == (Outcome.AMBIGUOUS, 2, 9.0)
    assert (retried.reason, held.reason) == (DelayReason.AMBIGUOUS_RETRY, DelayReason.AMBIGUOUS_HELD)
    assert (retried.crashed, held.crashed) == (False, True)


@pytest.mark.parametrize(("alone", "blamed"), [(1, True), (SUSPECTS_MAX, True), (SUSPECTS_MAX + 1, False)])
def test_a_crowd_that_was_leased_alone_is_not_to_blame(alone: int, blamed: bool) -> None:
    found = [(number, 0, True) for number in range(alone)] + [(number, 0, False) for number in range(50, 60)]
    ends = judge_orphans(found, AmbiguousPolicy.RETRY, 9.0, 5.0)
    assert [end.crashed for end in ends] == [blamed] * alone + [False] * 10
    assert {end.due for end in ends} == {9.0}, "after a first attempt all are retried together"


def test_retries_are_drawn_apart_with_the_attempts() -> None:
    dues = [
        judge_orphans([(number, attempt, True)], AmbiguousPolicy.RETRY, 100.0, 10.0)[0].due
        for number in range(1, 200)
        for attempt in (1, 3, 255)
    ]
    assert len(set(dues)) > 500
    assert all(100.0 <= due < 180.0 for due in dues)
    assert all(due < 110.0 for due in dues[::3])
