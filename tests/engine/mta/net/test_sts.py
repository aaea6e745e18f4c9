"""Policies of domains over days: fetched once, kept, renewed, never taken away by an attacker's silence."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from dns.rdatatype import RdataType
from trio.testing import MockClock

from engine.model.tls import PolicyKind
from engine.model.tls_result import TlsResult
from engine.mta.net import sts
from engine.mta.net.http import HttpResponse, HttpTrouble, HttpTroubleKind
from engine.mta.net.sts import FAILURE_REST_SECONDS, WAIT_SECONDS, StsPolicies
from engine.mta.policy.mta_sts import StsMode, StsPolicy
from tests.fakes.answers import FakeAnswers

DOMAIN = "a.example"
RECORD = f"_mta-sts.{DOMAIN}"
WEEK_SECONDS = 604_800
DAY_SECONDS = 86_400.0
TROUBLE = HttpTrouble(HttpTroubleKind.TIMEOUT, "not done within 60 s")


def policy_text(mode: str = "enforce", mx: str = "mx.a.example", max_age: int = WEEK_SECONDS) -> HttpResponse:
    text = f"version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: {max_age}\n"
    return HttpResponse(200, "text/plain", text.encode())


POLICY = StsPolicy(StsMode.ENFORCE, WEEK_SECONDS, ("mx.a.example",))


class FakeClient:
    """`HttpClient.get` that gives what the test wants, after a while."""

    def __init__(self) -> None:
        self.answer: HttpResponse | HttpTrouble = policy_text()
        self.asked: list[str] = []
        self.seconds = 1.0

    async def get(
        self, host: str, path: str, *, octets_max: int, deadline_seconds: float
    ) -> HttpResponse | HttpTrouble:
        assert path == "/.well-known/mta-sts.txt"
        assert (octets_max, deadline_seconds) == (65_536, 60.0)
        self.asked.append(host)
        await trio.sleep(self.seconds)
        return self.answer


class FakeStore:
    """Rows that outlive the policies that wrote them."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}

    def items(self) -> dict[str, bytes]:
        return dict(self.rows)

    async def put(self, domain: str, row: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.rows[domain] = row

    async def delete(self, domain: str) -> None:
        await trio.lowlevel.checkpoint()
        del self.rows[domain]


class House:
    """One set of policies and all around it, on a jumping clock."""

    def __init__(self) -> None:
        self.dns = FakeAnswers()
        self.dns.text(RECORD, b"v=STSv1; id=1")
        self.client = FakeClient()
        self.store = FakeStore()
        self.told: list[tuple[str, PolicyKind, TlsResult, str]] = []
        self.policies = self.restarted()

    def tell(self, *facts: Any) -> None:
        self.told.append(facts)

    def restarted(self) -> StsPolicies:
        self.policies = StsPolicies(self.dns, self.client, self.store, trio.current_time)  # type: ignore[arg-type]
        return self.policies

    async def policy(self, domain: str = DOMAIN) -> StsPolicy | None:
        return (await self.policies.find(domain)).policy


@asynccontextmanager
async def running() -> AsyncIterator[House]:
    house = House()
    async with trio.open_nursery() as nursery:
        await nursery.start(house.policies.run, house.tell)
        yield house
        nursery.cancel_scope.cancel()


async def test_a_policy_is_fetched_once_and_kept(autojump_clock: MockClock) -> None:
    async with running() as house:
        found = await house.policies.find(DOMAIN)
        assert (found.policy, found.ttl_seconds, found.failure) == (POLICY, 3_600.0, None)
        assert await house.policy() == POLICY
        assert house.client.asked == ["mta-sts.a.example"]
        assert repr(house.policies) == "<StsPolicies: 1 kept, 0 under way, 1 fetched, 0 failed>"


async def test_a_domain_without_a_record_costs_one_question(autojump_clock: MockClock) -> None:
    async with running() as house:
        found = await house.policies.find("plain.example")
        assert (found.policy, found.ttl_seconds) == (None, 3_600.0)
        assert house.dns.asked == [("_mta-sts.plain.example", "TXT")]
        assert house.client.asked == []


async def test_a_question_asked_ahead_is_known(autojump_clock: MockClock) -> None:
    async with running() as house:
        assert not house.policies.knows(DOMAIN)
        await house.policies.prefetch(DOMAIN)
        assert house.policies.knows(DOMAIN)
        assert house.dns.asked == [(RECORD, "TXT")]


async def test_a_hundred_who_want_a_policy_wait_for_one_fetch(autojump_clock: MockClock) -> None:
    async with running() as house:
        found: list[StsPolicy | None] = []

        async def ask() -> None:
            found.append(await house.policy())

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask)
        assert found == [POLICY] * 100
        assert len(house.client.asked) == 1


