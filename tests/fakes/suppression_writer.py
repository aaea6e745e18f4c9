"""A process that applies orders to a store of suppressions and says aloud which ones are durable.

`python -m tests.fakes.suppression_writer FOLDER ORDERS`: order n adds KEYS addresses of its own. Each
acknowledgement is one line with its number, written with one system call the moment it is known.
"""

import os
import sys
from pathlib import Path

import trio

from engine.mta.spool.suppressions import open_suppressions
from tests.contract.suppressions import HASHER, add

KEYS = 3_000


def keys_of(number: int) -> list[bytes]:
    return [HASHER.key_of(f"a{number}.{each}@x.test") for each in range(KEYS)]


async def main(folder: Path, orders: int) -> None:
    store = open_suppressions(folder, HASHER)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for number in range(orders):
            await store.apply(add(*keys_of(number)))
            os.write(1, f"{number}\n".encode())
        store.close()
    store.environment.close()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
