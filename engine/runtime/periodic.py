"""Work that comes back every so many seconds.

One loop: sleep, then call. The pause counts from call to call, so a slow call does not shift the next ones,
and a call slower than the period is followed by the next at once, never by a burst of the missed ones.
Jitter spreads many such loops that would otherwise wake together. A call that raises ends the loop: it is
the caller's crash.
"""

import random
from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio


async def every(
    seconds: float,
    call: Callable[[], Awaitable[object]],
    *,
    jitter: float = 0.0,
    first_after_seconds: float | None = None,
    uniform: Callable[[float, float], float] = random.uniform,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Await `call` every `seconds`, each pause drawn from `seconds` x (1 - jitter .. 1 + jitter).

    The first call comes after a whole pause, or after `first_after_seconds`. Runs until cancelled.
    """
    assert seconds > 0
    assert 0 <= jitter < 1
    due = trio.current_time()
    due += seconds * uniform(1 - jitter, 1 + jitter) if first_after_seconds is None else first_after_seconds
    task_status.started()
    while True:
        await trio.sleep_until(due)
        await call()
        due = max(due + seconds * uniform(1 - jitter, 1 + jitter), trio.current_time())
