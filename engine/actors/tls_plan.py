"""What is asked of TLS with one host: the recipients' demand and the path's shaping, the stronger wins.

Plain functions for the dialler; they touch nothing. A demand goes before shaping's `never`, since it is the
recipients who say what their mail may travel by; a shaping that requires TLS holds with a weaker demand, or
without one. What comes of a plan that is not met is a `TransportFailure` of kind TLS, which is temporary:
mail waits until the host or its policy is mended, or expires.
"""

from msgspec import Struct
from msgspec.structs import replace

from engine.config.shaping import TlsPolicy
from engine.model.reply import FailureKind, Reply, TransportFailure, Verb
from engine.model.tls import HostDemand, HostTls, PolicyKind, TlsDemand
from engine.model.tls_result import TlsFailure, TlsResult
from engine.mta.proto.smtp_options import TlsUse

REASON_MAX = 300  # characters

_USES = {
    TlsPolicy.NEVER: TlsUse.NEVER,
    TlsPolicy.OPPORTUNISTIC: TlsUse.OPPORTUNISTIC,
    TlsPolicy.REQUIRED: TlsUse.REQUIRED,
}
_NOTHING = HostDemand(HostTls.OPPORTUNISTIC)
_UNLISTED = HostDemand(HostTls.REFUSED, why="the policy does not name this host")
_WORDS = {PolicyKind.STS: "sts", PolicyKind.DANE: "dane", PolicyKind.NONE: ""}
_NAMES = {PolicyKind.STS: "MTA-STS", PolicyKind.DANE: "DANE", PolicyKind.NONE: "the configuration"}


class TlsPlan(Struct, frozen=True):
    """For one host. `enforced` False = counted, then done without."""

    use: TlsUse
    demand: HostDemand = _NOTHING
    kind: PolicyKind = PolicyKind.NONE
    enforced: bool = False

    @property
    def refused(self) -> bool:
        return self.demand.tls is HostTls.REFUSED

    @property
    def demanding(self) -> bool:
        """Whether the recipients' side asks for more than whatever works."""
        return self.demand.tls is not HostTls.OPPORTUNISTIC

    @property
    def policy(self) -> str:
        """The word that the event of a message shows."""
        return _WORDS[self.kind] if self.demand.tls in (HostTls.VERIFIED, HostTls.DANE) else ""

    @property
    def refusal(self) -> TlsResult:
        """The word of a report for a host that is not met at all."""
        return TlsResult.DNSSEC_INVALID if self.kind is PolicyKind.DANE else TlsResult.VALIDATION_FAILURE

    @property
    def shortfall(self) -> TlsResult | None:
        """What a report says although all that was asked is met: TLSA records that nobody can use."""
        unusable = self.kind is PolicyKind.DANE and self.demand.tls is HostTls.ENCRYPTED
        return TlsResult.TLSA_INVALID if unusable else None

    def server_name(self, host: str) -> str:
        """What goes into SNI: of DANE the TLSA base (RFC 7672 8.1)."""
        return self.demand.names[0] if self.demand.names else host


def plan_for(demand: TlsDemand | None, host: str, shaping: TlsPolicy) -> TlsPlan:
    """The plan for one host of a route with this demand."""
    use = _USES[shaping]
    if demand is None:
        return TlsPlan(use)
    of_host = demand.hosts.get(host.lower())
    if of_host is None:
        of_host = _UNLISTED if demand.kind is PolicyKind.STS else _NOTHING
    if of_host.tls is HostTls.OPPORTUNISTIC:
        return TlsPlan(use)
    if of_host.tls is HostTls.VERIFIED and not of_host.names:
        of_host = replace(of_host, names=(host,))
    # Beside hosts with TLSA records those without are held against MTA-STS.
    mixed = demand.kind is PolicyKind.DANE and of_host.tls is HostTls.VERIFIED
    return TlsPlan(TlsUse.REQUIRED, of_host, PolicyKind.STS if mixed else demand.kind, demand.enforced)


def failure_of(
    answer: Reply | TransportFailure, plan: TlsPlan, host: str, receiving: str, sending: str
) -> TlsFailure:
    """What a report says of a session that did not meet its plan."""
    return TlsFailure(_result(answer), host, receiving, sending, _detail(answer)[:REASON_MAX])


def unmet(answer: Reply | TransportFailure, plan: TlsPlan, host: str) -> TransportFailure:
    """What the sender hears of it: whose demand, which host, and what was wrong."""
    verb = Verb.STARTTLS if isinstance(answer, Reply) else answer.verb
    detail = f"{host} does not meet {_NAMES[plan.kind]}: {_detail(answer)}"
    return TransportFailure(FailureKind.TLS, verb, detail[:REASON_MAX], _result(answer))


def _result(answer: Reply | TransportFailure) -> TlsResult:
    if isinstance(answer, Reply):
        return TlsResult.STARTTLS_NOT_SUPPORTED
    if answer.tls is not None:
        return answer.tls
    absent = answer.kind is FailureKind.TLS and answer.verb is Verb.STARTTLS
    return TlsResult.STARTTLS_NOT_SUPPORTED if absent else TlsResult.VALIDATION_FAILURE


def _detail(answer: Reply | TransportFailure) -> str:
    return str(answer) if isinstance(answer, Reply) else answer.detail or answer.kind.value
