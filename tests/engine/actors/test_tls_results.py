"""Counting TLS sessions: by domain and day, once for each connection, written and read again."""

from typing import Any

import pytest
import structlog

from engine.actors import tls_results
from engine.actors.tls_results import (
    DAYS_KEPT,
    FAILURES_MAX,
    POLICIES_MAX,
    Policy,
    TlsResults,
    TlsSession,
    TlsTally,
    utc_day,
)
from engine.bus.api import BusFull
from engine.model.tls import HostDemand, HostTls, PolicyKind, TlsaRecord, TlsDemand
from engine.model.tls_result import TLS_RESULTS_TABLE, TlsFailure, TlsResult
from tests.fakes.memory_bus import MemoryBus

DAY = "2026-03-01"
NOON = 1_772_366_400.0
STS = Policy(PolicyKind.STS, "", ("version: STSv1",), ("*.example",))
EXPIRED = TlsFailure(TlsResult.EXPIRED, "mx.example", "192.0.2.1", "", "expired")


class House:
    def __init__(self, bus: MemoryBus | None = None) -> None:
        self.wall = NOON
        self.bus = bus or MemoryBus("node-1")
        self.results = TlsResults(self.bus, lambda: self.wall)

    @property
    def rows(self) -> dict[str, bytes]:
        return self.bus.items(TLS_RESULTS_TABLE)


def test_sessions_add_up_by_domain_and_policy() -> None:
    house = House()
    for _ in range(3):
        house.results.add("a.test", TlsSession(STS))
    for _ in range(2):
        house.results.add("a.test", TlsSession(STS, EXPIRED))
    house.results.add("b.test", TlsSession(STS))
    (policy,) = house.results.of(DAY, "a.test").policies
    assert (policy.domain, policy.successful, policy.failed) == ("a.test", 3, 2)
    assert [(each.result, each.count) for each in policy.failures] == [(TlsResult.EXPIRED, 2)]
    assert house.results.of(DAY, "b.test").policies[0].successful == 1
    assert house.results.of(DAY, "c.test").policies == ()
    assert house.results.counted == {(PolicyKind.STS, True): 4, (PolicyKind.STS, False): 2}
    assert repr(house.results) == "<TlsResults: 2 domains, 2 to be written, 0 lost>"


def test_a_policy_that_cannot_be_had_is_a_failure_without_a_host() -> None:
    house = House()
    house.results.trouble("a.test", PolicyKind.STS, TlsResult.STS_FETCH_ERROR, "x" * 1_000)
    (policy,) = house.results.of(DAY, "a.test").policies
    assert policy.failed == 1
    assert policy.failures[0].result is TlsResult.STS_FETCH_ERROR
    assert len(policy.failures[0].reason) == tls_results.REASON_MAX


async def test_what_was_written_goes_on_being_counted_after_a_restart() -> None:
    house = House()
    dane = Policy(PolicyKind.DANE, "a.test", ("3 1 1 00",))  # its host has the domain's own name
    for policy in (STS, dane):
        house.results.add("a.test", TlsSession(policy))
        house.results.add("a.test", TlsSession(policy, EXPIRED))
    before = house.results.of(DAY, "a.test")
    assert await house.results.flush() == 1
    assert await house.results.flush() == 0
    again = House(house.bus)
    assert again.results.of(DAY, "a.test") == before
    for policy in (STS, dane):
        again.results.add("a.test", TlsSession(policy, EXPIRED))
    assert [each.failed for each in again.results.of(DAY, "a.test").policies] == [2, 2]
    assert [each.failures[0].count for each in again.results.of(DAY, "a.test").policies] == [2, 2]


async def test_rows_of_another_node_and_rows_that_do_not_decode_are_left_alone() -> None:
    house = House()
    await house.bus.put(TLS_RESULTS_TABLE, f"{DAY} node-2 a.test", b"theirs")
    await house.bus.put(TLS_RESULTS_TABLE, f"{DAY} node-1 a.test", b"nonsense")
    with structlog.testing.capture_logs() as logs:
        assert house.results.of(DAY, "a.test").policies == ()
    assert [entry["key"] for entry in logs] == [f"{DAY} node-1 a.test"]
    await house.results.flush()
    assert len(house.rows) == 2


async def test_a_new_day_is_counted_apart_and_the_old_one_leaves_memory_once_it_is_written() -> None:
    house = House()
    house.results.add("a.test", TlsSession(STS))
    house.wall += 86_400
    house.results.add("a.test", TlsSession(STS))
    assert await house.results.flush() == 2
    assert sorted(house.rows) == [f"{DAY} node-1 a.test", "2026-03-02 node-1 a.test"]
    assert repr(house.results) == "<TlsResults: 1 domains, 0 to be written, 0 lost>"


