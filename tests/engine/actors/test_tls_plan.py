"""What is asked of TLS with a host: demand and shaping, the stronger wins."""

import pytest

from engine.actors.tls_plan import REASON_MAX, TlsPlan, failure_of, plan_for, unmet
from engine.config.shaping import TlsPolicy
from engine.model.disposition import Outcome
from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from engine.model.tls import HostDemand, HostTls, PolicyKind, TlsaRecord, TlsDemand
from engine.model.tls_result import TlsResult
from engine.mta.policy.classify import judge_failure
from engine.mta.proto.smtp_options import TlsUse

MX = "mx.example"
RECORD = TlsaRecord(3, 1, 1, bytes(32))


def demand(host: HostDemand | None, kind: PolicyKind = PolicyKind.STS, *, enforced: bool = True) -> TlsDemand:
    return TlsDemand("lane", kind, enforced, {} if host is None else {MX: host})


@pytest.mark.parametrize("shaping", list(TlsPolicy))
def test_without_a_demand_shaping_decides(shaping: TlsPolicy) -> None:
    for nothing in (None, demand(HostDemand(HostTls.OPPORTUNISTIC))):
        plan = plan_for(nothing, MX, shaping)
        assert plan.use is TlsUse(shaping.value)
        assert not plan.demanding
        assert plan.policy == ""
        assert plan.server_name(MX) == MX


@pytest.mark.parametrize("shaping", list(TlsPolicy))
@pytest.mark.parametrize("tls", [HostTls.ENCRYPTED, HostTls.VERIFIED, HostTls.DANE])
def test_a_demand_is_stronger_than_any_shaping(shaping: TlsPolicy, tls: HostTls) -> None:
    plan = plan_for(demand(HostDemand(tls, ("sni.example",), (RECORD,))), "MX.example", shaping)
    assert plan.use is TlsUse.REQUIRED
    assert plan.enforced
    assert plan.server_name(MX) == "sni.example"


def test_a_verified_host_without_names_is_verified_by_its_own() -> None:
    assert plan_for(demand(HostDemand(HostTls.VERIFIED)), MX, TlsPolicy.NEVER).demand.names == (MX,)


def test_a_host_that_a_policy_does_not_name_is_refused_but_not_by_dane() -> None:
    plan = plan_for(demand(None), MX, TlsPolicy.OPPORTUNISTIC)
    assert plan.refused
    assert plan.refusal is TlsResult.VALIDATION_FAILURE
    assert not plan_for(demand(None, PolicyKind.DANE), MX, TlsPolicy.OPPORTUNISTIC).demanding


def test_beside_hosts_with_tlsa_records_the_others_are_held_against_mta_sts() -> None:
    plan = plan_for(demand(HostDemand(HostTls.VERIFIED, (MX,)), PolicyKind.DANE), MX, TlsPolicy.NEVER)
    assert (plan.kind, plan.policy) == (PolicyKind.STS, "sts")


def test_dane_without_a_usable_record_is_tls_with_anybody_and_a_word_in_reports() -> None:
    plan = plan_for(demand(HostDemand(HostTls.ENCRYPTED), PolicyKind.DANE), MX, TlsPolicy.NEVER)
    assert plan.shortfall is TlsResult.TLSA_INVALID
    assert plan.policy == ""
    refused = plan_for(demand(HostDemand(HostTls.REFUSED), PolicyKind.DANE), MX, TlsPolicy.NEVER)
    assert refused.refusal is TlsResult.DNSSEC_INVALID


PLAN = TlsPlan(TlsUse.REQUIRED, HostDemand(HostTls.VERIFIED, (MX,)), PolicyKind.STS, True)
ABSENT = TransportFailure(FailureKind.TLS, Verb.STARTTLS, "the peer offers no STARTTLS")


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (Reply(454, None, ("not now",)), TlsResult.STARTTLS_NOT_SUPPORTED),
        (ABSENT, TlsResult.STARTTLS_NOT_SUPPORTED),
        (TransportFailure(FailureKind.TLS, Verb.TLS, "old", TlsResult.EXPIRED), TlsResult.EXPIRED),
        (TransportFailure(FailureKind.PROTOCOL, Verb.STARTTLS, "octets"), TlsResult.VALIDATION_FAILURE),
        (TransportFailure(FailureKind.CLOSED, Verb.TLS), TlsResult.VALIDATION_FAILURE),
    ],
)
def test_every_trouble_has_a_word_for_the_report_and_delays_the_mail(
    answer: Reply | TransportFailure, result: TlsResult
) -> None:
    told = failure_of(answer, PLAN, MX, "192.0.2.1", "192.0.2.2")
    assert (told.result, told.mx_host, told.receiving_address) == (result, MX, "192.0.2.1")
    assert told.reason
    failure = unmet(answer, PLAN, MX)
    assert (failure.kind, failure.tls) == (FailureKind.TLS, result)
    assert failure.detail.startswith("mx.example does not meet MTA-STS: ")
    assert judge_failure(failure).outcome is Outcome.DEFERRED


def test_a_long_answer_is_cut() -> None:
    answer = Reply(454, None, ("x" * 2_000,))
    assert len(failure_of(answer, PLAN, MX, "", "").reason) == REASON_MAX
    assert len(unmet(answer, PLAN, MX).detail) == REASON_MAX
