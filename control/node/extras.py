"""The actors that a node's root runs beside its processes.

In a cluster that is the agent, which tells the others how this node is and does what they ask. Here alone is
decided who comes along; the root knows nobody by name. An agent that crashes comes back after a pause that
keeps it below the limit of restarts: mail does not stop for its sake. But when it finds that this node must
not run, all of it ends.
"""

from collections.abc import Callable, Sequence
from typing import Any

import trio

from control.node.house import NodeHouse
from engine.config import BusKind, Config
from engine.runtime.crash import leaves_of
from engine.runtime.spec import ChildSpec, Context, Start

AGENT_SHUTDOWN_SECONDS = 10.0
PAUSE_SECONDS = 15.0  # before a crashed agent comes back: 4 times a minute, and 5 are allowed


def extras_of(config: Config) -> Callable[[NodeHouse], Sequence[ChildSpec]]:
    """What this node's root makes for its house."""

    def make(house: NodeHouse) -> Sequence[ChildSpec]:
        if config.bus.kind is not BusKind.NATS:
            return ()
        from control.node.agent import NodeRefused, agent

        start = careful(agent(house), house, NodeRefused)
        return (ChildSpec("agent", start, mailbox_capacity=0, shutdown_seconds=AGENT_SHUTDOWN_SECONDS),)

    return make


def careful(start: Start, house: NodeHouse, refusal: type[Exception]) -> Start:
    """An actor that comes back slowly, and whose `refusal` ends the node."""

    async def begin(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        if context.crash_count:
            with trio.move_on_after(PAUSE_SECONDS):
                await context.stop.wait()
                return
        try:
            await start(context, task_status)
        except Exception as error:
            for leaf in leaves_of(error):
                if isinstance(leaf, refusal):
                    house.refuse(str(leaf))
            raise

    return begin
