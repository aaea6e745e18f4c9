"""Reports of TLS: what they say, in which file, in which mail, and who wants them."""

import email
import gzip
import json
from email import policy as email_policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.tls import PolicyKind
from engine.model.tls_result import DomainResults, PolicyResults, TlsFailure, TlsResult
from engine.mta.policy.tls_report import (
    ADDRESSES_MAX,
    Reporter,
    compressed,
    day_start,
    file_name,
    mail_addresses,
    merge_results,
    report_addresses,
    report_json,
    report_mail,
)

DAY = "2026-03-01"
REPORTER = Reporter("Example Ltd", "tls@sender.example")
EXPIRED = TlsFailure(TlsResult.EXPIRED, "mx.example.org", "192.0.2.1", "198.51.100.7", "expired", 2)
FETCH = TlsFailure(TlsResult.STS_FETCH_ERROR, reason="no answer")
STS = PolicyResults(
    PolicyKind.STS,
    "example.org",
    ("version: STSv1", "mode: enforce"),
    ("*.example.org",),
    10,
    3,
    (EXPIRED, FETCH),
)
DANE = PolicyResults(PolicyKind.DANE, "mx.example.org", ("3 1 1 0a0b",), ("ignored",), 4)
RESULTS = DomainResults(DAY, "example.org", (STS, DANE))


def test_a_report_is_as_the_rfc_shows_it() -> None:
    assert json.loads(report_json(RESULTS, REPORTER)) == {
        "organization-name": "Example Ltd",
        "date-range": {"start-datetime": "2026-03-01T00:00:00Z", "end-datetime": "2026-03-01T23:59:59Z"},
        "contact-info": "tls@sender.example",
        "report-id": "2026-03-01T00:00:00Z_example.org@sender.example",
        "policies": [
            {
                "policy": {
                    "policy-type": "sts",
                    "policy-string": ["version: STSv1", "mode: enforce"],
                    "policy-domain": "example.org",
                    "mx-host": ["*.example.org"],
                },
                "summary": {"total-successful-session-count": 10, "total-failure-session-count": 3},
                "failure-details": [
                    {
                        "result-type": "certificate-expired",
                        "sending-mta-ip": "198.51.100.7",
                        "receiving-mx-hostname": "mx.example.org",
                        "receiving-ip": "192.0.2.1",
                        "failed-session-count": 2,
                        "failure-reason-code": "expired",
                    },
                    {
                        "result-type": "sts-policy-fetch-error",
                        "failed-session-count": 1,
                        "failure-reason-code": "no answer",
                    },
                ],
            },
            {
                "policy": {
                    "policy-type": "tlsa",
                    "policy-string": ["3 1 1 0a0b"],
                    "policy-domain": "mx.example.org",
                },
                "summary": {"total-successful-session-count": 4, "total-failure-session-count": 0},
            },
        ],
    }


def test_a_file_is_named_by_sender_domain_and_day() -> None:
    begin = 1_772_323_200
    assert day_start(DAY) == begin
    named = f"sender.example!example.org!{begin}!{begin + 86_399}"
    assert file_name(RESULTS, REPORTER, compressed=True) == f"{named}.json.gz"
    assert file_name(RESULTS, REPORTER, compressed=False) == f"{named}.json"


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01", "2026-02-30", "2026-3-1", "20260301", "2026-W09-7"]
)
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        day_start(text)


def test_a_mail_has_the_report_as_an_attachment_and_everything_that_mail_needs() -> None:
    octets = report_mail(RESULTS, REPORTER, ["a@example.org", "b@example.org"], 1_772_400_000.0)
    assert octets.count(b"\n") == octets.count(b"\r\n")
    mail = email.message_from_bytes(octets, policy=email_policy.SMTP)
    assert isinstance(mail, EmailMessage)
    assert mail.get_content_type() == "multipart/report"
    assert mail["Content-Type"].params["report-type"] == "tlsrpt"
    assert mail["To"] == "a@example.org, b@example.org"
    assert mail["From"] == "tls@sender.example"
    assert mail["TLS-Report-Domain"] == "example.org"
    assert mail["TLS-Report-Submitter"] == "sender.example"
    assert mail["TLS-Required"] == "No"
    assert str(mail["Subject"]).startswith(
        "Report Domain: example.org Submitter: sender.example Report-ID: <"
    )
    assert mail["Message-ID"].endswith("@sender.example>")
    text, report = mail.iter_parts()
    assert text.get_content_type() == "text/plain"
    assert report.get_content_type() == "application/tlsrpt+gzip"
    assert report.get_filename() == file_name(RESULTS, REPORTER, compressed=True)
    assert gzip.decompress(report.get_content()) == report_json(RESULTS, REPORTER)
    assert octets == report_mail(RESULTS, REPORTER, ["a@example.org", "b@example.org"], 1_772_400_000.0)


