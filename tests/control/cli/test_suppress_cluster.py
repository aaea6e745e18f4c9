"""A suppression goes to all engines of a bus, and the command waits until those that live have applied it."""

from pathlib import Path

import pytest
import trio
import trio.testing

from control.cli import suppress_cluster as module
from control.cli.errors import CliError, InputError
from control.cli.suppress_cluster import find_cluster, say
from engine.keyring import create_master_key
from engine.mta.policy.suppression import Reason, SuppressionOrder, parse_scope
from engine.mta.policy.suppression_codec import AddressHasher, decode_order
from tests.fakes.broadcaster_puppet import STATUS_SECONDS, Puppet
from tests.fakes.puppet_bus import PLACE, puppets_on

HASHER = AddressHasher(bytes(32))


def order() -> SuppressionOrder:
    return SuppressionOrder(
        adds=True,
        keys=(HASHER.key_of("ann@x.test"),),
        at_ms=1,
        scope=parse_scope("installation"),
        reason=Reason.MANUAL,
        source="test",
        key_check=HASHER.check,
    )


async def apply(puppet: Puppet, after_seconds: float = 0.0) -> None:
    """As an engine's suppressor does."""
    stream = puppet.bus.subscribe("suppressions", f"suppressor.{puppet.name}")
    for delivery in await stream.receive(1):
        assert decode_order(delivery.payload) == order()
        await trio.sleep(after_seconds)
        puppet.extra = {"suppressions": {delivery.writer: delivery.sequence}}


async def test_it_is_effective_when_the_last_living_engine_says_so(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with (
        puppets_on(monkeypatch, module, ("a", "b", "gone")) as (_, puppets),
        trio.open_nursery() as nursery,
    ):
        await trio.sleep(2 * STATUS_SECONDS)
        puppets["gone"].kill()
        nursery.start_soon(apply, puppets["a"])
        nursery.start_soon(apply, puppets["b"], 0.5)
        done = await module._publish(PLACE, [order()])
    assert 0.5 <= done["effective_seconds"] < 6
    assert (done["engines"], done["keys"], done["writer"], done["sequence"]) == (2, 1, "operator", 1)
    assert say(done).startswith("1 in force on 2 engines after ")


async def test_an_engine_that_lives_and_does_not_apply_it_is_named(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with puppets_on(monkeypatch, module, ("a", "b")) as (_, puppets), trio.open_nursery() as nursery:
        await trio.sleep(2 * STATUS_SECONDS)
        nursery.start_soon(apply, puppets["a"])
        with pytest.raises(BaseExceptionGroup) as raised:
            await module._publish(PLACE, [order()])
    assert raised.group_contains(CliError, match="published, but b has not applied it")


async def test_many_orders_stay_within_what_may_be_ahead(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(module, "ORDERS_AHEAD", 2)
    shown: list[int] = []
    async with puppets_on(monkeypatch, module, ("a",)) as (bus, puppets), trio.open_nursery() as nursery:
        await trio.sleep(2 * STATUS_SECONDS)

        async def apply_slowly() -> None:
            stream = bus.subscribe("suppressions", "suppressor.a")
            for number in range(1, 7):
                await stream.receive(1)
                assert len(bus.streams["suppressions"]) <= number + 2
                puppets["a"].extra = {"suppressions": {"operator": number}}
                await trio.sleep(STATUS_SECONDS)

        nursery.start_soon(apply_slowly)
        done = await module._publish(PLACE, [order()] * 6, shown.append)
    assert (done["keys"], done["sequence"], shown) == (6, 6, [1, 2, 3, 4, 5, 6])


async def test_an_acknowledgement_says_it_before_the_next_status_does(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with puppets_on(monkeypatch, module, ("a",)) as (bus, _), trio.open_nursery() as nursery:
        await trio.sleep(2.1 * STATUS_SECONDS)

        async def acknowledge() -> None:
            stream = bus.subscribe("suppressions", "suppressor.a")
            for delivery in await stream.receive(1):
                await stream.acknowledge(delivery)

        nursery.start_soon(acknowledge)
        done = await module._publish(PLACE, [order()])
    assert done["effective_seconds"] < 0.2


async def test_without_an_engine_it_is_published_all_the_same(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with puppets_on(monkeypatch, module, ()):
        done = await module._publish(PLACE, [order()])
    assert done["engines"] == 0
    assert "when one starts" in say(done)


def test_a_data_folder_is_meant_unless_a_bus_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMASS_CONFIG", raising=False)
    assert find_cluster("data", "", "", "", None) is None
    with pytest.raises(InputError, match="belong to --bus"):
        find_cluster("data", "", "seed", "", None)
    named = find_cluster("data", f"local:{tmp_path}", "", "", None)
    assert named is not None
    assert named.place.folder == str(tmp_path)
    (tmp_path / "emass.toml").write_text('[bus]\nkind = "nats"\n[keys]\nfolder = "keys"\n')
    hub = find_cluster("data", "", "", "", None)
    assert hub is not None
    assert hub.place.seed_file == str(tmp_path / "keys/bus/operator.seed")
    (tmp_path / "keys").mkdir(mode=0o700)
    create_master_key(tmp_path / "keys/master.key")
    assert hub.hasher().check
