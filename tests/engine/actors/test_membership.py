"""Reasons to take no work, by name."""

from engine.actors.membership import Membership


def test_an_engine_is_open_until_a_reason_is_given() -> None:
    membership = Membership("/srv/one")
    assert not membership.closed
    assert membership.close("twin", "two engines have one name")
    assert membership.closed == "two engines have one name"


def test_the_same_reason_is_no_news() -> None:
    membership = Membership()
    membership.close("twin", "why")
    assert not membership.close("twin", "why")
    assert membership.close("twin", "another why")


def test_work_is_taken_when_the_last_reason_is_gone() -> None:
    membership = Membership()
    membership.close("twin", "a")
    membership.close("retired", "b")
    membership.open("twin")
    assert membership.closed == "b"
    membership.open("retired")
    membership.open("retired")
    assert not membership.closed


def test_two_lives_are_told_apart() -> None:
    assert Membership().incarnation != Membership().incarnation
