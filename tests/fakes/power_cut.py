"""Opens a spool file that a power cut may have left, and asks it for all that had been acknowledged.

`known` is what the process of `tests.fakes.spool_writer` had said by then. As a program:
`python -m tests.fakes.power_cut FOLDER`, with data.mdb, rows.keys and the lines that were said in
FOLDER; it ends with 0 when everything is there.
"""

import json
import shutil
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import trio

from engine.config import AmbiguousPolicy
from engine.keyring import RowKeyring
from engine.model.event import ChunkAccepted, decode_events
from engine.mta.spool.api import StateCounts
from engine.mta.spool.lmdb import LmdbSpool
from engine.mta.spool.tables import open_spool_environment
from engine.storage import Committer
from tests.contract.spool import NOW, RETRY_AT, a_chunk
from tests.fakes.spool_writer import MAP_OCTETS, MASTER

FINAL = ("delivered", "bounced")


@dataclass
class Known:
    """What the process had been told, or had asked for, by some moment."""

    chunks: dict[int, int] = field(default_factory=dict)  # first id -> count
    leased: set[int] = field(default_factory=set)
    asked: dict[int, str] = field(default_factory=dict)  # envelope -> outcome, acknowledged or not
    settled: dict[int, str] = field(default_factory=dict)

    def take(self, text: str) -> None:
        fact = json.loads(text)
        if "chunk" in fact:
            self.chunks[fact["first"]] = fact["count"]
        elif "lease" in fact:
            self.leased.update(fact["ids"])
        elif "settling" in fact:
            self.asked.update((spool_id, outcome) for spool_id, outcome in fact["settling"])
        else:
            self.settled.update((spool_id, outcome) for spool_id, outcome in fact["settled"])

    @property
    def accepted(self) -> set[int]:
        return {first + i for first, count in self.chunks.items() for i in range(count)}


async def check(octets: bytes, keys: bytes, known: Known, folder: Path) -> None:
    """Open the file and ask for everything that was acknowledged; then recover it and write again."""
    (folder / "spool").mkdir(parents=True)
    (folder / "spool" / "data.mdb").write_bytes(octets)
    (folder / "rows.keys").write_bytes(keys)
    (folder / "rows.keys").chmod(0o600)
    environment = open_spool_environment(folder / "spool", map_octets=MAP_OCTETS)
    committer = Committer(environment, group_seconds=0.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(committer.run)
        spool = LmdbSpool(environment, committer, RowKeyring(folder / "rows.keys", MASTER), producer="node-1")
        everything_is_there(spool, known)
        await spool.recover(NOW, AmbiguousPolicy.RETRY, RETRY_AT)
        leases_were_known(spool, known)
        more = await spool.accept(a_chunk(3, "after the cut"), NOW)
        ((lease,),) = await spool.lease([range(more.first_id, more.first_id + 3)], NOW)
        assert len(lease.envelopes) == 3
        committer.close()
    environment.close()
    shutil.rmtree(folder)


def everything_is_there(spool: LmdbSpool, known: Known) -> None:
    listed = {item.spool_id: item for item in spool.listing(0, 10**6)}
    told: dict[int, list[str]] = defaultdict(list)
    chunks = 0
    following = 1
    for sequence, data in spool.events(0, 10**6):
        batch = decode_events(data)
        assert sequence == batch.sequence == following
        following = batch.next_sequence
        for event in batch.events:
            if isinstance(event, ChunkAccepted):
                chunks += event.count
            else:
                told[event.spool_id].append(type(event).__struct_config__.tag)
    gone = {spool_id for spool_id, kinds in told.items() if set(kinds) & set(FINAL)}
    assert not gone & set(listed)
    assert known.accepted <= gone | set(listed)
    for spool_id, outcome in known.settled.items():
        if outcome in FINAL:
            assert told[spool_id] == [outcome]
        elif outcome == "returned":
            assert listed[spool_id].state == "queued"
        else:
            assert (told[spool_id], listed[spool_id].attempt) == ([outcome], 1)
    counts = spool.counts(1)
    assert counts.accepted == chunks == len(listed) + len(gone)
    assert counts.finished == len(gone)
    assert counts == StateCounts(
        accepted=chunks,
        delivered=sum("delivered" in kinds for kinds in told.values()),
        bounced=sum("bounced" in kinds for kinds in told.values()),
        was_ambiguous=sum("ambiguous" in kinds for kinds in told.values()),
    )


def leases_were_known(spool: LmdbSpool, known: Known) -> None:
    """Whatever may have been on the wire is settled, or ambiguous now; unless it was to be returned."""
    for item in spool.listing(0, 10**6):
        if item.spool_id in known.leased and item.state == "queued":
            assert known.asked[item.spool_id] == "returned"
        if item.spool_id in known.leased and item.spool_id not in known.asked:
            assert item.was_ambiguous


def main(folder: Path) -> None:
    known = Known()
    for line in (folder / "said").read_text().splitlines():
        known.take(line)
    octets, keys = (folder / "data.mdb").read_bytes(), (folder / "rows.keys").read_bytes()
    shutil.rmtree(folder / "opened", ignore_errors=True)  # of a run that did not come to its end
    trio.run(check, octets, keys, known, folder / "opened")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
