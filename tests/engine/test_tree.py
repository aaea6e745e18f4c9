"""The tree as data: who stands where, since order is what a crash and a stop go by."""

import pytest
from trio.testing import MockClock

from engine.runtime.child import SupervisorStatistics
from engine.runtime.spec import ChildSpec, Restart, Strategy, SupervisorSpec
from engine.runtime.supervisor import Tree
from engine.tree import PERIOD_SECONDS, RESTARTS_MAX, engine_tree
from tests.fakes.engine_house import memory_parts

ORDER = [
    "committing",
    "signers",
    "keys",
    "spooler",
    "journal",
    "suppressor",
    "resolver",
    "tls_keeping",
    "connections",
    "sites",
    "scheduler",
    "domains",
    "presence",
    "campaign_states",
    "intake",
    "single_intake",
    "sources",
    "sweeping",
    "metering",
    "commands",
]


def nothing_runs() -> SupervisorStatistics:
    return SupervisorStatistics("engine", "rest_for_one", 0, 5, 60.0, ())


@pytest.fixture
async def spec(autojump_clock: MockClock) -> SupervisorSpec:
    return engine_tree(memory_parts(), nothing_runs)


async def test_the_order_is_the_one_that_stopping_and_restarting_need(spec: SupervisorSpec) -> None:
    assert [child.name for child in spec.children] == ORDER
    assert spec.strategy is Strategy.REST_FOR_ONE
    assert (spec.restarts_max, spec.period_seconds) == (RESTARTS_MAX, PERIOD_SECONDS)


async def test_everybody_comes_back(spec: SupervisorSpec) -> None:
    assert {child.restart for child in spec.children} == {Restart.PERMANENT}


async def test_who_settles_has_more_time_than_who_tells(spec: SupervisorSpec) -> None:
    """A stop must not cut off the spooler while the last settles are on their way to the disk."""
    patience = {child.name: child.shutdown_seconds for child in spec.children}
    for name in ("committing", "spooler", "journal"):
        assert patience[name] >= 30.0


async def test_only_those_who_read_a_mailbox_have_one(spec: SupervisorSpec) -> None:
    capacity = {child.name: child.mailbox_capacity for child in spec.children if isinstance(child, ChildSpec)}
    assert [name for name in ORDER if capacity[name]] == [
        "signers",
        "spooler",
        "journal",  # for its door alone: open = it comes back
        "resolver",
        "scheduler",
    ]


async def test_the_intensity_may_be_raised(autojump_clock: MockClock) -> None:
    assert engine_tree(memory_parts(), nothing_runs, restarts_max=99).restarts_max == 99


async def test_every_peer_that_an_actor_names_is_there(spec: SupervisorSpec) -> None:
    tree = Tree(spec)
    for name in ("signers", "spooler", "resolver", "scheduler"):
        assert tree.ref(name).name == name
