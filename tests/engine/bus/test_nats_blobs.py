"""Blobs in parts: whole, or not there."""

import hashlib
import random

import pytest

from engine.bus.api import BusFull
from engine.bus.nats_blobs import MANIFEST, PART_OCTETS, SPEC
from engine.bus.nats_jetstream import Refused
from engine.bus.nats_names import blob_subject
from tests.fakes.nats_house import NatsHouse

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("octets", [PART_OCTETS - 1, PART_OCTETS, PART_OCTETS + 1, 9 * PART_OCTETS + 7])
async def test_a_blob_of_any_size_comes_back(nats_members: NatsHouse, octets: int) -> None:
    bus, other = await nats_members.open("control"), await nats_members.open("a")
    data = random.Random(octets).randbytes(octets)
    digest = await bus.put_blob(data)
    assert await other.read_blob(digest) == data


async def test_a_damaged_or_incomplete_blob_is_not_used(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("control")
    data = bytes(range(256)) * 5_000
    digest = hashlib.sha256(data).hexdigest()
    await bus._jetstream.publish(SPEC, blob_subject(digest, "0"), data[:PART_OCTETS])
    assert await bus.read_blob(digest) is None
    assert await bus.put_blob(data) == digest
    assert await bus.read_blob(digest) == data
    await bus._jetstream.publish(SPEC, blob_subject(digest, "1"), b"damaged")
    assert await bus.read_blob(digest) is None
    await bus._jetstream.publish(SPEC, blob_subject(digest, MANIFEST), b"?")
    assert await bus.read_blob(digest) is None


async def test_a_damaged_blob_is_written_again_by_who_puts_it(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("control")
    data = bytes(range(256)) * 5_000
    digest = await bus.put_blob(data)
    for part in ("1", MANIFEST):
        await bus._jetstream.publish(SPEC, blob_subject(digest, part), b"damaged")
        assert await bus.put_blob(data) == digest
        assert await bus.read_blob(digest) == data


async def test_a_server_without_room_refuses(
    nats_members: NatsHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await nats_members.open("control")

    async def full(*_: object) -> int:
        raise Refused(10023, 503, "insufficient resources")

    monkeypatch.setattr(bus._jetstream, "publish", full)
    with pytest.raises(BusFull, match="insufficient"):
        await bus.put_blob(b"letter")


async def test_two_members_that_put_the_same_keep_it_once(nats_members: NatsHouse) -> None:
    buses = [await nats_members.open("control"), await nats_members.open("a")]
    data = b"letter" * 200_000
    assert len({await bus.put_blob(data) for bus in buses}) == 1
    parts = -(-len(data) // PART_OCTETS)
    assert (await buses[0]._jetstream.info(SPEC)).state.messages == parts + 1
