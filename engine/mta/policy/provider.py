"""Whose mailboxes stand behind a set of MX hosts: the mailbox company, by suffix, host or domain.

A provider is found by all MX hosts or not at all: a domain with one host at a filter and one at home is
nobody's, and gets the limits of its own site. Of several providers that fit, the longest suffix wins.
The names of hosts, domains and suffixes are compared here and in `shaping` in one form, `plain_name`.
"""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from engine.config.shaping import ProviderRule
from engine.model.address import AddressError, normalise_domain


class KnownProvider(Struct, frozen=True):
    """A provider's definition in force, and the layer that it is from."""

    rule: ProviderRule
    layer: str


class Providers:
    """The providers of all layers, the strongest layer last; one of the same name replaces."""

    def __init__(self, layers: Sequence[tuple[str, Sequence[ProviderRule]]]) -> None:
        self.known: dict[str, KnownProvider] = {}
        for layer, rules in layers:
            for rule in rules:
                self.known.pop(rule.name, None)  # to come last, where ties are decided
                self.known[rule.name] = KnownProvider(rule, layer)
        self._order = {name: index for index, name in enumerate(self.known)}
        self._suffixes = self._names("mx")
        self._hosts = self._names("hosts")
        self._domains = self._names("domains")

    def __repr__(self) -> str:
        return f"<Providers {len(self.known)}>"

    def find(self, hosts: Sequence[str], domain: str = "") -> str:
        """The provider's name; "" = none that is known. A provider that names the domain comes first."""
        if domain and (named := self._domains.get(plain_name(domain))):
            return named[-1]
        fitting: dict[str, int] | None = None  # provider -> how much it knows of the least fitting host
        for host in hosts:
            lengths = self._lengths(plain_name(host))
            if fitting is not None:
                lengths = {name: min(fitting[name], lengths[name]) for name in fitting if name in lengths}
            if not lengths:
                return ""
            fitting = lengths
        if not fitting:
            return ""
        return max(fitting.items(), key=lambda pair: (pair[1], self._order[pair[0]]))[0]

    def _lengths(self, host: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for suffix in suffixes_of(host):  # the longest first
            for name in self._suffixes.get(suffix, ()):
                found.setdefault(name, len(suffix))
        for name in self._hosts.get(host, ()):
            found[name] = len(host) + 1
        return found

    def _names(self, key: str) -> dict[str, list[str]]:
        """Host, suffix or domain -> the providers that name it, the strongest last."""
        found: dict[str, list[str]] = {}
        for name, provider in self.known.items():
            for text in getattr(provider.rule, key):
                found.setdefault(plain_name(text), []).append(name)
        return found


def describe_provider(rule: ProviderRule) -> str:
    """By what a provider is known: "mx google.com, googlemail.com"."""
    said = [
        f"{key} {', '.join(names)}" for key in ("mx", "hosts", "domains") if (names := getattr(rule, key))
    ]
    return "; ".join(said)


def plain_name(name: str) -> str:
    """Lower-case A-labels without outer dots. What is no domain stays what it is, and matches nothing."""
    try:
        return normalise_domain(name.strip("."))
    except AddressError:
        return name.strip(".").lower()


def suffixes_of(host: str) -> Iterator[str]:
    """The name itself, then without its first label, and so on."""
    while host:
        yield host
        host = host.partition(".")[2]


def suffixes_shared(hosts: Sequence[str]) -> list[str]:
    """The suffixes that all hosts share, the longest first; of no hosts none."""
    names = [plain_name(host) for host in hosts]
    if not names:
        return []
    shared = set(suffixes_of(names[0])).intersection(*(suffixes_of(name) for name in names[1:]))
    return sorted(shared, key=len, reverse=True)
