"""Machines join a real nats-server's cluster; whatever is wrong is one clear line and can be mended."""

import time
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from bench.peers.place import missing
from control.cluster import joining
from control.cluster.joining import Joined, JoinError, Plan, join
from control.cluster.knock import Answer, knock
from control.cluster.registry import retired
from control.cluster.registry_file import load_registry
from engine.bus.nkeys import new_seed
from engine.config import HostPort, load_config
from engine.token_ring import load_ring
from tests.fakes.hub_house import HubHouse, on_bus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing("nats") is not None, reason=missing("nats") or ""),
]

NO_PLAN = Plan()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    house = HubHouse(tmp_path_factory.mktemp("hub") / "hub")
    with house.server():
        yield house


async def joined(folder: Path, code, plan=NO_PLAN, wall=time.time) -> Joined:
    folder.mkdir(exist_ok=True)
    with trio.fail_after(40):
        return await trio.to_thread.run_sync(join, folder, code, plan, wall)


async def refused(folder: Path, code, **facts) -> str:
    with pytest.raises(JoinError) as told:
        await joined(folder, code, **facts)
    assert "\n" not in str(told.value)
    assert not (folder / "emass.toml").exists()
    return str(told.value)


async def test_a_machine_joins_and_its_processes_are_let_in(hub, tmp_path):
    plan = Plan(("127.0.0.2", "127.0.0.3"), "b.example", (("engine", "smtp_port", "2525"),))
    async with hub.desk() as operator:
        came = await joined(tmp_path / "b", hub.code("b"), plan)
        config = load_config(came.config, {})
        assert config.node.name == "b"
        assert [(each.name, each.address) for each in config.engine.source] == [
            ("b-1", "127.0.0.2"),
            ("b-2", "127.0.0.3"),
        ]
        assert config.engine.smtp_port == 2525
        assert load_ring(Path(config.keys.folder)) == load_ring(Path(hub.config.keys.folder))
        assert not (Path(config.keys.folder) / "master.key").exists()
        assert abs(came.skew_seconds) < 2
        for process in ("engine", "agent", "submission"):
            async with on_bus(config, process):
                pass
        async with on_bus(config, "engine") as engine:  # its streams are there, although it may make none
            with trio.fail_after(20):
                assert await engine.publish("events.b", [b"event"]) == 1
                await engine.put("status", "b/engine", b"{}")
        with trio.fail_after(20):
            while "b" not in await operator.read_all("nodes"):
                await trio.sleep(0.05)


async def test_a_join_that_failed_half_way_is_repeated_with_the_same_code(hub, tmp_path, monkeypatch):
    code = hub.code("c")

    def power_cut(*_):
        raise OSError(28, "No space left on device")

    async with hub.desk():
        with monkeypatch.context() as broken:
            broken.setattr(joining, "save_ring", power_cut)
            assert "No space left" in await refused(tmp_path / "c", code)
        assert load_registry(hub.data).nodes["c"].active  # the hub has taken it in; the machine does not know
        came = await joined(tmp_path / "c", code)
        async with on_bus(load_config(came.config, {}), "agent"):
            pass
        assert "used already" in await refused(tmp_path / "other", code)
        assert "exists already" in str(await refused_again(tmp_path / "c", code))


async def refused_again(folder: Path, code) -> JoinError:
    with pytest.raises(JoinError) as told:
        await joined(folder, code)
    return told.value


async def test_each_wrong_code_is_one_clear_line(hub, tmp_path):
    good = hub.code("d")
    async with hub.desk():
        other = await refused(tmp_path / "x", replace(good, fingerprint=bytes(32)))
        assert "another certificate" in other
        unknown = await refused(tmp_path / "x", replace(good, seed=new_seed()))
        assert "does not know this join code" in unknown
        nowhere = await refused(tmp_path / "x", replace(good, server=HostPort.parse("127.0.0.1:9")))
        assert "cannot be reached (Connection refused)" in nowhere
        late = hub.code("f", seconds=0.01)
        assert "expired" in await refused(tmp_path / "x", late)
        settings = Plan(settings=(("engine", "smtp_prot", "1"),))
        assert "smtp_port" in await refused(tmp_path / "x", good, plan=settings)
        assert (await joined(tmp_path / "x", good)).answer.node == "d"


async def test_a_clock_that_is_wrong_is_told(hub, tmp_path):
    code = hub.code("g")
    async with hub.desk():
        told = await refused(tmp_path / "g", code, wall=lambda: time.time() - 900)
        assert "15 min behind the hub's" in told
        came = await joined(tmp_path / "g", code, wall=lambda: time.time() + 45)
    assert came.skew_seconds == pytest.approx(45, abs=3)
    assert "45 s ahead of the hub's" in joining.skew_warning(45.0)


async def test_a_hub_whose_desk_is_closed_is_told(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(joining, "ANSWER_SECONDS", 0.5)
    assert "desk does not answer" in await refused(tmp_path / "h", hub.code("h"))


async def test_a_retired_node_is_thrown_out_and_nobody_else(hub, tmp_path):
    async with hub.desk() as operator:
        first = load_config((await joined(tmp_path / "i", hub.code("i"))).config, {})
        second = load_config((await joined(tmp_path / "j", hub.code("j"))).config, {})
        async with on_bus(first, "agent") as gone, on_bus(second, "agent") as stays:
            connection = stays.link.generation, operator.link.generation
            hub.change(lambda before: retired(before, "i", time.time()))
            with trio.fail_after(20):
                while gone.online:
                    await trio.sleep(0.02)
            assert (stays.link.generation, operator.link.generation) == connection
            seed = (Path(first.keys.folder) / "bus" / "agent.seed").read_text().strip()
            digest = hub.code("k").fingerprint
            came = await trio.to_thread.run_sync(knock, *hub.address, seed, digest)
            assert came.answer is Answer.REFUSED
