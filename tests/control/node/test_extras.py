"""Who runs beside the processes: nobody on a node alone; in a cluster the agent, which stops no mail."""

import time
from pathlib import Path

import pytest
import trio

from control.node.extras import PAUSE_SECONDS, careful, extras_of
from control.node.house import NodeHouse
from control.node.log_lines import LogBook
from engine.runtime.spec import ChildSpec, SupervisorSpec
from engine.runtime.supervisor import SupervisorGaveUp, Tree
from tests.fakes.node_children import node_config


class Refusal(Exception):
    """It must not run."""


def house_of(folder: Path, text: str = "") -> NodeHouse:
    config, path = node_config(folder, text)
    return NodeHouse(config, path, [], LogBook(()), wall=time.time, environ={})


def tree_of(house: NodeHouse, start) -> Tree:
    child = ChildSpec("agent", careful(start, house, Refusal), mailbox_capacity=0)
    return Tree(SupervisorSpec("beside", (child,)), on_crash=lambda crash, error: None)


def test_a_node_alone_has_nobody_and_one_of_a_cluster_its_agent(tmp_path):
    alone = house_of(tmp_path)
    assert extras_of(alone.config)(alone) == ()
    member = house_of(tmp_path, '[node]\nname = "n1"\n[bus]\nkind = "nats"\n')
    assert [spec.name for spec in extras_of(member.config)(member)] == ["agent"]


async def test_an_agent_that_crashes_for_ever_does_not_end_the_node(tmp_path, autojump_clock):
    crashes = []

    async def start(context, task_status) -> None:
        task_status.started()
        await trio.sleep(0.1)
        crashes.append(trio.current_time())
        raise ValueError("a bug")

    tree = tree_of(house_of(tmp_path), start)
    with trio.move_on_after(600):
        await tree.run()
    assert len(crashes) > 30
    assert crashes[2] - crashes[1] >= PAUSE_SECONDS


async def test_a_stop_is_not_held_up_by_the_pause(tmp_path, autojump_clock):
    async def start(context, task_status) -> None:
        task_status.started()
        await trio.sleep(0.1)
        raise ValueError("a bug")

    tree = tree_of(house_of(tmp_path), start)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: tree.run(task_status=task_status))
        await trio.sleep(1)
        tree.stop()
    assert trio.current_time() < PAUSE_SECONDS


async def test_a_refusal_ends_the_node_with_its_reason(tmp_path, autojump_clock):
    async def start(context, task_status) -> None:
        async with trio.open_nursery():
            raise Refusal("another node has this name")

    house = house_of(tmp_path)
    with pytest.raises(SupervisorGaveUp):
        await tree_of(house, start).run()
    assert house.refused == "another node has this name"
    assert house.refusal.is_set()
