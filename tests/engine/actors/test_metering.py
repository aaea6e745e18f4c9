"""The pages of an engine: numbers for Prometheus, a word for people; and mail that never waits for them."""

import json
import socket
from pathlib import Path

import pytest
import structlog
import trio
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from bench.peers.process import free_port
from engine.actors import metering as module
from engine.actors.metering import FRESH_SECONDS, Meter, crashes, metering, troubles
from engine.app import open_engine
from engine.config import MetricsTable
from engine.runtime.child import ChildState
from engine.runtime.crash import Crash
from tests.engine.actors.test_measuring import child, statistics
from tests.fakes.engine_house import (
    accepted,
    engine_config,
    host_route,
    letter,
    memory_parts,
    numbered,
    submit,
    until,
)
from tests.fakes.trees import running_actor


def values(page: bytes) -> dict[str, float]:
    """Those without labels."""
    families = text_string_to_metric_families(page.decode())
    return {each.name: each.value for family in families for each in family.samples if not each.labels}


async def fetch(port: int, path: str) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return b"".join([part async for part in stream])


async def test_nobody_is_served_by_default(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Meter", None)  # nor is anything made
    async with running_actor(metering(memory_parts(), statistics)):
        await trio.sleep(1)


async def test_numbers_are_read_once_for_all_who_ask_at_a_time() -> None:
    parts = memory_parts()
    looks = 0

    def look() -> object:
        nonlocal looks
        looks += 1
        return statistics()

    meter = Meter(parts, look)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(meter.metrics, "")
    assert looks == 1
    meter._fresh_until -= 10 * FRESH_SECONDS
    await accepted(parts, numbered(3))
    assert b'emass_envelopes_accepted_total{class="bulk"} 3.0' in (await meter.metrics("")).body
    assert looks == 2


@pytest.mark.slow
async def test_an_address_that_is_in_use_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTEN_SECONDS", 0.01)
    parts = memory_parts()
    with socket.create_server(("127.0.0.1", 0)) as taken, structlog.testing.capture_logs() as told:
        port = taken.getsockname()[1]
        parts.config = replace(parts.config, metrics=MetricsTable(listen=f"127.0.0.1:{port}"))
        async with running_actor(metering(parts, statistics)):
            await until(lambda: told)
            taken.close()
            got = b""
            while not got:
                await trio.sleep(0.01)
                try:
                    got = await fetch(port, "/healthz")
                except OSError:
                    continue
    assert told[0]["event"] == "metrics are not served"
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_health_says_what_keeps_mail_from_going() -> None:
    parts = memory_parts()
    well = statistics(child("spooler"))
    page = await Meter(parts, lambda: well).health("")
    assert (page.status, json.loads(page.body)) == (200, {"healthy": True, "trouble": [], "crashes": []})
    crash = Crash("spooler", 1, "ValueError", "reader@example.org is odd", 5.0)
    ill = statistics(child("spooler", ChildState.STARTING, crash), child("resolver"))
    page = await Meter(parts, lambda: ill).health("")
    assert page.status == 503
    assert json.loads(page.body)["trouble"] == ["the actor spooler is starting"]
    assert crashes(ill) == [{"actor": "spooler", "at": 5.0, "error": "ValueError: ***@example.org is odd"}]
    assert troubles(parts, well) == []


@pytest.mark.slow
async def test_a_whole_engine_is_measured_over_its_socket(tmp_path: Path) -> None:
    port = free_port("127.0.0.1")
    config = replace(engine_config(tmp_path), metrics=MetricsTable(listen=f"127.0.0.1:{port}"))
    async with open_engine(config, static_route=host_route("127.0.0.1", free_port("127.0.0.1"))) as engine:
        await submit(engine, letter(), numbered(20))
        await until(lambda: engine.counts(7).accepted == 20 and not engine.backlog())
        head, _, page = (await fetch(port, "/metrics")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        found = values(page)
        health = (await fetch(port, "/healthz")).partition(b"\r\n\r\n")[2]
    assert b'emass_envelopes_accepted_total{class="bulk"} 20.0' in page
    assert found["emass_spool_commit_seconds_count"] >= 1
    assert found["emass_spool_map_octets"] == config.limits.spool_map
    assert found["emass_disk_free_octets"] > 0
    assert found["emass_bus_backlog_entries"] == 0
    assert found["emass_loop_lag_seconds_sum"] >= 0
    assert b'emass_actor_running{actor="metering"} 1.0' in page
    assert json.loads(health)["healthy"] is True
