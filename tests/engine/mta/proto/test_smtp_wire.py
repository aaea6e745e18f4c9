"""Octets on their way out and their count."""

import pytest

from engine.mta.proto.smtp_wire import Wire


def test_parts_leave_in_order_as_one_piece() -> None:
    wire = Wire()
    assert wire.take() is None
    wire.put(b"a")
    wire.put(b"bc")
    assert (wire.built, wire.taken) == (3, 0)
    assert wire.take() == b"abc"
    assert wire.take() is None
    wire.hand_over(2)
    assert (wire.built, wire.taken, wire.handed) == (3, 3, 2)


def test_dropped_parts_never_leave() -> None:
    wire = Wire()
    wire.put(b"a")
    wire.drop()
    assert (wire.take(), wire.built) == (None, 0)


def test_more_handed_over_than_taken_is_a_bug() -> None:
    wire = Wire()
    wire.put(b"a")
    with pytest.raises(AssertionError):
        wire.hand_over(1)
    wire.take()
    with pytest.raises(AssertionError):
        wire.hand_over(-1)
