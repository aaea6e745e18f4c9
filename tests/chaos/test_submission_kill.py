"""kill -9 of a submission process while clients hand in mail: what was answered with 250 is on the bus."""

import smtplib
import ssl
from pathlib import Path

import pytest
import trio

from engine.bus.local import LocalBus
from engine.model.single import SubmitSingle, decode_single
from tests.fakes.submission_house import PASSWORD
from tests.fakes.submission_place import Place

pytestmark = pytest.mark.slow

CLIENTS = 4
ROUNDS = 3
BEFORE_SECONDS = 1.5
LETTER = b"From: ann@shop.test\r\nTo: b@x.test\r\n\r\nhello\r\n"


def hand_in_until_it_dies(place: Place, taken: list[str]) -> None:
    """One client: note what was answered with 250."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        client = smtplib.SMTP("127.0.0.1", place.port, timeout=30)
        client.starttls(context=context)
        client.login("ann", PASSWORD)
        while True:
            client.mail("ann@shop.test")
            client.rcpt("b@x.test")
            code, text = client.data(LETTER)
            if code == 250:
                taken.append(text.decode().rpartition(" ")[2])
    except (OSError, smtplib.SMTPException):
        pass


async def on_the_bus(folder: Path) -> list[str]:
    """The ids of everything on the stream, as an engine reads it."""
    bus = LocalBus(folder / "data" / "bus", "node")
    found: list[str] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        subscription = bus.subscribe("chunks.node.single", "intake")
        with trio.move_on_after(3.0):
            while True:
                for delivery in await subscription.receive(256):
                    single = decode_single(delivery.payload)
                    assert isinstance(single, SubmitSingle)
                    found.append(single.id)
        bus.close()
    bus.close_files()
    return found


async def test_what_was_answered_with_250_survives_kill_nine(tmp_path: Path) -> None:
    place, taken = Place(tmp_path, 1), list[str]()
    for _ in range(ROUNDS):
        async with trio.open_nursery() as nursery, place.submission(killed=True) as process:
            for _ in range(CLIENTS):
                nursery.start_soon(trio.to_thread.run_sync, hand_in_until_it_dies, place, taken)
            await trio.sleep(BEFORE_SECONDS)
            process.kill()
    found = await on_the_bus(tmp_path)
    assert len(taken) > ROUNDS * CLIENTS
    assert {f"{each}.0" for each in taken} <= set(found)
    assert len(found) == len(set(found))
