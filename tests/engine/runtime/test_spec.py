"""Specs are data with sensible defaults."""

import math

import pytest

from engine.runtime.mailbox import Mailbox
from engine.runtime.spec import ChildSpec, Restart, Strategy, SupervisorSpec
from tests.fakes.trees import context_for


async def nothing(context: object, task_status: object) -> None:
    """A start function that is never run."""


def test_the_defaults_are_the_documented_ones() -> None:
    child = ChildSpec("a", nothing)
    assert (child.restart, child.shutdown_seconds, child.mailbox_capacity) == (Restart.PERMANENT, 5.0, 256)
    tree = SupervisorSpec("root", (child,))
    assert (tree.strategy, tree.restarts_max, tree.period_seconds) == (Strategy.ONE_FOR_ONE, 5, 60.0)
    assert tree.shutdown_seconds == math.inf


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ChildSpec("a", nothing).name = "b"  # type: ignore[misc]


def test_a_context_outside_a_tree_has_no_peers() -> None:
    context = context_for(Mailbox("a", 1))
    assert repr(context) == "<Context a, incarnation 1>"
    with pytest.raises(LookupError, match="spooler"):
        context.peer("spooler")
