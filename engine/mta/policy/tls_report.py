"""Reports of TLS (RFC 8460) from what was counted: the JSON, its file name, its mail, and who wants it.

Pure text and octets. `merge_results` joins what several nodes saw of one domain on one day; a report is of
exactly that. The same facts give the same octets, report id included, so a report that is made twice is
known as one. `report_addresses` reads the TXT record of `_smtp._tls.<domain>`, a stranger's text: what does
not fit the grammar names nobody.
"""

import datetime
import gzip
import hashlib
import re
from collections.abc import Iterable, Sequence
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any

import msgspec
from msgspec import Struct

from engine.model.tls import PolicyKind
from engine.model.tls_result import DomainResults, PolicyResults, TlsFailure

ADDRESSES_MAX = 10  # of one record; RFC 8460 3 sets no limit
DAY_SECONDS = 86_400

_VERSION = re.compile(rb"v=TLSRPTv1[ \t]*;")
_MAILTO = re.compile(r"mailto:[!-~]+@[!-~]+", re.IGNORECASE)
_HTTPS = re.compile(r"https://[!-~]+", re.IGNORECASE)


class Reporter(Struct, frozen=True):
    """Who reports. `contact` is an e-mail address; its domain is the submitter."""

    organization: str
    contact: str

    @property
    def submitter(self) -> str:
        return self.contact.rpartition("@")[2]


def merge_results(rows: Iterable[DomainResults]) -> list[DomainResults]:
    """One for each day and domain, in that order."""
    found: dict[tuple[str, str], dict[Any, PolicyResults]] = {}
    for row in rows:
        policies = found.setdefault((row.day, row.domain), {})
        for one in row.policies:
            key = (one.kind, one.domain, one.policy, one.mx)
            policies[key] = _joined(policies[key], one) if key in policies else one
    return [DomainResults(day, domain, tuple(found[day, domain].values())) for day, domain in sorted(found)]


def _joined(first: PolicyResults, second: PolicyResults) -> PolicyResults:
    counts: dict[TlsFailure, int] = {}
    for failure in (*first.failures, *second.failures):
        plain = msgspec.structs.replace(failure, count=1)
        counts[plain] = counts.get(plain, 0) + failure.count
    return msgspec.structs.replace(
        first,
        successful=first.successful + second.successful,
        failed=first.failed + second.failed,
        failures=tuple(msgspec.structs.replace(each, count=count) for each, count in counts.items()),
    )


def report_id(results: DomainResults, reporter: Reporter) -> str:
    """The same for the same day, domain and reporter."""
    return f"{results.day}T00:00:00Z_{results.domain}@{reporter.submitter}"


def report_json(results: DomainResults, reporter: Reporter) -> bytes:
    """The report (RFC 8460 4.4)."""
    report = {
        "organization-name": reporter.organization,
        "date-range": {
            "start-datetime": f"{results.day}T00:00:00Z",
            "end-datetime": f"{results.day}T23:59:59Z",
        },
        "contact-info": reporter.contact,
        "report-id": report_id(results, reporter),
        "policies": [_policy_facts(each) for each in results.policies],
    }
    return msgspec.json.encode(report)


def _policy_facts(results: PolicyResults) -> dict[str, Any]:
    policy: dict[str, Any] = {"policy-type": results.kind.value, "policy-domain": results.domain}
    if results.policy:
        policy["policy-string"] = results.policy
    if results.mx and results.kind is PolicyKind.STS:
        policy["mx-host"] = results.mx
    facts: dict[str, Any] = {
        "policy": policy,
        "summary": {
            "total-successful-session-count": results.successful,
            "total-failure-session-count": results.failed,
        },
    }
    if results.failures:
        facts["failure-details"] = [_failure_facts(each) for each in results.failures]
    return facts


