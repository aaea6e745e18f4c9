"""The reading side of an LMDB spool: what any process may look at, without a lock.

`SpoolReads` is what the writer and a visitor share; `SpoolReader` is the visitor: `emass queue show`
over a data folder, with or without an engine running on it. Only to open an envelope, for its address
and row, it needs the keys. Each call is one short read transaction.
"""

from pathlib import Path
from types import TracebackType

from engine.keyring import RowKeyring
from engine.model.content import Content
from engine.model.envelope import Envelope
from engine.mta.spool import codec
from engine.mta.spool.api import Listed, StateCounts
from engine.mta.spool.tables import Tables, open_spool_environment
from engine.storage import Environment


class SpoolReads:
    """Reads of one environment; sees what is committed."""

    def __init__(self, environment: Environment, producer: str) -> None:
        self._environment = environment
        self._tables = Tables(environment, producer)

    def content(self, campaign: int) -> Content | None:
        with self._environment.read() as transaction:
            stored = self._tables.content_of(transaction, campaign)
        return None if stored is None else stored.content

    def campaigns(self) -> list[int]:
        with (
            self._environment.read() as transaction,
            transaction.cursor(db=self._tables.contents) as cursor,
        ):
            return [int.from_bytes(key, "big") for key in cursor.iternext(values=False)]

    def knows(self, chunk_id: str) -> bool:
        with self._environment.read() as transaction:
            return self._tables.acceptance(transaction, chunk_id.encode()) is not None

    def chunk_ids(self) -> list[str]:
        with (
            self._environment.read() as transaction,
            transaction.cursor(db=self._tables.chunks) as cursor,
        ):
            return [key.decode() for key in cursor.iternext(values=False)]

    def events(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        with self._environment.read() as transaction, transaction.cursor(db=self._tables.events) as cursor:
            if not cursor.set_range((after + 1).to_bytes(8, "big")):
                return []
            batches = []
            for key, value in cursor:
                batches.append((int.from_bytes(key, "big"), bytes(value)))
                if len(batches) == limit:
                    break
            return batches

    def counts(self, campaign: int) -> StateCounts:
        with self._environment.read() as transaction:
            return self._tables.counts_of(transaction, campaign)

    def one(self, spool_id: int) -> Listed | None:
        """The envelope of this id, if it is not gone."""
        with self._environment.read() as transaction:
            record = transaction.get(spool_id.to_bytes(8, "big"), db=self._tables.envelopes)
        return None if record is None else codec.listed(spool_id, record)

    def listing(self, after: int, limit: int) -> list[Listed]:
        with self._environment.read() as transaction, transaction.cursor(db=self._tables.envelopes) as cursor:
            found: list[Listed] = []
            if cursor.set_range((after + 1).to_bytes(8, "big")):
                for key, record in cursor:
                    found.append(codec.listed(int.from_bytes(key, "big"), record))
                    if len(found) == limit:
                        break
            return found


class SpoolReader(SpoolReads):
    """A visitor's view of a spool's folder; a context manager. Raises StorageError."""

    def __init__(self, path: Path) -> None:
        super().__init__(open_spool_environment(path, readonly=True), "")

    def __repr__(self) -> str:
        return f"<SpoolReader {self._environment.path}>"

    @property
    def last_id(self) -> int:
        """The highest id of an envelope that is not gone; 0 = there is none."""
        with self._environment.read() as transaction, transaction.cursor(db=self._tables.envelopes) as cursor:
            return int.from_bytes(cursor.key(), "big") if cursor.last() else 0

    def open(self, spool_id: int, keyring: RowKeyring) -> Envelope | None:
        """The envelope with its address and row, if it is not gone. Raises KeyringError or SpoolError."""
        with self._environment.read() as transaction:
            record = transaction.get(spool_id.to_bytes(8, "big"), db=self._tables.envelopes)
            if record is None:
                return None
            if not codec.is_intact(record):
                raise codec.DamagedRecord("the record's head is damaged")
            stored = self._tables.content_of(transaction, codec.record_campaign(record))
        if stored is None:
            raise codec.DamagedRecord("its campaign is not known here")
        return codec.decode_envelope(spool_id, record, keyring.sealer(stored.row_key))

    def __enter__(self) -> "SpoolReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._environment.close()
