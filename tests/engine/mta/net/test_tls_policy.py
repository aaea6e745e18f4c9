"""DANE and MTA-STS in one demand: who wins, what is shared, and for how long it holds."""

import pytest
from dns.rdatatype import RdataType

from engine.model.egress import MxHost
from engine.model.tls import HostDemand, HostTls, PolicyKind, TlsaRecord, TlsDemand
from engine.mta.net.dns_message import Answer, AnswerKind
from engine.mta.net.mx import Addresses, Route
from engine.mta.net.sts import StsFinding
from engine.mta.net.tls_policy import NOT_IN_POLICY, TlsPolicies, join_demands
from engine.mta.policy.mta_sts import StsMode, StsPolicy
from tests.fakes.answers import FakeAnswers

LEAF = TlsaRecord(3, 1, 1, b"k" * 32)
ANCHOR = TlsaRecord(2, 1, 1, b"a" * 32)
HOSTS = ["mx1.a.example", "mx2.b.example"]
DANE = HostDemand(HostTls.DANE, ("mx1.a.example",), (LEAF,))
REFUSED = HostDemand(HostTls.REFUSED, why="TLSA records cannot be had: timeout")
OPPORTUNISTIC = HostDemand(HostTls.OPPORTUNISTIC)
FOREIGN = HostDemand(HostTls.REFUSED, why=NOT_IN_POLICY)
ENFORCE = StsPolicy(StsMode.ENFORCE, 604_800, ("*.a.example",))
TESTING = StsPolicy(StsMode.TESTING, 604_800, ("*.a.example",))


def verified(name: str) -> HostDemand:
    return HostDemand(HostTls.VERIFIED, (name,))


def joined(dane: dict[str, HostDemand], policy: StsPolicy | None) -> TlsDemand:
    demand = join_demands(HOSTS, dane, policy)
    assert demand is not None
    return demand


class FakeSts:
    """`StsPolicies` with a table."""

    def __init__(self, policy: StsPolicy | None = None, ttl_seconds: float = 3_600.0) -> None:
        self.policy = policy
        self.ttl_seconds = ttl_seconds
        self.asked: list[str] = []
        self.ahead: list[str] = []

    async def find(self, domain: str) -> StsFinding:
        self.asked.append(domain)
        return StsFinding(self.policy, self.ttl_seconds)

    async def prefetch(self, domain: str) -> None:
        self.ahead.append(domain)

    def knows(self, domain: str) -> bool:
        return domain in self.ahead


def policies(dns: FakeAnswers, sts: FakeSts | None = None, *, dane: bool = True) -> TlsPolicies:
    return TlsPolicies(dns, sts, dane=dane)  # type: ignore[arg-type]


def route(ttl_seconds: float = 3_600.0) -> Route:
    hosts = tuple(MxHost(name, ("192.0.2.1",), 10) for name in HOSTS)
    return Route("site", hosts, ttl_seconds, secure=True)


def test_without_a_policy_nothing_is_demanded() -> None:
    assert join_demands(HOSTS, {}, None) is None


def test_a_policy_to_enforce_verifies_its_hosts_and_refuses_the_others() -> None:
    demand = joined({}, ENFORCE)
    assert (demand.kind, demand.enforced) == (PolicyKind.STS, True)
    assert demand.hosts == {HOSTS[0]: verified(HOSTS[0]), HOSTS[1]: FOREIGN}
    assert demand.policy == ("version: STSv1", "mode: enforce", "mx: *.a.example", "max_age: 604800")
    assert demand.mx == ("*.a.example",)
    assert demand.lane.startswith("sts-")


def test_a_policy_on_trial_demands_the_same_and_enforces_nothing() -> None:
    demand = joined({}, TESTING)
    assert demand.hosts == joined({}, ENFORCE).hosts
    assert not demand.enforced
    assert demand.lane.startswith("sts-testing-")


@pytest.mark.parametrize("dane", [DANE, REFUSED, HostDemand(HostTls.ENCRYPTED, ("mx2.b.example",))])
def test_where_dane_holds_mta_sts_has_no_say(dane: HostDemand) -> None:
    demand = joined({HOSTS[1]: dane}, ENFORCE)
    assert demand.hosts == {HOSTS[0]: verified(HOSTS[0]), HOSTS[1]: dane}
    assert (demand.kind, demand.enforced) == (PolicyKind.DANE, True)


def test_dane_is_enforced_beside_a_policy_on_trial() -> None:
    demand = joined({HOSTS[0]: DANE}, TESTING)
    assert demand.hosts == {HOSTS[0]: DANE, HOSTS[1]: OPPORTUNISTIC}
    assert demand.enforced