def _failure_facts(failure: TlsFailure) -> dict[str, Any]:
    facts: dict[str, Any] = {"result-type": failure.result.value, "failed-session-count": failure.count}
    for key, value in (
        ("sending-mta-ip", failure.sending_address),
        ("receiving-mx-hostname", failure.mx_host),
        ("receiving-ip", failure.receiving_address),
        ("failure-reason-code", failure.reason),
    ):
        if value:
            facts[key] = value
    return facts


def file_name(results: DomainResults, reporter: Reporter, *, compressed: bool) -> str:
    """RFC 8460 5.1: sender ! policy domain ! begin ! end . extension."""
    begin = day_start(results.day)
    extension = "json.gz" if compressed else "json"
    return f"{reporter.submitter}!{results.domain}!{begin}!{begin + DAY_SECONDS - 1}.{extension}"


def compressed(octets: bytes) -> bytes:
    """Gzip without a time of its own."""
    return gzip.compress(octets, mtime=0)


def report_mail(results: DomainResults, reporter: Reporter, addresses: Sequence[str], wall: float) -> bytes:
    """A whole message (RFC 8460 5.3) to the e-mail addresses, CRLF line ends; it is not signed yet."""
    identity = report_id(results, reporter)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:32]
    mail = MIMEMultipart("report", f"tlsrpt-{digest}", policy=SMTP, report_type="tlsrpt")
    mail["From"] = reporter.contact
    mail["To"] = ", ".join(addresses)
    mail["Date"] = format_datetime(datetime.datetime.fromtimestamp(wall, datetime.UTC))
    mail["Message-ID"] = f"<tlsrpt-{digest}@{reporter.submitter}>"
    mail["Subject"] = (
        f"Report Domain: {results.domain} Submitter: {reporter.submitter} Report-ID: <{identity}>"
    )
    mail["TLS-Report-Domain"] = results.domain
    mail["TLS-Report-Submitter"] = reporter.submitter
    mail["TLS-Required"] = "No"  # RFC 8689 5: the report tells of the very TLS that may be broken
    mail["Auto-Submitted"] = "auto-generated"
    text = (
        f"This is a report of the TLS sessions to {results.domain} on {results.day} (UTC)\n"
        f"from {reporter.organization}, as RFC 8460 describes it.\n"
    )
    mail.attach(MIMEText(text, "plain", "utf-8" if not text.isascii() else "us-ascii", policy=SMTP))
    name = file_name(results, reporter, compressed=True)
    part = MIMEApplication(compressed(report_json(results, reporter)), "tlsrpt+gzip", policy=SMTP)
    part.add_header("Content-Disposition", "attachment", filename=name)
    mail.attach(part)
    return mail.as_bytes()


def report_addresses(texts: Sequence[bytes]) -> tuple[str, ...]:
    """Where a domain wants its reports ("mailto:...", "https://..."); () = it wants none (RFC 8460 3)."""
    records = [text for text in texts if _VERSION.match(text)]
    if len(records) != 1:
        return ()
    for field in records[0].split(b";")[1:]:
        name, _, value = field.strip(b" \t").partition(b"=")
        if name == b"rua":
            told = (each.strip() for each in value.decode("ascii", "replace").split(","))
            return tuple(each for each in told if _MAILTO.fullmatch(each) or _HTTPS.fullmatch(each))[
                :ADDRESSES_MAX
            ]
    return ()


def mail_addresses(addresses: Iterable[str]) -> list[str]:
    """The e-mail addresses among them; what a mailto: says behind a question mark is ignored."""
    found = (each[len("mailto:") :].partition("?")[0] for each in addresses if _MAILTO.fullmatch(each))
    return [each for each in found if "," not in each]


def day_start(day: str) -> int:
    """The first second of a UTC day. Raises ValueError for what is no day."""
    date = datetime.date.fromisoformat(day)
    if date.isoformat() != day:
        raise ValueError("a day is written as 2026-03-01")
    return int(datetime.datetime(date.year, date.month, date.day, tzinfo=datetime.UTC).timestamp())
