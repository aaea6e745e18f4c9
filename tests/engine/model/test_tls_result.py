"""Counts of TLS sessions as they cross the bus."""

import msgspec

from engine.bus.api import check_key
from engine.model.tls import PolicyKind
from engine.model.tls_result import DomainResults, PolicyResults, TlsFailure, TlsResult, row_key


def test_a_row_comes_back_as_it_went() -> None:
    failure = TlsFailure(TlsResult.EXPIRED, "mx.example", "192.0.2.1", "192.0.2.2", "expired", 3)
    policy = PolicyResults(
        PolicyKind.STS, "example.org", ("version: STSv1",), ("*.example",), 5, 3, (failure,)
    )
    row = DomainResults("2026-03-01", "example.org", (policy,))
    assert msgspec.json.decode(msgspec.json.encode(row), type=DomainResults) == row


def test_a_row_of_a_newer_engine_is_read_as_far_as_it_is_known() -> None:
    octets = (
        b'{"day":"2026-03-01","domain":"x.test","policies":[{"kind":"tlsa","domain":"mx","new":1}],"more":2}'
    )
    row = msgspec.json.decode(octets, type=DomainResults)
    assert row.policies == (PolicyResults(PolicyKind.DANE, "mx"),)


def test_the_longest_key_fits_the_bus_and_days_sort() -> None:
    longest = row_key("2026-03-01", "n" * 63, ".".join(["d" * 61] * 4) + ".test")
    assert check_key(longest)
    assert row_key("2026-02-28", "z", "z.test") < row_key("2026-03-01", "a", "a.test")


def test_the_words_of_reports_are_those_of_the_rfc() -> None:
    assert {each.value for each in TlsResult} == {
        *("starttls-not-supported", "certificate-host-mismatch", "certificate-expired", "tlsa-invalid"),
        *("certificate-not-trusted", "validation-failure", "dnssec-invalid", "dane-required"),
        *("sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid"),
    }
