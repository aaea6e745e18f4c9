"""The committers of the spool and the buses, as the leftmost actor: everybody's writes need them.

First to start, last to stop: what was submitted before the stop becomes durable. On crash everything to
the right starts again over the same store. A store that was given up (`Committer.failed`) stays given
up: the restart fails, and the tree stops with the reason.
"""

from typing import Any

import trio

from engine.actors.parts import Parts
from engine.runtime.spec import Context, Start


def committing(parts: Parts) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(parts.bus.run)
            if parts.cluster is not parts.bus:
                await nursery.start(parts.cluster.run)
            if parts.committer is not None:
                await nursery.start(parts.committer.run)
            task_status.started()
            await context.stop.wait()
            parts.bus.close()
            parts.cluster.close()
            if parts.committer is not None:
                parts.committer.close()

    return start
