"""An answer is given once."""

import pytest

from engine.runtime.answer import ActorDied, AlreadyAnswered, Answer


async def test_a_value_is_handed_over() -> None:
    answer: Answer[int] = Answer("a")
    assert answer.wanted
    answer.set(5)
    assert not answer.wanted
    assert await answer.wait() == 5


async def test_an_error_is_raised_at_the_asker() -> None:
    answer: Answer[int] = Answer("a")
    answer.fail(KeyError("k"))
    with pytest.raises(KeyError):
        await answer.wait()


@pytest.mark.parametrize("first", ["set", "fail"])
@pytest.mark.parametrize("second", ["set", "fail"])
def test_a_second_answer_raises(first: str, second: str) -> None:
    def give(how: str) -> None:
        answer.set(1) if how == "set" else answer.fail(ValueError())

    answer: Answer[int] = Answer("a")
    give(first)
    with pytest.raises(AlreadyAnswered):
        give(second)


def test_an_abandoned_answer_takes_anything_and_does_nothing() -> None:
    answer: Answer[int] = Answer("a")
    answer.abandon()
    answer.set(1)
    answer.fail(ValueError())
    assert repr(answer) == "<Answer of a: abandoned>"


async def test_death_fails_an_open_answer_and_leaves_a_given_one() -> None:
    answer: Answer[int] = Answer("a")
    answer.die(ActorDied("a", "crashed"))
    answer.set(1)
    with pytest.raises(ActorDied, match="a crashed"):
        await answer.wait()
    given: Answer[int] = Answer("a")
    given.set(7)
    given.die(ActorDied("a", "crashed"))
    assert await given.wait() == 7
