"""Job records and chunks: durable, checked on resuming, and cut the same way every time."""

import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.cli.csv_source import inspect_csv
from control.cli.errors import InputError
from control.cli.job import (
    CONTENT_FILE,
    JOB_FILE,
    Job,
    SendOptions,
    count_published,
    create_job,
    cut_chunks,
    load_job,
    reopen_source,
    save_job,
    start_job,
)
from control.cli.people import RECORD_CHARS_MAX, Person, Refused
from engine.model.content import Content
from engine.model.envelope import CHUNK_BYTES_MAX, CHUNK_ENTRIES_MAX

CONTENT = Content(
    campaign=7,
    name="n",
    from_address="a@example.org",
    subject="s",
    text="t",
    return_path_domain="example.org",
)


def make_job(folder: Path) -> Job:
    path = folder / "people.csv"
    path.write_bytes(b"email\na@example.org\n")
    return create_job(SendOptions(csv=str(path)), inspect_csv(path), now=1_000.0, expire_after=60.0)


def person(number: int, row: tuple[str, ...] = ("x",)) -> Person:
    return Person(number + 1, number, f"p{number}@example.org", row, "example.org")


def test_a_job_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    folder = tmp_path / "data"
    start_job(folder, job, CONTENT)
    assert load_job(folder) == (job, CONTENT)
    chunk = next(cut_chunks([person(1)], job))
    save_job(folder, count_published(job, chunk))
    loaded, _ = load_job(folder)
    assert (loaded.chunks_published, loaded.people_published) == (1, 1)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_folder_with_a_job_is_not_started_again(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    start_job(tmp_path / "data", job, CONTENT)
    with pytest.raises(InputError, match="--resume"):
        start_job(tmp_path / "data", job, CONTENT)


@pytest.mark.parametrize(
    ("file", "octets", "problem"),
    [
        (JOB_FILE, b"{", "is damaged"),
        (JOB_FILE, b'{"version": 99}', "is of version 99"),
        (JOB_FILE, b'{"version": 1}', "is damaged"),
        (CONTENT_FILE, b"[]", "is damaged"),
    ],
)
def test_a_damaged_record_is_a_clear_error(tmp_path: Path, file: str, octets: bytes, problem: str) -> None:
    start_job(tmp_path / "data", make_job(tmp_path), CONTENT)
    (tmp_path / "data" / file).write_bytes(octets)
    with pytest.raises(InputError, match=problem):
        load_job(tmp_path / "data")


def test_a_folder_without_a_job_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no job"):
        load_job(tmp_path)


def test_a_source_that_changed_is_an_error(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert reopen_source(job).sha256 == job.source_sha256
    Path(job.options.csv).write_bytes(b"email\nb@example.org\n")
    with pytest.raises(InputError, match="has changed since this job began"):
        reopen_source(job)
    Path(job.options.csv).unlink()
    with pytest.raises(InputError, match="does not exist"):
        reopen_source(job)


def test_chunks_hold_everybody_once_in_order_with_stable_ids(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    refused: list[Refused] = []
    people = [person(n) for n in range(1, 2 * CHUNK_ENTRIES_MAX + 11)]
    records = [*people[:3], Refused(9, "x", "y"), *people[3:]]
    chunks = list(cut_chunks(records, job, refused.append))
    assert [len(chunk.entries) for chunk in chunks] == [CHUNK_ENTRIES_MAX, CHUNK_ENTRIES_MAX, 10]
    assert [chunk.id for chunk in chunks] == [f"{job.id}-{n:06d}" for n in (1, 2, 3)]
    assert [entry.subscriber for chunk in chunks for entry in chunk.entries] == [p.record for p in people]
    assert {(chunk.campaign, chunk.expires_at) for chunk in chunks} == {(job.campaign, 1_060.0)}
    assert refused == [Refused(9, "x", "y")]


@given(
    st.lists(st.sampled_from([1, 1_000, 30_000, 99_000]), max_size=60),
    st.sampled_from(["x", "\u00e4", "\U0001f600"]),
    st.integers(0, 5),
)
def test_chunks_keep_their_size_and_a_resumed_run_cuts_the_same(
    tmp_path: Path, sizes: list[int], char: str, start_after: int
) -> None:
    assert max(sizes, default=0) < RECORD_CHARS_MAX
    job = make_job(tmp_path)
    people = [person(n, (char * size,)) for n, size in enumerate(sizes, 1)]
    chunks = list(cut_chunks(people, job))
    assert all(len(msgspec.msgpack.encode(chunk)) <= CHUNK_BYTES_MAX for chunk in chunks)
    assert sum(len(chunk.entries) for chunk in chunks) == len(people)
    assert list(cut_chunks(people, job, start_after=start_after)) == chunks[start_after:]
