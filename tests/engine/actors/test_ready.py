"""Ids at hand for one path: transactional mail first, each once, and a take can be undone."""

from hypothesis import given
from hypothesis import strategies as st

from engine.actors.ready import ReadyQueue

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 9), st.integers(0, 9)),
        st.tuples(st.just("take"), st.integers(0, 12), st.just(0)),
        st.tuples(st.just("undo"), st.integers(0, 12), st.integers(0, 12)),
    ),
    max_size=30,
)


@given(STEPS)
def test_it_gives_out_what_two_plain_lists_would(steps: list[tuple[str, int, int]]) -> None:
    ready, urgent, ordinary, next_id = ReadyQueue(), list[int](), list[int](), 1
    for action, one, other in steps:
        if action == "add":
            ids = list(range(next_id, next_id + one + other))
            next_id += len(ids)
            ready.add(ids, one)
            urgent += ids[:one]
            ordinary += ids[one:]
        elif action == "take":
            line = urgent + ordinary
            assert ready.take(one) == line[:one]
            del ordinary[: max(0, one - len(urgent))]
            del urgent[:one]
        else:  # two takes that nobody had room for
            before = ready.urgent
            ready.put_back([*ready.take(one), *ready.take(other)], before)
        assert ready.all() == urgent + ordinary
        assert (len(ready), ready.urgent) == (len(urgent) + len(ordinary), len(urgent))


def test_it_shows_how_much_of_which_mail_it_has() -> None:
    ready = ReadyQueue()
    ready.add([5, 6, 7], 1)
    assert repr(ready) == "1 + 2 ready"
    ready.clear()
    assert (len(ready), ready.urgent, ready.all(), bool(ready)) == (0, 0, [], False)
