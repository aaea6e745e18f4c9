"""What became of TLS sessions under a policy, as facts: counted by the engine, read by reports (RFC 8460).

One `DomainResults` is what one node saw of one recipient domain on one UTC day. It crosses the bus table
`tls_results` as JSON, so fields are only ever added. Decides nothing.
"""

from enum import Enum

from msgspec import Struct

from engine.model.tls import PolicyKind

TLS_RESULTS_TABLE = "tls_results"


class TlsResult(Enum):
    """Why a session did not meet its policy; the words of RFC 8460 4.3."""

    STARTTLS_NOT_SUPPORTED = "starttls-not-supported"
    HOST_MISMATCH = "certificate-host-mismatch"
    EXPIRED = "certificate-expired"
    NOT_TRUSTED = "certificate-not-trusted"
    VALIDATION_FAILURE = "validation-failure"  # whatever fits no other word
    TLSA_INVALID = "tlsa-invalid"
    DNSSEC_INVALID = "dnssec-invalid"
    DANE_REQUIRED = "dane-required"
    STS_FETCH_ERROR = "sts-policy-fetch-error"
    STS_INVALID = "sts-policy-invalid"
    STS_WEBPKI_INVALID = "sts-webpki-invalid"


class TlsFailure(Struct, frozen=True, omit_defaults=True):
    """Sessions that failed alike. Addresses are empty where they are not known; `reason` is for people."""

    result: TlsResult
    mx_host: str = ""
    receiving_address: str = ""
    sending_address: str = ""
    reason: str = ""
    count: int = 1


class PolicyResults(Struct, frozen=True, omit_defaults=True):
    """The sessions under one policy. `domain` is the policy's own: of DANE the TLSA base (RFC 8460 1.1)."""

    kind: PolicyKind
    domain: str
    policy: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()
    successful: int = 0
    failed: int = 0
    failures: tuple[TlsFailure, ...] = ()


class DomainResults(Struct, frozen=True, omit_defaults=True):
    """One recipient domain on one UTC day ("2026-03-01")."""

    day: str
    domain: str
    policies: tuple[PolicyResults, ...] = ()


def row_key(day: str, node: str, domain: str) -> str:
    """The key of a row; day first, so that days sort. At most 10 + 63 + 253 octets and two spaces."""
    return f"{day} {node} {domain}"
