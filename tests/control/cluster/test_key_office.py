"""The key office: everybody gets what is theirs, sealed to them, and again when a box key was replaced."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from control.cluster.key_office import (
    KeyOffice,
    NodeKeys,
    nodes_of,
    read_nodes,
    seal_dkim_keys,
    take_dkim_key,
)
from engine.keyring import KeyringError
from engine.sealing import create_box, dkim_bound, dkim_table, load_boxes, rotate_box, sealed_to
from engine.token_ring import KINDS_BY_ROLE, decode_ring, ring_for
from tests.fakes.engine_house import weak_key
from tests.fakes.key_cluster import KeyCluster

pytestmark = pytest.mark.slow  # real sockets, processes or password hashes: a second in all


async def rounds(cluster: KeyCluster, office: KeyOffice, count: int = 3) -> list[str]:
    problems: list[str] = []
    for _ in range(count):
        problems = await office.work((await read_nodes(cluster.bus)).values())
        await trio.sleep(5)
    return problems


async def test_every_node_gets_the_hub_s_keys_sealed_to_its_own_signers(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cluster = KeyCluster(tmp_path / "hub", "news", "shop")
    async with cluster.node(tmp_path / "a", "a") as a, cluster.node(tmp_path / "b", "b") as b:
        assert await rounds(cluster, KeyOffice(cluster.config, cluster.bus)) == []
        for node in (a, b):
            assert node.opened == {name: cluster.pem(name) for name in ("news", "shop")}
        rows = {node.name: cluster.bus.items(dkim_table(node.name)) for node in (a, b)}
        assert rows["a"]["news"] != rows["b"]["news"]
        with pytest.raises(KeyringError):
            load_boxes(a.signer_box).open(rows["b"]["news"], dkim_bound("b", "news"))


async def test_a_pass_over_what_is_right_writes_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    cluster = KeyCluster(tmp_path / "hub", "news")
    async with cluster.node(tmp_path / "a", "a"):
        await rounds(cluster, KeyOffice(cluster.config, cluster.bus))
        before = {name: dict(table) for name, table in cluster.bus.tables.items() if name != "status"}
        await rounds(cluster, KeyOffice(cluster.config, cluster.bus))
        after = {name: dict(table) for name, table in cluster.bus.tables.items() if name != "status"}
        assert before == after


async def test_another_key_in_the_hub_s_file_reaches_everybody(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cluster = KeyCluster(tmp_path / "hub", "news")
    async with cluster.node(tmp_path / "a", "a") as a:
        office = KeyOffice(cluster.config, cluster.bus)
        await rounds(cluster, office)
        former = cluster.pem("news")
        (tmp_path / "hub" / "news.pem").unlink()
        weak_key(tmp_path / "hub" / "news.pem")
        await rounds(cluster, office)
        assert a.opened["news"] == cluster.pem("news") != former


async def test_a_job_s_key_is_sealed_anew_from_the_office_s_copy(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cluster = KeyCluster(tmp_path / "hub")
    weak_key(tmp_path / "job.pem")
    async with cluster.node(tmp_path / "a", "a") as a:
        office = KeyOffice(cluster.config, cluster.bus)
        await rounds(cluster, office)
        await seal_dkim_keys(cluster.bus, {"a": a.keys.publics[0]}, {"job": tmp_path / "job.pem"})
        await trio.sleep(1)
        assert a.opened == {"job": (tmp_path / "job.pem").read_bytes()}
        (tmp_path / "job.pem").unlink()
        public = rotate_box(a.signer_box)
        assert await rounds(cluster, office, 6) == []
        sealed = cluster.bus.items(dkim_table("a"))["job"]
        assert load_boxes(a.signer_box).public == public
        assert sealed_to(sealed) == load_boxes(a.signer_box).keys[0].id
        assert len(load_boxes(a.signer_box).keys) == 1, "the former box is destroyed"


async def test_a_job_s_key_without_a_copy_is_said_to_be_lost(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cluster = KeyCluster(tmp_path / "hub")
    weak_key(tmp_path / "job.pem")
    async with cluster.node(tmp_path / "a", "a") as a:
        await trio.sleep(1)
        await seal_dkim_keys(cluster.bus, {"a": a.keys.publics[0]}, {"job": tmp_path / "job.pem"})
        rotate_box(a.signer_box)
        await trio.sleep(5)
        (problem,) = await rounds(cluster, KeyOffice(cluster.config, cluster.bus))
        assert problem.startswith("a: there is no copy to seal anew of the DKIM keys job")


async def test_a_key_that_is_taken_away_stays_away(tmp_path: Path, autojump_clock: MockClock) -> None:
    cluster = KeyCluster(tmp_path / "hub")
    weak_key(tmp_path / "job.pem")
    async with cluster.node(tmp_path / "a", "a") as a:
        office = KeyOffice(cluster.config, cluster.bus)
        await rounds(cluster, office)
        keys = {"job": tmp_path / "job.pem"}
        await seal_dkim_keys(cluster.bus, {"a": a.keys.publics[0]}, keys)
        await rounds(cluster, office)
        assert "job" in a.keys
        await take_dkim_key(cluster.bus, ["a", "b"], "job")
        assert await rounds(cluster, office) == []
        assert "job" not in a.keys
        await seal_dkim_keys(cluster.bus, {"a": a.keys.publics[0]}, keys)
        await rounds(cluster, office)
        assert "job" in a.keys


@pytest.mark.parametrize(
    "change", [lambda sealed: sealed[:-1] + bytes((sealed[-1] ^ 1,)), lambda _: b"octets"]
)
async def test_a_value_that_was_damaged_is_mended(
    tmp_path: Path, autojump_clock: MockClock, change: object
) -> None:
    assert callable(change)
    cluster = KeyCluster(tmp_path / "hub", "news")
    async with cluster.node(tmp_path / "a", "a") as a:
        office = KeyOffice(cluster.config, cluster.bus)
        await rounds(cluster, office)
        for table, row in (("dkim.a", "news"), ("tokens.a", "ring")):
            await cluster.bus.put(table, row, change(cluster.bus.items(table)[row]))
        await trio.sleep(5)
        assert set(cluster.told("a")["trouble"]) == {"dkim news", "tokens"}
        await rounds(cluster, KeyOffice(cluster.config, cluster.bus))
        assert cluster.told("a")["trouble"] == {}
        assert a.opened == {"news": cluster.pem("news")}


@pytest.mark.parametrize("role", ["landing", "bounce"])
async def test_a_role_gets_its_kinds_of_token_keys_alone(
    tmp_path: Path, autojump_clock: MockClock, role: str
) -> None:
    cluster = KeyCluster(tmp_path / "hub")
    public = create_box(tmp_path / "box")
    signer = create_box(tmp_path / "signer")
    await cluster.register("w", role, box_public=public.hex(), signer_public=signer.hex())
    assert await KeyOffice(cluster.config, cluster.bus).work((await read_nodes(cluster.bus)).values()) == []
    sealed = cluster.bus.items("tokens.w")["ring"]
    ring = decode_ring(load_boxes(tmp_path / "box").open(sealed, b"tokens/w"), "here")
    assert ring == ring_for(cluster.master, KINDS_BY_ROLE[role])


async def test_a_node_that_tells_no_key_holds_up_nobody(tmp_path: Path, autojump_clock: MockClock) -> None:
    cluster = KeyCluster(tmp_path / "hub", "news")
    await cluster.register("mute")
    await cluster.register("gone", retired_at=1.0)
    await cluster.bus.put("nodes", "odd", b"{")
    async with cluster.node(tmp_path / "z", "z") as z:
        problems = await rounds(cluster, KeyOffice(cluster.config, cluster.bus))
        assert [problem.partition(":")[0] for problem in problems] == ["mute", "mute"]
        assert list(z.opened) == ["news"]
    assert "dkim.gone" not in cluster.bus.tables


async def test_the_hub_s_own_trouble_is_an_error(tmp_path: Path, autojump_clock: MockClock) -> None:
    cluster = KeyCluster(tmp_path / "hub", "news")
    (tmp_path / "hub" / "news.pem").chmod(0o644)
    with pytest.raises(KeyringError, match="chmod 600"):
        await KeyOffice(cluster.config, cluster.bus).work([NodeKeys("a", "broadcaster")])


async def test_no_file_that_is_no_key_is_sealed(tmp_path: Path, autojump_clock: MockClock) -> None:
    cluster = KeyCluster(tmp_path / "hub")
    (tmp_path / "text").write_bytes(b"no key")
    (tmp_path / "text").chmod(0o600)
    with pytest.raises(KeyringError, match="PEM"):
        await seal_dkim_keys(cluster.bus, {"a": create_box(tmp_path / "box")}, {"x": tmp_path / "text"})
    assert "dkim.a" not in cluster.bus.tables


@pytest.mark.parametrize(
    "row",
    [
        b'{"serial": "x"}',
        b'{"serial": null}',
        b'{"ids": 5}',
        b'{"ids": ["x"]}',
        b'{"dkim": [1]}',
        b'{"dkim": {"news": 5}}',
        b'{"trouble": null}',
        b'{"files": 7}',
        b'{"signer_public": ["ab"]}',
        b'{"beat": "x"}',
        b'{"more": "\xff"}',
        b'{"more":' + b"[" * 100_000,
        b"[" * 100_000,
    ],
)
def test_no_row_of_a_node_crashes_the_office(row: bytes) -> None:
    registered = b'{"role": "broadcaster", "signer_public": "ab"}'
    nodes = nodes_of({"a": registered, "odd": row}, {"a/keys": row, "a/engine": row})
    assert nodes == {"a": NodeKeys("a", "broadcaster", b"\xab")}


def test_rows_that_make_no_sense_say_nothing() -> None:
    nodes = nodes_of(
        {"a": b'{"role": "broadcaster", "signer_public": "zz"}', "b": b"[]"},
        {"a/keys": b"\xff", "a/engine": b'{"beat": 3}'},
    )
    assert nodes == {"a": NodeKeys("a", "broadcaster", beat=3)}
