"""A trio loop in a thread of its own, for tests that must step from outside (Hypothesis state machines)."""

import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import trio

T = TypeVar("T")


class Portal:
    """Runs `world` (an async context manager) until closed; `call` runs a function inside."""

    def __init__(self, world: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._world = world
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def call(self, function: Callable[[Any], Awaitable[T]]) -> T:
        """`await function(what world gave)` in the loop; raises what it raises."""
        return trio.from_thread.run(function, self._inside, trio_token=self._token)

    def close(self) -> None:
        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join()

    def _main(self) -> None:
        try:
            trio.run(self._live)
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _live(self) -> None:
        self._stop = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        async with self._world() as self._inside:
            self._ready.set()
            await self._stop.wait()


@contextlib.asynccontextmanager
async def just(value: T) -> AsyncIterator[T]:
    yield value