def test_an_organization_beyond_ascii_is_spelt_right() -> None:
    reporter = Reporter("Bücher GmbH", "tls@sender.example")
    assert json.loads(report_json(RESULTS, reporter))["organization-name"] == "Bücher GmbH"
    mail = email.message_from_bytes(
        report_mail(RESULTS, reporter, ["a@example.org"], 0.0), policy=email_policy.SMTP
    )
    assert isinstance(mail, EmailMessage)
    assert "Bücher GmbH" in next(mail.iter_parts()).get_content()


def test_the_counts_of_several_nodes_are_one_report() -> None:
    other = DomainResults(DAY, "example.org", (STS, PolicyResults(PolicyKind.NONE, "example.org")))
    later = DomainResults("2026-03-02", "example.org", (STS,))
    first, second = merge_results([later, RESULTS, other])
    assert (first.day, second.day) == (DAY, "2026-03-02")
    sts, dane, none = first.policies
    assert (sts.successful, sts.failed) == (20, 6)
    assert [each.count for each in sts.failures] == [4, 2]
    assert dane == DANE
    assert none.kind is PolicyKind.NONE
    assert merge_results([]) == []


def test_compressing_twice_gives_the_same() -> None:
    assert compressed(b"x") == compressed(b"x")
    assert gzip.decompress(compressed(b"x")) == b"x"


@pytest.mark.parametrize(
    ("texts", "addresses"),
    [
        ([], ()),
        ([b"v=TLSRPTv1; rua=mailto:a@example.org"], ("mailto:a@example.org",)),
        ([b"v=TLSRPTv1;rua=mailto:a@example.org;"], ("mailto:a@example.org",)),
        (
            [b"v=TLSRPTv1; rua=mailto:a@example.org, https://example.org/r?x=1"],
            ("mailto:a@example.org", "https://example.org/r?x=1"),
        ),
        ([b"v=spf1 -all", b"v=TLSRPTv1; rua=mailto:a@example.org"], ("mailto:a@example.org",)),
        ([b"v=TLSRPTv1; rua=mailto:a@x.test", b"v=TLSRPTv1; rua=mailto:b@x.test"], ()),
        ([b"v=TLSRPTv1; x=1; rua=mailto:a@example.org; y=2"], ("mailto:a@example.org",)),
        ([b"v=TLSRPTv1; rua=a@example.org"], ()),
        ([b"v=TLSRPTv1; rua=http://example.org/"], ()),
        ([b"v=TLSRPTv1; rua=mailto:a@example.org\r\nBcc:x"], ()),
        ([b"v=TLSRPTv1"], ()),
        ([b"v=TLSRPTv2; rua=mailto:a@example.org"], ()),
        ([b"v=TLSRPTv1; rua=" + b",".join([b"mailto:a@x.test"] * 50)], ("mailto:a@x.test",) * ADDRESSES_MAX),
    ],
)
def test_who_wants_reports_stands_in_one_record(texts: list[bytes], addresses: tuple[str, ...]) -> None:
    assert report_addresses(texts) == addresses


def test_only_mailto_is_mailed_to() -> None:
    found = ("mailto:a@x.test", "https://x.test/", "MAILTO:b@x.test?subject=x", "mailto:c@x.test,d@x.test")
    assert mail_addresses(found) == ["a@x.test", "b@x.test"]


@given(st.lists(st.binary(max_size=80).map(lambda rest: b"v=TLSRPTv1;" + rest), max_size=2))
def test_any_record_is_read_and_nothing_in_it_ends_a_header_line(texts: list[bytes]) -> None:
    for address in mail_addresses(report_addresses(texts)):
        assert address.isprintable()
        assert " " not in address
