"""Another process on a bus: one member that does one thing. Run by test_local and test_nats.

ROOT is the folder of a local bus, or nats:PORT.

bus_child.py ROOT read MEMBER STREAM CONSUMER     prints each entry, then acknowledges it
bus_child.py ROOT publish MEMBER STREAM           publishes 1, 2, 3, ...; prints each when durable
bus_child.py ROOT claim MEMBER COUNT              creates claims c0, c1, ...; prints "ready" and those it got
bus_child.py ROOT serve MEMBER SUBJECT            answers every question
bus_child.py ROOT ask MEMBER SUBJECT              asks for a minute as a temporary member
"""

import random
import sys
from pathlib import Path

import structlog
import trio

from engine.bus.api import Bus
from engine.bus.local import LocalBus
from engine.storage import StorageError

NATS = "nats:"


async def read(bus: Bus, stream: str, consumer: str) -> None:
    subscription = bus.subscribe(stream, consumer)
    while True:
        for one in await subscription.receive(10):
            print(one.writer, one.sequence, one.payload.decode(), flush=True)
            await subscription.acknowledge(one)


async def publish(bus: Bus, stream: str) -> None:
    number = 0
    while True:
        number += 1
        print(await bus.publish(stream, [b"%d" % number]), flush=True)


async def claim(bus: Bus, count: str) -> None:
    print("ready", flush=True)
    for number in range(int(count)):
        if await bus.create("claims", f"c{number}", bus.member.encode()) is None:
            print(f"c{number}", flush=True)
        await trio.sleep(random.uniform(0, 0.01))
    print("done", flush=True)


async def serve(bus: Bus, subject: str) -> None:
    questions = bus.serve(subject)
    while True:
        for question in await questions.receive(10):
            await question.answer(b"re: " + question.payload)


async def ask(bus: Bus, subject: str) -> None:
    print("asking", flush=True)
    await bus.ask(subject, b"show", 60.0)


def open_bus(root: str, member: str, *, temporary: bool) -> Bus:
    if root.startswith(NATS):
        from engine.bus.nats import NatsBus

        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
        return NatsBus([("127.0.0.1", int(root.removeprefix(NATS)))], member)
    return LocalBus(Path(root), member, temporary=temporary, group_seconds=0.001, poll_seconds=0.005)


async def main(root: str, what: str, member: str, *arguments: str) -> None:
    bus = open_bus(root, member, temporary=what == "ask")
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        await {"read": read, "publish": publish, "claim": claim, "serve": serve, "ask": ask}[what](
            bus, *arguments
        )
        await trio.sleep_forever()


if __name__ == "__main__":
    try:
        trio.run(main, *sys.argv[1:])
    except StorageError:
        sys.exit(3)
