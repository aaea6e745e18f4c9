"""Writing counts of TLS sessions: a disk that is full costs a line in the log."""

from typing import Any

import pytest
import structlog
from trio.testing import MockClock

from engine.actors.requests import Request
from engine.actors.tls_results import Policy, TlsSession
from engine.actors.tls_writing import acts, write_counts
from engine.bus.api import BusFull
from engine.model.tls import PolicyKind
from engine.model.tls_result import TLS_RESULTS_TABLE
from tests.fakes.engine_house import Desk, memory_parts


async def test_a_full_bus_is_said_and_the_counts_stay(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = memory_parts()
    parts.tls_results.add("a.test", TlsSession(Policy(PolicyKind.STS)))

    async def full(*arguments: Any) -> None:
        raise BusFull("no room")

    with monkeypatch.context() as patched, structlog.testing.capture_logs() as logs:
        patched.setattr(parts.bus, "put", full)
        await write_counts(parts)
    assert [entry["why"] for entry in logs] == ["no room"]
    answer = await acts(parts, Desk().peer)["tls"](Request("tls"))
    assert len(parts.bus.items(TLS_RESULTS_TABLE)) == 1
    assert answer == {"kept": 0, "offered": 0, "resumed": 0}
