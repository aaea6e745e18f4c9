"""A visitor reads a spool without its lock and without its keys."""

import pytest
import trio

from engine.keyring import KeyringError, RowKeyring
from engine.model.content import Content
from engine.model.envelope import Chunk, ChunkEntry
from engine.mta.spool.lmdb import LmdbSpool
from engine.mta.spool.reader import SpoolReader
from engine.mta.spool.tables import open_spool_environment
from engine.storage import Committer, StorageError
from tests.fakes.spool_house import quick_folder

CONTENT = Content(
    campaign=7, name="n", from_address="a@b.example", subject="s", text="t", return_path_domain="b.example"
)
ENTRIES = tuple(ChunkEntry(n + 1, f"u{n}@d{n % 2}.example") for n in range(5))


@pytest.fixture
def folder():
    with quick_folder() as place:
        yield place


async def fill(folder):
    """A spool with five queued envelopes of campaign 7; closed again, since LMDB is open once a process."""
    environment = open_spool_environment(folder / "spool", map_octets=64 * 1024**2)
    committer = Committer(environment, group_seconds=0.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(committer.run)
        spool = LmdbSpool(environment, committer, RowKeyring(folder / "rows.keys", bytes(32)), producer="n1")
        await spool.put_content(CONTENT, 1_000_000.0)
        await spool.accept(Chunk("c-1", 7, 2_000_000.0, ENTRIES), 1_000_000.0)
        committer.close()
    environment.close()


async def test_a_visitor_sees_states_and_counts(folder):
    await fill(folder)
    with SpoolReader(folder / "spool") as reader:
        found = reader.listing(0, 100)
        assert [item.state for item in found] == ["queued"] * 5
        assert {item.domain for item in found} == {"d0.example", "d1.example"}
        assert reader.counts(7).accepted == 5
        assert reader.campaigns() == [7]
        assert reader.content(7) == CONTENT
        assert len(reader.events(0, 10)) == 1


async def test_a_listing_goes_on_behind_the_last_id(folder):
    await fill(folder)
    with SpoolReader(folder / "spool") as reader:
        first = reader.listing(0, 3)
        assert len(first) == 3
        assert len(reader.listing(first[-1].spool_id, 100)) == 2


async def test_one_envelope_is_looked_at_and_with_the_keys_opened(folder):
    await fill(folder)
    keyring = RowKeyring(folder / "rows.keys", bytes(32))
    with SpoolReader(folder / "spool") as reader:
        found = reader.one(3)
        assert found == reader.listing(2, 1)[0]
        assert reader.one(99) is None
        assert reader.last_id == 5
        assert reader.open(3, keyring).recipient == "u2@d0.example"
        assert reader.open(99, keyring) is None
        with pytest.raises(KeyringError):
            reader.open(3, RowKeyring(folder / "nowhere", bytes(32)))


def test_a_folder_without_a_spool_is_one_clear_error(folder):
    with pytest.raises(StorageError, match="nowhere"):
        SpoolReader(folder / "nowhere")
