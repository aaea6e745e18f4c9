"""Writes the counts of TLS sessions each minute and at a stop.

Stands left of the connections, so that what the last of them tell is written, too. Decides nothing else;
`tls_writing` does it. Touches: the bus table. A crash loses nothing: the counts live in the parts.
"""

from typing import Any

import trio

from engine.actors.parts import Parts
from engine.actors.tls_writing import write_counts
from engine.runtime.spec import Context, Start

FLUSH_SECONDS = 60.0
STOP_SECONDS = 10.0  # a stop does not wait longer for counts


def tls_keeping(parts: Parts) -> Start:
    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while not context.stop.is_set():
            with trio.move_on_after(FLUSH_SECONDS):
                await context.stop.wait()
            with trio.move_on_after(STOP_SECONDS):
                await write_counts(parts)

    return start