async def test_another_id_brings_another_policy(autojump_clock: MockClock) -> None:
    async with running() as house:
        await house.policy()
        house.client.answer = policy_text("testing")
        assert await house.policy() == POLICY
        house.dns.text(RECORD, b"v=STSv1; id=2")
        changed = await house.policy()
        assert changed is not None
        assert changed.mode is StsMode.TESTING
        assert len(house.client.asked) == 2


@pytest.mark.parametrize("vanished", ["no record", "two records", "no answer"])
async def test_a_policy_outlives_its_record_until_its_age(autojump_clock: MockClock, vanished: str) -> None:
    async with running() as house:
        await house.policy()
        if vanished == "no record":
            house.dns.text(RECORD)
        elif vanished == "two records":
            house.dns.text(RECORD, b"v=STSv1; id=1", b"v=STSv1; id=2")
        else:
            house.dns.fail(RECORD, RdataType.TXT)
        house.client.answer = TROUBLE
        await trio.sleep(WEEK_SECONDS - 60)
        found = await house.policies.find(DOMAIN)
        assert found.policy == POLICY
        assert found.ttl_seconds <= 60
        await trio.sleep(120)
        assert await house.policy() is None


async def test_a_policy_outlives_fetches_that_fail(autojump_clock: MockClock) -> None:
    async with running() as house:
        await house.policy()
        house.client.answer = TROUBLE
        house.dns.text(RECORD, b"v=STSv1; id=2")
        found = await house.policies.find(DOMAIN)
        assert found.policy == POLICY
        assert found.failure is not None
        assert (found.failure.result, found.failure.why) == (TlsResult.STS_FETCH_ERROR, TROUBLE.detail)
        assert found.ttl_seconds == 300.0


async def test_a_policy_is_renewed_beside_once_a_day(autojump_clock: MockClock) -> None:
    async with running() as house:
        await house.policy()
        await trio.sleep(DAY_SECONDS + 1)
        house.client.answer = policy_text(mx="new.a.example")
        house.client.seconds = 10.0
        before = trio.current_time()
        assert await house.policy() == POLICY
        assert trio.current_time() == before, "nobody waits for it"
        await trio.sleep(11)
        renewed = await house.policy()
        assert renewed is not None
        assert renewed.mx == ("new.a.example",)
        assert len(house.client.asked) == 2


