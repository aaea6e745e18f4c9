"""The counts of TLS sessions are written each minute and at a stop."""

import trio
from trio.testing import MockClock

from engine.actors.tls_keeping import FLUSH_SECONDS, tls_keeping
from engine.actors.tls_results import Policy, TlsSession
from engine.model.tls import PolicyKind
from engine.model.tls_result import TLS_RESULTS_TABLE
from tests.fakes.engine_house import Desk, memory_parts


async def test_counts_are_written_each_minute_and_at_a_stop(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    context = Desk().context("tls_keeping")
    async with trio.open_nursery() as nursery:
        await nursery.start(tls_keeping(parts), context)
        parts.tls_results.add("a.test", TlsSession(Policy(PolicyKind.STS)))
        await trio.sleep(FLUSH_SECONDS - 1)
        assert not parts.bus.items(TLS_RESULTS_TABLE)
        await trio.sleep(2)
        assert len(parts.bus.items(TLS_RESULTS_TABLE)) == 1
        parts.tls_results.add("b.test", TlsSession(Policy(PolicyKind.STS)))
        context.stop.set()
    assert len(parts.bus.items(TLS_RESULTS_TABLE)) == 2
