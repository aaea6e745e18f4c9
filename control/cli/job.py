"""The job record of `emass send`: what a `--data` folder was made for, so that `--resume` can go on.

`job.json` holds the options, the source's hash and how many chunks were published; `content.json`
the letter as it was compiled, so that later edits of the HTML file do not split a campaign in two.
Both are replaced atomically and synced, mode 0600. Chunks are cut deterministically: the same source
gives the same chunks with the same ids, and the spool takes each id once, so a record that is one
chunk behind does no harm. A source that changed is an error, never a guess.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from control.cli.csv_source import CsvSource, inspect_csv
from control.cli.errors import CliError, InputError
from control.cli.people import Person, Refused
from engine.keyring import replace_file
from engine.model.content import Content
from engine.model.envelope import CHUNK_BYTES_MAX, CHUNK_ENTRIES_MAX, Chunk, ChunkEntry

JOB_FILE = "job.json"
CONTENT_FILE = "content.json"
VERDICT_FILE = "refused.csv"
JOB_VERSION = 1
CAMPAIGN_MAX = 2**32 - 1  # 4 octets of a token
_CHUNK_FRAME_OCTETS = 256  # id, campaign, expiry and lengths around the entries, generously

_measure = msgspec.msgpack.Encoder()


class SendOptions(Struct, frozen=True, kw_only=True):
    """The options of `emass send` that a resumed run needs again; paths are absolute."""

    csv: str
    address_column: str | None = None
    dkim_key: str = ""
    source: str = ""  # local address to send from
    ehlo_name: str = ""
    route: str = ""  # host:port that everything goes to
    resolver: str = ""  # host:port
    config: str = ""
    private_only: bool = False  # mail without one-click unsubscribe: to private addresses only
    bus: str = ""  # as --bus names it; with it or with `broadcasters` no engine runs here
    bus_seed: str = ""
    bus_ca: str = ""
    broadcasters: str = ""  # as --broadcasters names them
    many: bool = False  # broadcasters on a bus send it


class Job(Struct, frozen=True, kw_only=True):
    """One campaign through one data folder."""

    version: int = JOB_VERSION
    id: str
    campaign: int
    created: float  # wall seconds
    expires_at: float  # wall seconds
    options: SendOptions
    source_sha256: str
    source_size: int
    chunks_published: int = 0
    people_published: int = 0
    complete: bool = False  # every chunk is published


def create_job(options: SendOptions, source: CsvSource, *, now: float, expire_after: float) -> Job:
    """A fresh job at wall seconds `now`."""
    return Job(
        id=secrets.token_hex(8),
        campaign=1 + secrets.randbelow(CAMPAIGN_MAX),
        created=now,
        expires_at=now + expire_after,
        options=options,
        source_sha256=source.sha256,
        source_size=source.size,
    )


def start_job(folder: Path, job: Job, content: Content) -> None:
    """Make the folder (mode 0700) and its records. Raises InputError if it holds a job already."""
    if (folder / JOB_FILE).exists():
        raise InputError(
            f"{folder}: holds a job already; `emass send --data {folder} --resume` goes on with it,"
            " or name another folder"
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise CliError(f"{folder}: cannot be made: {error.strerror}") from error
    # The job record last: a folder with one always has its content.
    _write(folder / CONTENT_FILE, msgspec.json.encode(content))
    save_job(folder, job)


def save_job(folder: Path, job: Job) -> None:
    """Replace the record, durably. Raises CliError."""
    _write(folder / JOB_FILE, msgspec.json.format(msgspec.json.encode(job)))


def load_job(folder: Path) -> tuple[Job, Content]:
    """The records of a folder. Raises InputError."""
    path = folder / JOB_FILE
    if not path.exists():
        raise InputError(f"{folder}: holds no job to resume ({JOB_FILE} is missing)")
    try:
        version = msgspec.json.decode(path.read_bytes(), type=dict).get("version")
        if version != JOB_VERSION:
            raise InputError(f"{path}: is of version {version}; this e-MASS reads version {JOB_VERSION}")
        job = msgspec.json.decode(path.read_bytes(), type=Job)
        path = folder / CONTENT_FILE
        return job, msgspec.json.decode(path.read_bytes(), type=Content)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputError(f"{path}: is damaged: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def reopen_source(job: Job) -> CsvSource:
    """The job's CSV, checked to be what it was. Raises InputError."""
    source = inspect_csv(Path(job.options.csv), address_column=job.options.address_column)
    if (source.sha256, source.size) != (job.source_sha256, job.source_size):
        raise InputError(
            f"{source.path}: has changed since this job began; put back the file as it was,"
            " or start a new job without those who have got their mail"
        )
    return source


def count_published(job: Job, chunk: Chunk) -> Job:
    """The job after one more chunk was acknowledged; save it after every few."""
    return replace(
        job,
        chunks_published=job.chunks_published + 1,
        people_published=job.people_published + len(chunk.entries),
    )


def cut_chunks(
    people: Iterable[Person | Refused],
    job: Job,
    refuse: Callable[[Refused], object] = lambda _: None,
    *,
    start_after: int = 0,
) -> Iterator[Chunk]:
    """Chunks of at most CHUNK_ENTRIES_MAX people and CHUNK_BYTES_MAX octets (as msgpack).

    The first `start_after` chunks are cut but not given out. Every `Refused` goes to `refuse`,
    whether or not its neighbours are given out, so a resumed run writes the whole verdict file.
    """
    number = 0
    entries: list[ChunkEntry] = []
    for person in people:
        if type(person) is Refused:  # isinstance costs five times as much on Structs
            refuse(person)
            continue
        assert type(person) is Person
        entries.append(ChunkEntry(person.record, person.recipient, person.row))
        if len(entries) == CHUNK_ENTRIES_MAX:
            for fitting in _split(entries):
                number += 1
                if number > start_after:
                    yield _make_chunk(job, number, fitting)
            entries = []
    for fitting in _split(entries) if entries else ():
        number += 1
        if number > start_after:
            yield _make_chunk(job, number, fitting)


def _split(entries: list[ChunkEntry]) -> Iterator[list[ChunkEntry]]:
    """Halves, and halves of those, until each fits: measuring entries one by one costs twice as much."""
    if len(_measure.encode(entries)) <= CHUNK_BYTES_MAX - _CHUNK_FRAME_OCTETS:
        yield entries
        return
    assert len(entries) > 1, "one person always fits: RECORD_CHARS_MAX sees to it"
    middle = len(entries) // 2
    yield from _split(entries[:middle])
    yield from _split(entries[middle:])


def _make_chunk(job: Job, number: int, entries: list[ChunkEntry]) -> Chunk:
    return Chunk(f"{job.id}-{number:06d}", job.campaign, job.expires_at, tuple(entries))


def _write(path: Path, data: bytes) -> None:
    try:
        replace_file(path, data)
    except OSError as error:
        raise CliError(f"{path}: cannot be written: {error.strerror}") from error
