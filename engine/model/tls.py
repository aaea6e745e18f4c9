"""What a recipient's side demands of TLS, per MX host: the policy that a route carries (RFC 8461, RFC 7672).

A route without a demand is met opportunistically, or as the path's shaping says. Found by
`engine.mta.net.tls_policy`, obeyed by the dialler, counted for reports (RFC 8460). Facts only.
"""

from enum import Enum

from msgspec import Struct


class PolicyKind(Enum):
    """Where a demand comes from; the words of RFC 8460 4.2's `policy-type`."""

    NONE = "no-policy-found"
    STS = "sts"
    DANE = "tlsa"


class HostTls(Enum):
    """What one MX host has to prove before it gets mail."""

    OPPORTUNISTIC = "opportunistic"  # nothing
    ENCRYPTED = "encrypted"  # TLS, whoever answers: unusable TLSA records (RFC 7672 2.2)
    VERIFIED = "verified"  # a certificate of the public authorities for one of `names` (RFC 8461 4.1)
    DANE = "dane"  # a match of one of `tlsa` (RFC 7672)
    REFUSED = "refused"  # nothing will do: not in the policy, or its TLSA records cannot be had


class TlsaRecord(Struct, frozen=True, array_like=True):
    """One TLSA record (RFC 6698 2.1) as its zone has it.

    Those of a `HostDemand` are usable: usage 2 or 3, selector 0 or 1, matching type 0 to 2.
    """

    usage: int
    selector: int
    matching: int
    data: bytes


class HostDemand(Struct, frozen=True):
    """The demand on one host. `names`: what its certificate may be for, the first goes into SNI."""

    tls: HostTls
    names: tuple[str, ...] = ()
    tlsa: tuple[TlsaRecord, ...] = ()
    why: str = ""  # of REFUSED, for people


class TlsDemand(Struct, frozen=True):
    """A policy over an MX set. Domains whose demands are equal share a lane of their site.

    `lane` is a short name of what is demanded ("sts-1f2e3d4c", "dane"), the same for equal demands.
    `enforced` False = deliver anyway, and only count (mode "testing"). `policy` are the lines that
    reports quote (RFC 8460 4.2, policy-string), `mx` the policy's host patterns.
    """

    lane: str
    kind: PolicyKind
    enforced: bool
    hosts: dict[str, HostDemand]  # by MX host name in lower case
    policy: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()
