"""Facts meet on the board: claims, acceptance, retirement and refusals, in any order, and what follows."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from control.job.board import REFUSALS_MAX, WARNINGS_MAX, Board
from control.job.cutting import Cut
from control.job.ledger import Ledger
from control.job.outcomes import BROADCASTERS_MAX, State
from engine.model.envelope import Chunk, ChunkEntry
from engine.model.event import ChunkAccepted, ChunkRefused, Deferred, Delivered, EventBatch

JOB = "feed"


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    ledger = Ledger(tmp_path / "ledger", JOB)
    yield Board(ledger, JOB, 7, {"a": 2.0, "b": 1.0})
    ledger.close()


def cut(number: int, count: int = 10) -> Cut:
    records = tuple(range((number - 1) * 10 + 1, (number - 1) * 10 + 1 + count))
    entries = tuple(ChunkEntry(record, f"p{record}@x.test", ()) for record in records)
    return Cut(Chunk(f"{JOB}-{number:06d}", 7, 9.0, entries), records)


def live(board: Board, *names: str, **more: Any) -> None:
    for beat in (b"1", b"2"):
        for name in names:
            extra = "".join(f', "{key}": "{value}"' for key, value in more.items())
            row = b'{"beat": %s, "epoch": "e-%s"%s}' % (beat, name.encode(), extra.encode())
            board.roster.hear(f"{name}/engine", row, 0.0)


def batch(name: str, sequence: int, *happened: Any) -> EventBatch:
    return EventBatch(name, f"e-{name}", sequence, 1.0, name, happened)


def accepted(number: int) -> ChunkAccepted:
    return ChunkAccepted(7, f"{JOB}-{number:06d}", 10)


def delivered(record: int) -> Delivered:
    return Delivered(7, record, record, "x.test", 0, "content", "", "", "", "mx", "d", "mx", "", 0.1)


def claim(board: Board, number: int, name: str) -> None:
    board.hear_claim(f"{JOB}-{number:06d}", f"{name} e-{name}".encode())


def test_a_chunks_way_shows_in_its_broadcasters_standing(board: Board) -> None:
    live(board, "a", "b")
    line = board.plan(cut(1), b"payload")
    (unclaimed,) = board.unclaimed(1.0)
    assert (unclaimed.number, unclaimed.targets) == (1, ())
    board.give(line.number, "a", 1.0)
    a, b = board.standings(4.0)
    assert (a.name, a.weight, a.open, a.unclaimed_chunks, a.waiting, a.unfinished) == (
        "a",
        2.0,
        True,
        1,
        10,
        10,
    )
    assert (b.waiting, b.unclaimed_chunks) == (0, 0)
    assert next(board.unclaimed(4.0)).since_seconds == 3.0
    claim(board, 1, "a")
    assert board.standings(4.0)[0].unclaimed_chunks == 0
    assert board.payloads == {1: b"payload"}
    board.hear_events("a", batch("a", 1, accepted(1), delivered(1)))
    assert board.payloads == {}
    assert (board.waiting("a"), board.unfinished("a")) == (9, 9)
    board.hear_events("a", batch("a", 3, *map(delivered, range(2, 11))))
    board.finish_chunks()
    assert (line.state, board.is_over, board.counts().delivered) == ("finished", True, 10)
    assert board.first_attempts == 10


def test_acceptance_is_a_claim_where_the_claim_was_not_heard(board: Board) -> None:
    board.give(board.plan(cut(1), b"p").number, "a", 0.0)
    board.hear_events("b", batch("b", 1, accepted(1)))
    assert board.ledger[1].claimed == ("b", "e-b")
    assert (board.waiting("a"), board.waiting("b")) == (0, 10)


def test_a_foreign_claim_after_ours_is_a_warning_and_marks_its_people(board: Board) -> None:
    board.give(board.plan(cut(1), b"p").number, "a", 0.0)
    claim(board, 1, "a")
    claim(board, 1, "a")
    assert board.warnings == []
    claim(board, 1, "b")
    assert board.ledger[1].claimed == ("a", "e-a")
    assert "claimed by a and then by b" in board.warnings[0]
    assert board.counts().was_ambiguous == 10


def test_a_claim_that_is_gone_is_remembered_to_be_put_back(board: Board) -> None:
    board.give(board.plan(cut(1), b"p").number, "a", 0.0)
    board.hear_claim(f"{JOB}-000001", None)
    assert board.forgotten == set()
    claim(board, 1, "a")
    board.hear_claim(f"{JOB}-000001", None)
    board.hear_claim("other-000001", None)
    board.hear_claim(f"{JOB}-000099", b"a e-a")
    assert board.forgotten == {1}
    assert list(board.claims()) == [(f"{JOB}-000001", b"a e-a")]
    assert board.last_claim() == f"{JOB}-000001"
    claim(board, 1, "a")
    assert board.forgotten == set()


def test_retiring_gives_up_what_was_claimed_under_that_epoch_alone(board: Board) -> None:
    live(board, "a", "b")
    for number in (1, 2):
        board.give(board.plan(cut(number), b"p").number, "a", 0.0)
        board.hear_events("a", batch("a", number, accepted(number)))
    board.hear_events("a", batch("a", 3, *map(delivered, range(1, 11))))
    board.finish_chunks()
    board.hear_retired("a", b"another")
    assert board.counts().ambiguous == 0
    assert board.is_open("a", 1.0), "it is a new one of that name"
    board.hear_retired("a", b"e-a")
    assert [line.state for line in board.ledger] == ["finished", "retired"]
    assert (board.counts().ambiguous, board.counts().delivered) == (10, 10)
    assert not board.is_open("a", 1.0)
    assert (board.is_over, board.waiting("a"), board.gone(99.0)) == (True, 0, {})
    board.hear_retired("a", None)
    assert board.retired == {}


def test_a_resumed_board_knows_what_was_retired_and_accepted(tmp_path: Path, board: Board) -> None:
    for number in (1, 2):
        board.give(board.plan(cut(number), b"p").number, "a", 0.0)
        board.hear_events("a", batch("a", number, accepted(number)))
    board.hear_retired("a", b"e-a")
    path = board.ledger.path
    board.ledger.sync()
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    ledger = Ledger(copy, JOB)
    again = Board(ledger, JOB, 7, {})
    again.hear_events("a", batch("a", 1, accepted(1), delivered(1)))
    for number in (1, 2):
        again.plan(cut(number), b"p")
    again.finish_chunks()
    assert (again.counts().delivered, again.counts().ambiguous, again.payloads) == (1, 19, {})
    assert again.names() == {"a"}
    ledger.close()


def test_who_is_gone_with_mail_is_named(board: Board) -> None:
    board.give(board.plan(cut(1), b"p").number, "a", 0.0)
    claim(board, 1, "a")
    assert board.gone(1.0) == {"a": 10}
    live(board, "a")
    assert board.gone(1.0) == {}


def test_a_refused_chunk_is_taken_back_until_nobody_takes_it(board: Board) -> None:
    board.plan(cut(1), b"p")
    board.give(1, "a", 0.0)
    refused = ChunkRefused(7, f"{JOB}-000001", 10, "no", "w", 1)
    board.hear_events("a", batch("a", 1, refused))
    assert board.refusals == [("a", refused)]
    assert board.refuse(1, "a")
    assert board.ledger[1].targets == ()
    for _ in range(REFUSALS_MAX - 2):
        assert board.refuse(1, "b")
    assert not board.refuse(1, "b")
    assert (board.abandoned, board.is_over, list(board.unclaimed(0.0))) == (10, True, [])
    claim(board, 1, "b")
    assert (board.abandoned, board.is_over) == (0, False), "somebody takes it after all"
    board.hear_events("b", batch("b", 1, accepted(1)))
    assert (board.abandoned, board.counts().accepted) == (0, 10)
    assert not board.refuse(1, "b")


def test_a_stream_that_is_full_is_left_alone_for_a_time(board: Board) -> None:
    live(board, "a", "b")
    board.close_for("a", 5.0)
    assert [each.open for each in board.standings(4.0)] == [False, True]
    assert [each.open for each in board.standings(5.0)] == [True, True]


def test_speed_is_measured_while_there_is_work(board: Board) -> None:
    board.plan(cut(1), b"p")
    board.give(1, "a", 0.0)
    board.hear_events("a", batch("a", 1, accepted(1)))
    board.measure(0.5)
    assert board.standings(0.5)[0].per_second is None, "what is read again is no speed"
    board.tellers["a"].caught_up = True
    board.measure(1.0)
    board.hear_events("a", batch("a", 2, delivered(1), delivered(2)))
    board.measure(2.0)
    assert board.standings(2.0)[0].per_second is None, "a burst is none, either"
    board.measure(3.0)
    assert board.standings(3.0)[0].per_second == 1.0
    later = Deferred(7, 3, 3, "x.test", 0, "rcpt", "450", "", "", "mx", "d", "mx", "", 0.1)
    board.hear_events("a", batch("a", 4, later))
    assert (board.waiting("a"), board.unfinished("a")) == (7, 8)


def test_warnings_are_kept_once_and_up_to_a_limit(board: Board) -> None:
    assert board.warn("x")
    assert not board.warn("x")
    for number in range(2 * WARNINGS_MAX):
        board.warn(str(number))
    assert len(board.warnings) == WARNINGS_MAX
    assert "feed" in repr(board)


@pytest.mark.parametrize(
    "row", [b"\xff\x00 e1", b"", b" e1", b"no-name! e1", b"x" * 200 + b" e1", b"a " + b"e" * 10_000]
)
def test_a_claim_that_names_no_broadcaster_is_warned_of_and_never_in_the_ledger(
    board: Board, row: bytes
) -> None:
    board.give(board.plan(cut(1), b"p").number, "a", 0.0)
    board.hear_claim(f"{JOB}-000001", row)
    assert "chunk 1 was claimed by somebody who is no broadcaster" in board.warnings[0]
    assert (board.ledger[1].claimed, board.names()) == (None, {"a", "b"})
    assert (board.abandoned, board.is_over) == (10, True), "nobody can claim it any more"
    board.hear_events("a", batch("a", 1, accepted(1)))
    assert (board.abandoned, board.ledger[1].claimed) == (0, ("a", "e-a"))
    board.hear_claim(f"{JOB}-000001", row)
    assert (board.abandoned, board.ledger[1].claimed) == (0, ("a", "e-a"))


def test_claims_name_as_many_broadcasters_as_a_job_may_have(board: Board) -> None:
    for number in range(1, BROADCASTERS_MAX + 3):
        board.give(board.plan(cut(number), b"p").number, "a", 0.0)
        claim(board, number, f"n{number}")
    claimed = {line.claimed[0] for line in board.ledger if line.claimed is not None}
    assert len(claimed | {"a"}) == BROADCASTERS_MAX
    assert "no broadcaster" in board.warnings[0]


@pytest.mark.parametrize("record", [2**40, -1, 0, 11, 21])
def test_what_is_told_of_people_in_no_chunk_of_its_own_is_not_counted(board: Board, record: int) -> None:
    board.give(board.plan(cut(1), b"p").number, "a", 0.0)
    board.give(board.plan(cut(2), b"p").number, "b", 0.0)
    board.hear_events("a", batch("a", 1, accepted(1), delivered(record), delivered(1)))
    assert (board.counts().delivered, board.counts().accepted) == (1, 10)
    assert board.warnings == ["a tells of people whom it was not given: that is not counted"]
    assert board.outcomes.person(record).state is State.NONE or record == 11
    board.hear_events("b", batch("b", 1, accepted(2), delivered(11)))
    assert (board.counts().delivered, board.outcomes.doubled) == (2, 0)


def test_who_takes_a_chunk_that_the_ledger_gave_to_nobody_is_believed(board: Board) -> None:
    board.plan(cut(1), b"p")
    board.hear_events("b", batch("b", 1, accepted(1), delivered(1)))
    assert (board.counts().delivered, board.warnings) == (1, [])


def test_a_refusal_of_a_chunk_that_it_was_not_given_is_none(board: Board) -> None:
    board.give(board.plan(cut(1), b"p").number, "a", 0.0)
    board.hear_events("b", batch("b", 1, ChunkRefused(7, f"{JOB}-000001", 10, "no", "w", 1)))
    assert board.refusals == []
    content = ChunkRefused(7, "", 0, "no such key", "w", 2)
    board.hear_events("b", batch("b", 2, content))
    assert board.refusals == [("b", content)]


def test_a_claimed_chunk_awaits_its_acceptance(board: Board) -> None:
    board.give(board.plan(cut(1), b"p").number, "a", 0.0)
    assert not board.awaits_acceptance("a")
    claim(board, 1, "a")
    assert board.awaits_acceptance("a")
    assert not board.awaits_acceptance("b")
    board.hear_events("a", batch("a", 1, accepted(1)))
    assert not board.awaits_acceptance("a")


@for_all(seed=st.integers(0, 2**32))
def test_events_of_many_in_any_interleaving_and_with_repeats_come_to_the_same(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    dice = random.Random(seed)
    told = {name: batches_of(dice, name, first) for name, first in (("a", 1), ("b", 2))}
    facts = []
    for again in range(2):
        ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger", JOB)
        for number in (1, 2):  # as a former coordinator left it
            ledger.cut(number * 10 - 9, number * 10, 10)
        board = Board(ledger, JOB, 7, {})
        turns = [name for name, batches in told.items() for _ in batches]
        dice.shuffle(turns)
        places = dict.fromkeys(told, 0)
        cuts = [1, 2]
        for name in turns:
            if (cuts and dice.random() < 0.3) or not again:
                for number in cuts:
                    board.plan(cut(number), b"p")
                cuts = []
            batches = told[name]
            for place in range(max(0, places[name] - dice.randrange(3)), places[name] + 1):
                board.hear_events(name, batches[place])  # some again
            places[name] += 1
        for number in cuts:
            board.plan(cut(number), b"p")
        facts.append([board.outcomes.person(record) for record in range(1, 21)])
        assert board.counts().accepted == 20
        assert sum(teller.missing for teller in board.tellers.values()) == 0
        ledger.close()
    assert facts[0] == facts[1]


def batches_of(dice: random.Random, name: str, number: int) -> list[EventBatch]:
    """A chunk's acceptance, then events of its people, cut into batches."""
    people = range((number - 1) * 10 + 1, number * 10 + 1)
    happened: list[Any] = [accepted(number)]
    happened += [delivered(dice.choice(people)) for _ in range(15)]
    batches, sequence = [], 1
    while happened:
        count = dice.randint(1, 4)
        batches.append(batch(name, sequence, *happened[:count]))
        sequence += len(happened[:count])
        del happened[:count]
    return batches


def test_a_spool_that_goes_on_under_another_name_is_believed_of_what_it_had_claimed(board: Board) -> None:
    board.give(board.plan(cut(1), b"p").number, "a", 0.0)
    claim(board, 1, "a")
    board.hear_events("a", batch("a", 1, accepted(1)))
    board.hear_events("b", EventBatch("b", "e-b", 1, 1.0, "b", (delivered(1),)))
    assert board.counts().delivered == 0
    board.hear_events("b", EventBatch("b", "e-a", 1, 1.0, "b", (delivered(2),)))
    assert board.counts().delivered == 1
