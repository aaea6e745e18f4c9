"""What a world consists of, as data that crosses process borders as JSON.

A `WorldSpec` is providers, each with manners and one or more `Site`s (an MX set shared by domains with
weights), plus domains that cannot get mail. Everything that follows from it without a running world is
here too: the addresses of hosts, the DNS records, recipients, and what a campaign's report will say.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cached_property

from msgspec import Struct

from bench.world.dns import DnsTrouble, Records
from bench.world.manners import PLAIN, Manners, Moment, Trouble
from bench.world.people import Person, people

NETWORK = "127.83"  # a /16 of the loopback net (RFC 1122 3.2.1.3) that nobody else tends to use
HOSTS_PER_BLOCK = 250


class Host(Struct, frozen=True):
    """One MX host. `listens` False = nothing listens there, connections are refused."""

    name: str
    preference: int = 10
    listens: bool = True
    address: str = ""  # "" = the next free one of NETWORK


class Site(Struct, frozen=True):
    """An MX set and the domains that share it, with their weights."""

    hosts: tuple[Host, ...]
    domains: dict[str, float]


class ProviderSpec(Struct, frozen=True):
    name: str
    sites: tuple[Site, ...]
    manners: Manners = PLAIN

    @property
    def domains(self) -> frozenset[str]:
        return frozenset(domain for site in self.sites for domain in site.domains)


class Prediction(Struct, frozen=True):
    """What becomes of one recipient: `final` is delivered, bounced or deferred (for ever), `reason` the
    trouble's kind or the DNS state, `at_once` whether the first attempt settles it."""

    final: str
    reason: str = ""
    at_once: bool = True


class Expected(Struct, frozen=True):
    """Sums over recipients: by final state, and by (domain, final state)."""

    final: dict[str, int]
    domains: dict[str, dict[str, int]]
    reasons: dict[str, int]
    not_at_once: int


class WorldSpec(Struct, frozen=True, kw_only=True, dict=True):
    """`null_mx`, `missing` (NXDOMAIN) and `failing` (SERVFAIL) are domains with weights."""

    name: str
    providers: tuple[ProviderSpec, ...]
    null_mx: dict[str, float] = {}
    missing: dict[str, float] = {}
    failing: dict[str, float] = {}
    extra_records: dict[str, dict[str, list[str]]] = {}  # e.g. a DKIM key's TXT
    smtp_port: int = 0  # 0 = a free one
    seed: int = 1

    @cached_property
    def domains(self) -> dict[str, float]:
        """Every domain that recipients may have, with its weight."""
        served = (site.domains for provider in self.providers for site in provider.sites)
        together: dict[str, float] = {}
        for domains in (*served, self.null_mx, self.missing, self.failing):
            assert not together.keys() & domains.keys(), "a domain belongs to one site"
            together |= domains
        return together

    @cached_property
    def addresses_of_hosts(self) -> dict[str, str]:
        """Host name -> loopback address, in the order of the spec."""
        found: dict[str, str] = {}
        hosts = (host for p in self.providers for site in p.sites for host in site.hosts)
        for index, host in enumerate(hosts):
            block, number = divmod(index, HOSTS_PER_BLOCK)
            found[host.name] = host.address or f"{NETWORK}.{block}.{number + 1}"
        return found

    @cached_property
    def _provider_of(self) -> dict[str, ProviderSpec]:
        return {domain: provider for provider in self.providers for domain in provider.domains}

    def records(self) -> Records:
        """The world's DNS."""
        records: dict[str, dict[str, list[str]]] = {}
        for host, address in self.addresses_of_hosts.items():
            records[host] = {"AAAA" if ":" in address else "A": [address]}
        for provider in self.providers:
            for site in provider.sites:
                exchanges = [f"{host.preference} {host.name}." for host in site.hosts]
                for domain in site.domains:
                    records.setdefault(domain, {})["MX"] = exchanges
        for domain in self.null_mx:
            records[domain] = {"MX": ["0 ."]}
        for name, types in self.extra_records.items():
            records.setdefault(name, {}).update(types)
        return records

    def dns_troubles(self) -> dict[str, DnsTrouble]:
        return dict.fromkeys(self.failing, DnsTrouble.SERVFAIL)

    def addresses(self, number: int, seed: int = 1) -> list[Person]:
        """`number` distinct recipients over the world's domains, the same for the same seed."""
        return people(number, self.domains, seed)

    def predict(self, recipient: str) -> Prediction:
        """What becomes of mail to `recipient`, given a sender that tries again long enough.

        Limits (connections, rates) only delay and are not foreseen; neither are troubles at MAIL, which
        go by the return path.
        """
        whom = recipient.lower()
        domain = whom.rpartition("@")[2]
        if domain in self.null_mx:
            return Prediction("bounced", "null_mx")
        if domain in self.failing:
            return Prediction("deferred", "dns", at_once=False)
        provider = self._provider_of.get(domain)
        if provider is None:
            return Prediction("bounced", "no_such_domain")
        manners = provider.manners
        order = list(Moment)
        met = [t for t in manners.troubles if t.moment is not Moment.MAIL and t.hits(self.seed, whom)]
        met.sort(key=lambda trouble: order.index(trouble.moment))
        at_once = not manners.greylist_seconds and (not met or met[0].reply.startswith("5"))
        for trouble in met:
            final = _end(trouble)
            if final:
                return Prediction(final, trouble.kind, at_once)
        reason = met[0].kind if met else ("greylisted" if manners.greylist_seconds else "")
        return Prediction("delivered", reason, at_once)

    def expected(self, recipients: Iterable[str]) -> Expected:
        """The report of a campaign to these recipients, as far as it can be foreseen."""
        final, reasons = Counter[str](), Counter[str]()
        domains: dict[str, Counter[str]] = {}
        waiting = 0
        for recipient in recipients:
            prediction = self.predict(recipient)
            final[prediction.final] += 1
            domains.setdefault(recipient.rpartition("@")[2].lower(), Counter())[prediction.final] += 1
            reasons[prediction.reason] += bool(prediction.reason)
            waiting += not prediction.at_once
        return Expected(dict(final), {d: dict(c) for d, c in domains.items()}, dict(+reasons), waiting)


def _end(trouble: Trouble) -> str:
    """The final state that a trouble forces, "" if the recipient gets past it."""
    if trouble.reply.startswith("5"):
        return "bounced"
    return "deferred" if trouble.lasts and not trouble.accepts else ""
