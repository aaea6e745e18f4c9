"""The one message that does something: a place for signatures rings when the last one is there."""

from engine.actors.messages import Bell, SignSlot
from tests.fakes.engine_house import Desk


def test_the_bell_rings_with_the_last_signature_and_once() -> None:
    desk = Desk()
    slot = SignSlot([("a", b"1"), ("b", b"2")], desk.peer("c#1"))
    slot.put(1, b"second")
    assert slot.missing == 1
    assert not desk.take("c#1")
    slot.put(1, b"again: a process died after it had answered")
    slot.put(0, b"first")
    slot.put(0, b"again")
    assert slot.signatures == [b"first", b"second"]
    assert len(desk.take("c#1", Bell)) == 1


def test_a_slot_that_is_refused_is_over_and_says_so() -> None:
    desk = Desk()
    slot = SignSlot([("a", b"1"), ("b", b"2")], desk.peer("c#1"))
    slot.put(0, b"first")
    slot.refuse(1)
    slot.refuse(1)
    assert (slot.missing, slot.refused) == (0, True)
    assert len(desk.take("c#1", Bell)) == 1
