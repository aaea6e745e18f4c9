"""Chunks of any size, cut again at the same places; what does not fit the ledger is never guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.cli.people import Person, Refused
from control.job.cutting import Cut, CutError, Cutter, chunk_id, chunk_number
from engine.model.envelope import CHUNK_BYTES_MAX

JOB = "feed"


def people(count: int, width: int = 3) -> list[Person | Refused]:
    """Every seventh record is refused."""
    return [
        Refused(number, "x", "bad")
        if number % 7 == 0
        else Person(number, number, f"p{number}@x.test", ("v" * width,), "x.test")
        for number in range(1, count + 1)
    ]


def cutter(listed: list[Person | Refused], refused: list[Refused] | None = None) -> Cutter:
    noted: list[Refused] = [] if refused is None else refused
    return Cutter(listed, job=JOB, campaign=7, expires_at=9.0, refuse=noted.append)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(0, 100))
def test_any_sizes_give_everybody_once_and_can_be_cut_again(sizes: list[int], count: int) -> None:
    refused: list[Refused] = []
    first = cutter(people(count), refused)
    cuts: list[Cut] = []
    turn = 0
    while cut := first.next(sizes[turn % len(sizes)]):
        assert len(cut.records) <= sizes[turn % len(sizes)]
        cuts.append(cut)
        turn += 1
    assert [record for cut in cuts for record in cut.records] == [n for n in range(1, count + 1) if n % 7]
    assert len(refused) == count // 7
    assert first.people == count - count // 7
    again = cutter(people(count))
    assert [again.again(cut.first, cut.last, len(cut.records)).chunk for cut in cuts] == [
        cut.chunk for cut in cuts
    ]
    assert again.next(1) is None


def test_a_chunk_that_would_be_too_large_gets_fewer_people_and_the_rest_comes_next() -> None:
    listed = people(20, width=60_000)
    first = cutter(listed)
    cuts = []
    while cut := first.next(5_000):
        cuts.append(cut)
    assert len(cuts) > 1
    assert sum(len(cut.records) for cut in cuts) == 18
    for cut in cuts:
        assert sum(len(entry.row[0]) for entry in cut.chunk.entries) < CHUNK_BYTES_MAX


def test_a_list_that_is_another_is_an_error() -> None:
    cut = cutter(people(50)).next(20)
    assert cut is not None
    with pytest.raises(CutError, match="chunk 1 had"):
        cutter(people(50)[1:]).again(cut.first, cut.last, 20)
    with pytest.raises(CutError, match="has not the 20 people"):
        cutter(people(10)).again(cut.first, cut.last, 20)


def test_ids_are_the_jobs_and_the_number() -> None:
    assert chunk_id(JOB, 12) == "feed-000012"
    assert chunk_number(JOB, "feed-000012") == 12
    assert chunk_number(JOB, "food-000012") is None
    assert chunk_number(JOB, "feed-twelve") is None
    assert chunk_number(JOB, chunk_id(JOB, 1_234_567)) == 1_234_567
    cut = cutter(people(3)).next(3)
    assert cut is not None
    assert (cut.chunk.id, cut.chunk.campaign, cut.chunk.expires_at) == ("feed-000001", 7, 9.0)


@pytest.mark.parametrize(
    "number", ["12", "0000012", "\u0660\u0660\u0660\u0661\u0662\u0663", "9" * 5_000, "-00001"]
)
def test_another_spelling_of_an_id_is_none(number: str) -> None:
    assert chunk_number(JOB, f"feed-{number}") is None