async def test_days_long_over_are_removed() -> None:
    house = House()
    for _ in range(DAYS_KEPT + 3):
        house.results.add("a.test", TlsSession(STS))
        await house.results.flush()
        house.wall += 86_400
    await house.bus.put(TLS_RESULTS_TABLE, f"{DAY} node-2 a.test", b"theirs")
    await house.results.flush()
    assert len(house.rows) == DAYS_KEPT
    assert f"{DAY} node-2 a.test" in house.rows


async def test_what_cannot_be_written_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    house.results.add("a.test", TlsSession(STS))
    put = house.bus.put

    async def full(*arguments: Any) -> None:
        raise BusFull("no room")

    monkeypatch.setattr(house.bus, "put", full)
    with pytest.raises(ExceptionGroup):
        await house.results.flush()
    monkeypatch.setattr(house.bus, "put", put)
    assert await house.results.flush() == 1
    assert len(house.rows) == 1


async def test_there_is_an_end_to_domains_policies_and_kinds_of_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls_results, "DOMAINS_MAX", 2)
    house = House()
    for number in range(FAILURES_MAX + 50):
        house.results.add("a.test", TlsSession(STS, TlsFailure(TlsResult.EXPIRED, reason=str(number))))
    (policy,) = house.results.of(DAY, "a.test").policies
    assert policy.failed == FAILURES_MAX + 50 == sum(each.count for each in policy.failures)
    assert len(policy.failures) == FAILURES_MAX + 1
    for number in range(POLICIES_MAX + 1):
        house.results.add("b.test", TlsSession(Policy(PolicyKind.DANE, f"mx{number}")))
    house.results.add("c.test", TlsSession(STS))
    assert house.results.lost == 2
    with structlog.testing.capture_logs() as logs:
        await house.results.flush()
    assert [entry["sessions"] for entry in logs] == [2]
    assert house.results.lost == 0


RECORD = TlsaRecord(3, 1, 1, b"\x0a\x0b")
HOSTS = {
    "mx.example": HostDemand(HostTls.DANE, ("mx.example",), (RECORD,)),
    "sts.example": HostDemand(HostTls.VERIFIED, ("sts.example",)),
    "odd.example": HostDemand(HostTls.ENCRYPTED),
}


def test_a_connection_counts_once_for_each_domain_what_it_met_on_its_way() -> None:
    house = House()
    demand = TlsDemand("sts-1", PolicyKind.STS, True, {}, STS.policy, STS.mx)
    tally = TlsTally(house.results, demand)
    tally.failed("mx1.example", EXPIRED)
    tally.met("mx2.example")
    for domain in ("a.test", "a.test", "b.test", "a.test"):
        tally.counted(domain)
    for domain in ("a.test", "b.test"):
        (policy,) = house.results.of(DAY, domain).policies
        assert (policy.domain, policy.policy, policy.mx) == (domain, STS.policy, STS.mx)
        assert (policy.successful, policy.failed) == (1, 1)


def test_the_policy_of_dane_is_each_host_s_own() -> None:
    house = House()
    tally = TlsTally(house.results, TlsDemand("dane-1", PolicyKind.DANE, True, HOSTS, ("all",)))
    for host in (*HOSTS, "unknown.example"):
        tally.met(host)
    tally.counted("a.test")
    told = {(each.kind, each.domain): each.policy for each in house.results.of(DAY, "a.test").policies}
    assert told == {
        (PolicyKind.DANE, "mx.example"): ("3 1 1 0a0b",),
        (PolicyKind.STS, "a.test"): (),
        (PolicyKind.DANE, "odd.example"): (),
        (PolicyKind.DANE, "unknown.example"): (),
    }


def test_without_a_policy_of_the_receiver_nothing_is_counted() -> None:
    house = House()
    for demand in (None, TlsDemand("relay", PolicyKind.NONE, True, HOSTS)):
        tally = TlsTally(house.results, demand)
        tally.met("mx.example")
        tally.failed("mx.example", EXPIRED)
        tally.counted("a.test")
        assert repr(tally) == "<TlsTally: 0 sessions, counted for 0 domains>"
    assert house.results.of(DAY, "a.test").policies == ()


def test_a_dial_that_reached_nobody_is_kept_with_its_path_until_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls_results, "MISSED_MAX", 2)
    results = House().results
    tally = TlsTally(results, TlsDemand("sts-1", PolicyKind.STS, True, {}))
    results.dialled("a", tally, reached=False)
    assert not results.missed, "nothing was met on its way"
    tally.failed("mx.example", EXPIRED)
    for path in "abc":
        results.dialled(path, tally, reached=False)
    assert list(results.missed) == ["b", "c"]
    results.dialled("b", tally, reached=True)
    assert list(results.missed) == ["c"]


def test_a_day_is_utc() -> None:
    assert utc_day(NOON) == DAY
    assert utc_day(0.0) == "1970-01-01"
    assert utc_day(951_782_400.0 - 1) == "2000-02-28"
    assert utc_day(951_782_400.0) == "2000-02-29"
