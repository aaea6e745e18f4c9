"""Rounds of the office: what changes is seen to; a new token id reaches all before anybody signs by it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
import trio
from trio.testing import MockClock

from control.cluster.key_office import seal_dkim_keys
from control.cluster.key_rounds import REPEATED_SECONDS, START_AHEAD_SECONDS, bring_token_id, key_rounds
from engine.keyring import KeyringError
from engine.model.envelope import Envelope
from engine.mta.compose.token import verify
from engine.sealing import former_of, rotate_box
from engine.token_ring import load_plan
from tests.fakes.engine_house import CAMPAIGN, DOMAIN, letter, until, weak_key
from tests.fakes.key_cluster import KeyCluster, KeyNode

pytestmark = pytest.mark.slow  # real sockets, processes or password hashes: a second in all


@asynccontextmanager
async def rounds(cluster: KeyCluster) -> AsyncIterator[None]:
    with structlog.testing.capture_logs():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(key_rounds, cluster.config, cluster.bus)
            yield
            nursery.cancel_scope.cancel()


def return_path(node: KeyNode, accepted_at: float) -> str:
    envelope = Envelope(1, CAMPAIGN, 1, "ann@x.test", "x.test", ("Ann",), accepted_at, 4e9)
    compiled = node.parts.compiled(CAMPAIGN, accepted_at)
    return compiled.compose(envelope, accepted_at).mail_from


def key_id_of(node: KeyNode, path: str) -> int:
    """The id that signed a return path, by the keys of another node."""
    said = verify("b", node.parts.tokens, path.partition("@")[0].removeprefix("b-"), f"bounce.{DOMAIN}")
    assert said is not None, "a token of mail that is out does not verify"
    return said.key_id


async def test_a_new_key_file_and_a_new_node_are_seen_to(tmp_path: Path, autojump_clock: MockClock) -> None:
    cluster = KeyCluster(tmp_path / "hub", "news")
    async with rounds(cluster), cluster.node(tmp_path / "a", "a") as a:
        await until(lambda: a.opened == {"news": cluster.pem("news")})
        (tmp_path / "hub" / "news.pem").unlink()
        weak_key(tmp_path / "hub" / "news.pem")
        await until(lambda: a.opened == {"news": cluster.pem("news")})
        async with cluster.node(tmp_path / "b", "b") as b:
            await until(lambda: b.opened == a.opened)


async def test_both_box_keys_of_a_node_are_replaced_while_it_runs(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cluster = KeyCluster(tmp_path / "hub", "news")
    weak_key(tmp_path / "job.pem")
    async with rounds(cluster), cluster.node(tmp_path / "a", "a") as a:
        await until(lambda: len(a.opened) == 1)
        await seal_dkim_keys(cluster.bus, {"a": a.keys.publics[0]}, {"job": tmp_path / "job.pem"})
        await until(lambda: len(a.opened) == 2)
        for _ in range(2):
            for box in (a.box, a.signer_box):
                rotate_box(box)
            await until(lambda: not former_of(a.box).exists() and not former_of(a.signer_box).exists(), 90)
            assert set(a.keys) == {"news", "job"}
        assert cluster.told("a")["trouble"] == {}


async def test_the_hub_s_trouble_is_said_once_and_the_rounds_go_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cluster = KeyCluster(tmp_path / "hub", "news")
    (tmp_path / "hub" / "news.pem").chmod(0o644)
    with structlog.testing.capture_logs() as logs:
        async with cluster.node(tmp_path / "a", "a") as a, trio.open_nursery() as nursery:
            nursery.start_soon(key_rounds, cluster.config, cluster.bus)
            await trio.sleep(30)
            assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == [
                "keys could not be sealed"
            ]
            (tmp_path / "hub" / "news.pem").chmod(0o600)
            await until(lambda: len(a.opened) == 1, 90)
            nursery.cancel_scope.cancel()


# --- token keys --------------------------------------------------------------------------------------------


async def test_a_new_id_reaches_all_before_it_signs_and_mail_that_is_out_verifies(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cluster = KeyCluster(tmp_path / "hub")
    async with (
        rounds(cluster),
        cluster.node(tmp_path / "a", "a") as a,
        cluster.node(tmp_path / "b", "b") as b,
    ):
        wall = a.parts.clock.now
        for node in (a, b):
            await node.parts.spool.put_content(letter(), wall())
        accepted, composed = wall(), return_path(a, wall())
        lines: list[str] = []
        await bring_token_id(cluster.config, cluster.bus, wall, lines.append, early=True)
        assert lines[0] == "key id 1 is handed out"
        assert all(sorted(node.parts.tokens.keys) == [0, 1] for node in (a, b))
        assert return_path(a, accepted) == composed, "an envelope keeps its token over all attempts"
        assert key_id_of(b, return_path(a, wall())) == 0, "its start lies ahead"
        await trio.sleep(START_AHEAD_SECONDS)
        assert key_id_of(b, return_path(a, wall())) == 1
        assert key_id_of(b, return_path(a, accepted)) == 0
        assert return_path(a, accepted) == composed


async def test_a_node_that_is_away_takes_the_new_id_when_it_is_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cluster = KeyCluster(tmp_path / "hub")
    lines: list[str] = []
    async with rounds(cluster), cluster.node(tmp_path / "a", "a") as a:
        async with cluster.node(tmp_path / "b", "b"):
            await until(lambda: bool(cluster.told("b")))
        await bring_token_id(cluster.config, cluster.bus, a.parts.clock.now, lines.append, early=True)
        assert "b is away: it takes the new keys when it is back" in lines
        async with cluster.node(tmp_path / "b", "b") as b:
            await until(lambda: b.parts.tokens.current == 1)


async def test_a_node_that_lives_and_does_not_take_it_stops_the_command_which_goes_on_later(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = KeyCluster(tmp_path / "hub")
    async with cluster.node(tmp_path / "a", "a") as a, cluster.node(tmp_path / "b", "b") as b:
        takes = b.parts.use_ring
        monkeypatch.setattr(b.parts, "use_ring", refuse)
        wall = a.parts.clock.now
        with structlog.testing.capture_logs(), pytest.raises(KeyringError, match="b did not take"):
            await bring_token_id(cluster.config, cluster.bus, wall, lambda _: None, early=True)
        plan = load_plan(tmp_path / "hub")
        assert plan.waiting == 1
        assert a.parts.tokens.current == 0
        monkeypatch.setattr(b.parts, "use_ring", takes)
        await bring_token_id(cluster.config, cluster.bus, wall, lambda _: None)
        assert load_plan(tmp_path / "hub").waiting is None
        assert a.parts.tokens.current == b.parts.tokens.current == 1


async def test_a_rotation_that_was_interrupted_in_its_second_half_goes_on_and_takes_no_other_id(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = KeyCluster(tmp_path / "hub")
    async with cluster.node(tmp_path / "a", "a") as a, cluster.node(tmp_path / "b", "b") as b:
        takes, wall = b.parts.use_ring, a.parts.clock.now

        def say(line: str) -> None:
            if line.startswith("it signs"):
                monkeypatch.setattr(b.parts, "use_ring", refuse)

        with structlog.testing.capture_logs(), pytest.raises(KeyringError, match="b did not take"):
            await bring_token_id(cluster.config, cluster.bus, wall, say, early=True)
        plan = load_plan(tmp_path / "hub")
        assert plan.waiting is None
        with structlog.testing.capture_logs(), pytest.raises(KeyringError, match="b did not take"):
            await bring_token_id(cluster.config, cluster.bus, wall, say)
        monkeypatch.setattr(b.parts, "use_ring", takes)
        lines: list[str] = []
        assert await bring_token_id(cluster.config, cluster.bus, wall, lines.append, early=True) == plan
        assert lines == ["key id 1 has its start, and not every node has it yet: waiting for them"]
        assert a.parts.tokens.current == b.parts.tokens.current == 1
        assert load_plan(tmp_path / "hub") == plan
        # All have it: what is asked for now is another one.
        with pytest.raises(KeyringError, match="one a year"):
            await bring_token_id(cluster.config, cluster.bus, wall, lines.append)


async def test_an_hour_later_a_node_that_lacks_the_last_id_holds_up_no_other(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cluster = KeyCluster(tmp_path / "hub")
    async with cluster.node(tmp_path / "a", "a") as a:
        wall = a.parts.clock.now
        await until(lambda: bool(cluster.told("a")))
        await cluster.register("gone")
        for expected in ([0, 1], [0, 1]):
            await bring_token_id(cluster.config, cluster.bus, wall, lambda _: None, early=True)
            assert sorted(load_plan(tmp_path / "hub").ids) == expected

        def later() -> float:
            return wall() + REPEATED_SECONDS + START_AHEAD_SECONDS

        await bring_token_id(cluster.config, cluster.bus, later, lambda _: None, early=True)
        assert sorted(load_plan(tmp_path / "hub").ids) == [0, 1, 2]


def refuse(ring: object) -> None:
    raise KeyringError("no room for it")
