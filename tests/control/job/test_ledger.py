"""What was synced outlives a kill at any octet; damage, foreign jobs and second coordinators are refused."""

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control.job.ledger import ChunkLine, Ledger, LedgerError, decode_line, encode_line

JOB = "0123456789abcdef"


def opened(path: Path) -> Ledger:
    return Ledger(path, JOB)


def filled(path: Path) -> list[list[ChunkLine]]:
    """A ledger with some history; its lines after each sync."""
    ledger = opened(path)
    seen = [snapshot(ledger)]
    ledger.cut(1, 100, 98)
    ledger.publish(1, "a")
    ledger.sync()
    seen.append(snapshot(ledger))
    ledger.cut(101, 150, 50)
    ledger.publish(2, "b")
    ledger.sync()
    seen.append(snapshot(ledger))
    ledger.publish(2, "a")
    ledger.claim(1, "a", "e1")
    ledger.accept(1)
    ledger.sync()
    seen.append(snapshot(ledger))
    ledger.drop(2, "a")
    ledger.end()
    ledger.sync()
    seen.append(snapshot(ledger))
    ledger.finish(1)
    ledger.claim(2, "b", "e2")
    ledger.retire(2)
    ledger.close()
    return seen


def snapshot(ledger: Ledger) -> list[ChunkLine]:
    return [
        ChunkLine(
            one.number,
            one.first,
            one.last,
            one.count,
            one.targets,
            one.claimed,
            one.accepted,
            one.finished,
            one.retired,
        )
        for one in ledger
    ]


def test_everything_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    filled(path)
    again = opened(path)
    assert snapshot(again) == [
        ChunkLine(1, 1, 100, 98, ("a",), ("a", "e1"), accepted=True, finished=True),
        ChunkLine(2, 101, 150, 50, ("b",), ("b", "e2"), retired=True),
    ]
    assert [one.state for one in again] == ["finished", "retired"]
    assert (again.complete, again.people) == (True, 148)
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    again.close()


def test_a_chunk_goes_from_planned_to_finished() -> None:
    line = ChunkLine(1, 1, 10, 10)
    assert (line.state, line.holder) == ("planned", None)
    line.targets = ("a", "b")
    assert (line.state, line.holder) == ("published", "b")
    line.claimed = ("a", "e")
    assert (line.state, line.holder) == ("claimed", "a")
    line.finished = True
    assert line.state == "finished"


def test_the_first_claim_counts_and_a_claimed_chunk_is_never_moved(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "ledger")
    ledger.cut(1, 5, 5)
    ledger.claim(1, "a", "e1")
    ledger.claim(1, "b", "e2")
    assert ledger[1].claimed == ("a", "e1")
    with pytest.raises(AssertionError, match="is not moved"):
        ledger.publish(1, "b")
    ledger.close()


def test_a_kill_at_any_octet_leaves_what_was_synced(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    seen = filled(path)
    whole = path.read_bytes()
    torn = tmp_path / "torn"
    known = [len(lines) for lines in seen]
    for octets in range(0, len(whole) + 1, 3):
        torn.write_bytes(whole[:octets])
        ledger = opened(torn)
        assert len(ledger.chunks) <= max(known)
        published = [line for line in ledger if line.targets]
        assert all(line.count for line in published)
        ledger.cut(1_000, 1_001, 2)  # it goes on behind what was torn
        ledger.close()
        again = opened(torn)
        assert again.chunks[-1].first == 1_000
        again.close()


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6), octet=st.integers(0, 255))
def test_a_changed_octet_is_found_or_was_in_the_torn_end(tmp_path: Path, place: int, octet: int) -> None:
    path = tmp_path / "ledger"
    path.unlink(missing_ok=True)
    filled(path)
    data = bytearray(path.read_bytes())
    place %= len(data)
    changed = data[place] != octet
    data[place] = octet
    path.write_bytes(data)
    with suppress(LedgerError):
        opened(path).close()
        changed = changed and place != len(data) - 1
        assert not changed


def test_two_coordinators_of_one_job_are_one_too_many(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    first = opened(path)
    with pytest.raises(LedgerError, match="another `emass send` coordinates this job"):
        opened(path)
    first.close()
    opened(path).close()


def test_another_jobs_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    Ledger(path, "feed").close()
    with pytest.raises(LedgerError, match="belongs to another job"):
        opened(path)
    path.write_bytes(encode_line(["ledger", 9, JOB]))
    with pytest.raises(LedgerError, match="version 1"):
        opened(path)


@pytest.mark.parametrize(
    "facts", [["cut", 2, 1, 1, 1], ["cut", 1, 1, 1, 5], ["to", 9, "a"], ["what"], ["cut"]]
)
def test_a_line_that_does_not_fit_is_named(tmp_path: Path, facts: list[object]) -> None:
    path = tmp_path / "ledger"
    opened(path).close()
    with path.open("ab") as file:
        file.write(encode_line(facts))
    with pytest.raises(LedgerError, match="line 2 does not fit"):
        opened(path)


def test_a_folder_that_takes_no_file_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be opened: No such file"):
        opened(tmp_path / "nowhere" / "ledger")


def test_a_full_disk_keeps_the_facts_and_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger"
    ledger = opened(path)
    ledger.cut(1, 5, 5)
    real = os.write
    calls = 0

    def full(descriptor: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            return real(descriptor, data[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(LedgerError, match="No space left"):
        ledger.sync()
    monkeypatch.undo()
    ledger.publish(1, "a")
    ledger.close()
    again = opened(path)
    assert again[1].targets == ("a",)
    again.close()


def test_lines_are_checked() -> None:
    line = encode_line(["claim", 1, "ä", "e"])
    assert decode_line(line[:-1]) == ["claim", 1, "ä", "e"]
    for bad in (b"", b"00000000 []", line[1:-1], line[:-2], b"zz " + line):
        assert decode_line(bad) is None
