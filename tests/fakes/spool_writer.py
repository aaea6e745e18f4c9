"""A process that lives a short life with an LMDB spool and says aloud what was acknowledged to it.

`python -m tests.fakes.spool_writer FOLDER SEED CHUNKS`: several tasks accept chunks, lease and settle at the
same time, so that commits are groups. Each acknowledgement is one JSON line, written with one system
call the moment it is known: a recording of the system calls shows what was on the disk by then.
"""

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import trio

from engine.keyring import RowKeyring
from engine.model.disposition import DelayReason, Disposition, Outcome
from engine.mta.spool.api import Lease
from engine.mta.spool.lmdb import LmdbSpool
from engine.mta.spool.tables import open_spool_environment
from engine.storage import Committer
from tests.contract.spool import NOW, RETRY_AT, a_chunk, a_content

MASTER = bytes(range(32))
MAP_OCTETS = 64 * 1024**2
ENDS = (
    [Outcome.DELIVERED] * 6 + [Outcome.DEFERRED] * 2 + [Outcome.RETURNED, Outcome.BOUNCED, Outcome.AMBIGUOUS]
)


def say(**fact: Any) -> None:
    os.write(1, json.dumps(fact).encode() + b"\n")


async def main(folder: Path, seed: int, chunks: int) -> None:
    chance = random.Random(seed)
    environment = open_spool_environment(folder / "spool", map_octets=MAP_OCTETS)
    committer = Committer(environment, group_seconds=0.0)
    send, receive = trio.open_memory_channel[list[int]](chunks)
    async with trio.open_nursery() as nursery:
        await nursery.start(committer.run)
        spool = LmdbSpool(environment, committer, RowKeyring(folder / "rows.keys", MASTER), producer="node-1")
        await spool.put_content(a_content(), NOW)
        async with trio.open_nursery() as workers:
            workers.start_soon(accept, spool, send, chunks, chance)
            for _ in range(3):
                workers.start_soon(deliver, spool, receive.clone(), chance)
            receive.close()
        committer.close()
    environment.close()


async def accept(
    spool: LmdbSpool, send: trio.MemorySendChannel[list[int]], chunks: int, chance: random.Random
) -> None:
    async with send:
        for number in range(chunks):
            name = f"chunk-{number}"
            accepted = await spool.accept(a_chunk(chance.randint(1, 60), name), NOW)
            say(chunk=name, first=accepted.first_id, count=accepted.count)
            await send.send(list(range(accepted.first_id, accepted.first_id + accepted.count)))


async def deliver(
    spool: LmdbSpool, receive: trio.MemoryReceiveChannel[list[int]], chance: random.Random
) -> None:
    async with receive:
        async for ids in receive:
            made = await spool.lease([ids[: len(ids) // 2], ids[len(ids) // 2 :]], NOW)
            for leases in made:
                for lease in leases:
                    say(lease=lease.id, ids=[envelope.spool_id for envelope in lease.envelopes])
            for leases in made:
                for lease in leases:
                    await settle(spool, lease, chance)


async def settle(spool: LmdbSpool, lease: Lease, chance: random.Random) -> None:
    """In two parts; sometimes the second never comes, as if the connection were still at work."""
    ends = [
        Disposition(
            envelope.spool_id,
            envelope.attempt,
            chance.choice(ENDS),
            reply="250 2.0.0 Ok",
            reason=DelayReason.NONE,
            due=RETRY_AT,
        )
        for envelope in lease.envelopes
    ]
    for part in (ends[::2], ends[1::2]):
        facts = [(item.spool_id, item.outcome.value) for item in part]
        say(settling=facts)
        await spool.settle([(lease.id, part)], NOW)
        say(settled=facts)
        if chance.random() < 0.3:
            return


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