async def test_a_host_that_fails_is_left_in_peace_for_minutes(autojump_clock: MockClock) -> None:
    async with running() as house:
        house.client.answer = TROUBLE
        assert await house.policy() is None
        await trio.sleep(FAILURE_REST_SECONDS - 10)
        assert await house.policy() is None
        assert len(house.client.asked) == 1
        await trio.sleep(20)
        house.dns.text(RECORD)
        found = await house.policies.find(DOMAIN)
        assert (found.ttl_seconds, found.failure) == (3_600.0, None), "nothing is wanted of it any more"
        house.dns.text(RECORD, b"v=STSv1; id=1")
        house.client.answer = policy_text()
        found = await house.policies.find(DOMAIN)
        assert (found.policy, found.failure) == (POLICY, None)


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (TROUBLE, TlsResult.STS_FETCH_ERROR),
        (HttpTrouble(HttpTroubleKind.CERTIFICATE, "expired"), TlsResult.STS_WEBPKI_INVALID),
        (HttpResponse(301, "text/plain", b""), TlsResult.STS_FETCH_ERROR),
        (HttpResponse(404, "text/plain", policy_text().body), TlsResult.STS_FETCH_ERROR),
        (HttpResponse(200, "text/html", policy_text().body), TlsResult.STS_INVALID),
        (HttpResponse(200, "text/plain", b"<html>"), TlsResult.STS_INVALID),
    ],
)
async def test_what_is_no_policy_says_what_kind_of_trouble_it_is(
    autojump_clock: MockClock, answer: HttpResponse | HttpTrouble, result: TlsResult
) -> None:
    async with running() as house:
        house.client.answer = answer
        found = await house.policies.find(DOMAIN)
        assert found.policy is None
        assert found.failure is not None
        assert found.failure.result is result
        assert house.told == [(DOMAIN, PolicyKind.STS, result, found.failure.why)]
        assert house.store.rows == {}


async def test_a_policy_that_was_taken_back_is_none_and_is_not_fetched_again(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        house.client.answer = policy_text("none")
        assert await house.policy() is None
        assert await house.policy() is None
        assert len(house.client.asked) == 1


async def test_mail_waits_for_a_slow_host_only_so_long_and_the_fetch_goes_on(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        house.client.seconds = 45.0
        before = trio.current_time()
        found = await house.policies.find(DOMAIN)
        assert trio.current_time() - before == pytest.approx(WAIT_SECONDS)
        assert (found.policy, found.ttl_seconds) == (None, 300.0)
        await trio.sleep(26)
        assert await house.policy() == POLICY
        assert len(house.client.asked) == 1


async def test_hosts_that_stall_hold_up_no_more_than_their_share(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sts, "FETCHES_WAITING_MAX", 5)
    monkeypatch.setattr(sts, "FETCHES_MAX", 2)
    async with running() as house:
        house.client.seconds = 60.0
        domains = [f"d{number}.example" for number in range(20)]
        for domain in domains:
            house.dns.text(f"_mta-sts.{domain}", b"v=STSv1; id=1")
        before = trio.current_time()
        async with trio.open_nursery() as nursery:
            for domain in domains:
                nursery.start_soon(house.policies.find, domain)
        assert trio.current_time() - before == pytest.approx(WAIT_SECONDS)
        assert len(house.client.asked) == 2


async def test_a_policy_survives_a_restart(autojump_clock: MockClock) -> None:
    async with running() as house:
        await house.policy()
        house.client.answer = TROUBLE
        house.dns.text(RECORD)
        house.restarted()
        assert await house.policy() == POLICY


async def test_a_row_that_does_not_decode_is_as_none(autojump_clock: MockClock) -> None:
    async with running() as house:
        house.store.rows[DOMAIN] = b"\x01"
        house.dns.text(RECORD)
        house.restarted()
        assert await house.policy() is None


async def test_the_store_is_bounded(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sts, "POLICIES_MAX", 3)
    async with running() as house:
        for number in range(5):
            house.dns.text(f"_mta-sts.d{number}.example", b"v=STSv1; id=1")
            assert await house.policy(f"d{number}.example") == POLICY
        assert sorted(house.store.rows) == ["d2.example", "d3.example", "d4.example"]


async def test_after_a_crash_of_the_fetchers_it_is_asked_again(autojump_clock: MockClock) -> None:
    house = House()
    house.client.seconds = 5.0
    found: list[StsPolicy | None] = []

    async def ask() -> None:
        found.append(await house.policy())

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as first:
            await first.start(house.policies.run, house.tell)
            nursery.start_soon(ask)
            await trio.sleep(1)
            first.cancel_scope.cancel()
        await nursery.start(house.policies.run, house.tell)
        await trio.sleep(1)
        assert found == [None], "who waited goes by what is known"
        assert await house.policy() == POLICY
        nursery.cancel_scope.cancel()
