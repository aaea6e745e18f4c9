"""Requests to JetStream are repeated until they are answered, and refusals say why."""

import pytest
import trio

from bench.peers.nats import NatsServer
from engine.bus import nkeys
from engine.bus.nats_jetstream import EXPECTED_LAST, WRONG_LAST_SEQUENCE, JetStream, Refused, StreamSpec
from engine.bus.nats_link import Link
from tests.engine.bus.test_nats_link import linked, users
from tests.fakes.nats_house import NatsHouse

pytestmark = pytest.mark.slow

SPEC = StreamSpec("t-test", "emass.t.test.>", one_per_subject=True)
SMALL = StreamSpec("s-small", "emass.s.small.*", max_bytes=5_000)


async def test_a_message_is_kept_under_its_conditions(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("node-1")
    jetstream = JetStream(bus.link)
    assert await jetstream.look(SPEC) is None
    assert await jetstream.last(SPEC, "emass.t.test.a") is None
    assert await jetstream.publish(SPEC, "emass.t.test.a", b"1", {EXPECTED_LAST: "0"}) == 1
    with pytest.raises(Refused, match="wrong last sequence: 1") as refusal:
        await jetstream.publish(SPEC, "emass.t.test.a", b"2", {EXPECTED_LAST: "0"})
    assert refusal.value.number == WRONG_LAST_SEQUENCE
    assert not refusal.value.full
    assert await jetstream.publish(SPEC, "emass.t.test.a", b"2", {EXPECTED_LAST: "1"}) == 2
    message = await jetstream.last(SPEC, "emass.t.test.a")
    assert message is not None
    assert (message.seq, message.data) == (2, b"2")
    assert await jetstream.last(SPEC, "emass.t.test.b") is None
    assert await jetstream.at(SPEC, 1) is None
    assert await jetstream.following(SPEC, "emass.t.test.*", 1) == message
    assert await jetstream.following(SPEC, "emass.t.test.*", 3) is None
    assert await jetstream.purge(SPEC, 3)
    assert await jetstream.last(SPEC, "emass.t.test.a") is None


async def test_a_full_stream_refuses_and_says_that_it_is_full(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("node-1")
    jetstream = JetStream(bus.link)
    with pytest.raises(Refused) as refusal:
        await jetstream.publish(SMALL, "emass.s.small.a", bytes(6_000))
    assert refusal.value.full


async def test_a_stream_that_is_there_is_used_as_it_is(nats_members: NatsHouse) -> None:
    bus = await nats_members.open("node-1")
    jetstream = JetStream(bus.link)
    await jetstream.info(SMALL)
    other = StreamSpec(SMALL.name, SMALL.subjects, max_bytes=9_000)
    assert (await JetStream(bus.link).info(other)).config.max_bytes == 5_000


async def test_who_may_not_make_a_stream_waits_for_it(
    tmp_path_factory: pytest.TempPathFactory, nats_server: NatsServer
) -> None:
    seed, operator = nkeys.new_seed(), nkeys.new_seed()
    allowed = (
        '{ publish: { allow: ["emass.t.>", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.*"] },'
        ' subscribe: { allow: ["emass.i.node-1.>"] } }'
    )
    more = users(
        f"{{ nkey: {nkeys.public_of(seed)}, permissions: {allowed} }}",
        f"{{ nkey: {nkeys.public_of(operator)} }}",
    )
    with NatsServer(tmp_path_factory.mktemp("nats"), more=more) as server:
        async with (
            linked(server, seed=seed) as link,
            linked(server, member="operator", seed=operator) as other,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish, link)
                await trio.sleep(0.5)
                assert await JetStream(other).look(SPEC) is None
                await JetStream(other).info(SPEC)
            message = await JetStream(other).last(SPEC, "emass.t.test.a")
            assert message is not None
            assert message.data == b"1"
            assert not await JetStream(link).purge(SPEC, 9)


async def publish(link: Link) -> None:
    with trio.fail_after(20):
        await JetStream(link).publish(SPEC, "emass.t.test.a", b"1")


async def test_the_message_before_is_found_however_far_it_lies(nats_members: NatsHouse) -> None:
    jetstream = JetStream((await nats_members.open("node-1")).link)
    spec = StreamSpec("s-before", "emass.s.before.*")
    wanted = {2, 3, 40, 41, 60}
    for number in range(1, 61):
        await jetstream.publish(spec, f"emass.s.before.{'a' if number in wanted else 'b'}", b"x")
    for seq in range(1, 63):
        found = await jetstream.preceding(spec, "emass.s.before.a", seq)
        assert (found.seq if found else 0) == max((each for each in wanted if each < seq), default=0)
    await jetstream.purge(spec, 41)
    assert await jetstream.preceding(spec, "emass.s.before.a", 41) is None