def test_a_host_without_records_beside_one_with_them_is_free() -> None:
    demand = joined({HOSTS[0]: DANE}, None)
    assert demand.hosts == {HOSTS[0]: DANE, HOSTS[1]: OPPORTUNISTIC}
    assert demand.policy == (f"3 1 1 {'6b' * 32}",)
    assert demand.lane.startswith("dane-")


def test_equal_demands_share_a_lane_and_others_do_not() -> None:
    every = [
        joined({}, ENFORCE),
        joined({}, TESTING),
        joined({}, StsPolicy(StsMode.ENFORCE, 604_800, ("mx1.a.example",))),
        joined({HOSTS[0]: DANE}, None),
        joined({HOSTS[0]: HostDemand(HostTls.DANE, ("mx1.a.example",), (ANCHOR,))}, None),
    ]
    assert len({demand.lane for demand in every}) == len(every)
    again = join_demands(HOSTS[::-1], {}, ENFORCE)
    assert again is not None
    assert again.lane == every[0].lane, "the order of hosts is no part of a demand"


async def test_a_route_carries_what_its_domain_demands() -> None:
    sts = FakeSts(ENFORCE)
    found = await policies(FakeAnswers(), sts).demand("a.example", route())
    assert found.demand == joined({}, ENFORCE)
    assert found.lane == joined({}, ENFORCE).lane
    assert sts.asked == ["a.example"]


async def test_when_dane_holds_for_all_hosts_no_policy_is_fetched() -> None:
    dns, sts = FakeAnswers(), FakeSts(ENFORCE)
    for name in HOSTS:
        dns.tlsa(f"_25._tcp.{name}", LEAF)
    found = await policies(dns, sts).demand("a.example", route())
    assert found.demand is not None
    assert {demand.tls for demand in found.demand.hosts.values()} == {HostTls.DANE}
    assert sts.asked == []


async def test_a_kind_that_is_off_is_not_looked_for() -> None:
    dns = FakeAnswers()
    dns.tlsa(f"_25._tcp.{HOSTS[0]}", LEAF)
    found = await policies(dns, None, dane=False).demand("a.example", route())
    assert found.demand is None
    assert dns.asked == []
    assert repr(policies(dns, None, dane=False)) == "<TlsPolicies: DANE off, MTA-STS off>"


@pytest.mark.parametrize(
    ("route_seconds", "sts_seconds", "tlsa_seconds", "expected"),
    [
        (3_600.0, 600.0, 3_600.0, 600.0),
        (3_600.0, 3_600.0, 120.0, 120.0),
        (900.0, 3_600.0, 3_600.0, 900.0),
        (5.0, 3_600.0, 3_600.0, 60.0),
        (1e6, 1e6, 1e6, 86_400.0),
    ],
)
async def test_a_route_lives_as_long_as_all_it_rests_on_from_a_minute_to_a_day(
    route_seconds: float, sts_seconds: float, tlsa_seconds: float, expected: float
) -> None:
    dns = FakeAnswers()
    for name in HOSTS:
        dns.hosts[name] = Addresses(("192.0.2.1",), 1e6, secure=True)
    dns.answers[f"_25._tcp.{HOSTS[1]}", RdataType.TLSA] = Answer(AnswerKind.NODATA, 1e6, secure=True)
    dns.tlsa(f"_25._tcp.{HOSTS[0]}", LEAF, ttl_seconds=tlsa_seconds)
    found = await policies(dns, FakeSts(None, sts_seconds)).demand("a.example", route(route_seconds))
    assert found.ttl_seconds == expected


async def test_a_route_whose_host_is_refused_for_dns_trouble_stays_one_and_is_looked_at_soon() -> None:
    dns = FakeAnswers()
    for name in HOSTS:
        dns.fail(f"_25._tcp.{name}", RdataType.TLSA)
    found = await policies(dns, FakeSts()).demand("a.example", route())
    assert found.demand is not None
    assert {demand.tls for demand in found.demand.hosts.values()} == {HostTls.REFUSED}
    assert found.hosts == route().hosts
    assert found.ttl_seconds == 300.0


async def test_a_domain_that_is_a_literal_has_no_policy() -> None:
    dns, sts = FakeAnswers(), FakeSts(ENFORCE)
    found = policies(dns, sts)
    assert await found.demand("[192.0.2.1]", route()) == route()
    assert not found.wants("[192.0.2.1]")
    assert sts.asked == []


async def test_what_is_not_known_yet_is_worth_asking_ahead() -> None:
    sts = FakeSts()
    found = policies(FakeAnswers(), sts)
    assert found.wants("a.example")
    await found.prefetch("a.example")
    assert not found.wants("a.example")
    assert not policies(FakeAnswers()).wants("a.example")
