"""What makes no sense in rules that parse: rules that never decide, contradict, overlap or surprise.

An error is a rule that cannot do what it says; a warning one that probably does not mean it; a note
tells of a stronger or weaker rule that the writer may not know of. Nothing is refused here: the caller
decides (`emass config check` fails on errors). Every check looks names up in indexes, so that a file of
thousands of rules is read as fast as it is parsed. Pure.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum

from msgspec import Struct

from engine.config.shaping import PATH_VALUES, ProviderRule, ShapingRule, WarmUpPlan
from engine.config.tables import Config
from engine.config.units import CountRange, RateRange
from engine.model.address import AddressError, normalise_domain
from engine.mta.policy.provider import Providers, plain_name, suffixes_of
from engine.mta.policy.shaping import (
    BUILT_IN,
    NODE_FILE,
    OVERRIDE,
    Layer,
    ShapingRules,
    describe_match,
    shaping_layers,
    target_of,
)

DEFAULT_SOURCE = "default"  # the name of the one source of a node that lists none
EVERYTHING = ("", "")
RANGES = ("connections", "rate", "provider_rate")

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")


class Level(Enum):
    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Finding(Struct, frozen=True):
    """One thing to look at: where it stands, what is odd about it, and what to do."""

    level: Level
    layer: str
    where: str
    text: str
    cure: str = ""

    def __str__(self) -> str:
        cure = f" ({self.cure})" if self.cure else ""
        return f"{self.level.value}: {self.layer}: {self.where}: {self.text}{cure}"


class _Placed(Struct, frozen=True):
    """A rule and where it stands. `depth` counts layers, the weakest is 0."""

    rule: ShapingRule
    layer: str
    depth: int
    index: int
    target: tuple[str, str]
    said: dict[str, object]  # key -> value

    @property
    def where(self) -> str:
        return f"{_table(self.layer, 'site')} {self.index + 1} ({describe_match(self.rule)})"

    @property
    def match(self) -> tuple[object, ...]:
        """Rules with the same match decide about the same mail."""
        return (self.target, self.rule.source, self.rule.workspace, self.rule.campaign)

    def finding(self, level: Level, text: str, cure: str = "") -> Finding:
        return Finding(level, self.layer, self.where, text, cure)


def lint_shaping(config: Config, overrides: Sequence[ShapingRule] = ()) -> list[Finding]:
    """Everything odd about a node's shaping, errors first."""
    lint = _Lint(config, shaping_layers(config, overrides))
    found = [
        *lint.provider_names(),
        *lint.overlaps(),
        *lint.unreachable(),
        *lint.contradictions(),
        *lint.shadowed(),
        *lint.overridden_defaults(),
        *lint.ranges(),
        *lint.connections(),
        *lint.warm_ups(),
    ]
    order = list(Level)
    return sorted(found, key=lambda finding: order.index(finding.level))


class _Lint:
    """One pass over the layers; each method is one kind of finding."""

    def __init__(self, config: Config, layers: Sequence[Layer]) -> None:
        self._layers = layers
        self._plans: tuple[WarmUpPlan, ...] = config.engine.warmup
        self._sources = {source.name for source in config.engine.source} or {DEFAULT_SOURCE}
        self._connections_max = config.engine.connections_max
        self._rules = ShapingRules(layers, config.engine.retry)
        self._providers = Providers([(layer.name, layer.providers) for layer in layers])
        self._placed = [
            _Placed(rule, layer.name, depth, index, target_of(rule), _said(rule))
            for depth, layer in enumerate(layers)
            for index, rule in enumerate(layer.rules)
        ]
        self._alike: dict[tuple[object, ...], list[_Placed]] = {}  # weakest first
        self._by_target: dict[tuple[str, str], list[_Placed]] = {}
        self._ranged: dict[
            tuple[tuple[str, str], str, int], _Placed
        ] = {}  # target, key, depth: the last rule
        for placed in self._placed:
            self._alike.setdefault(placed.match, []).append(placed)
            if not placed.rule.is_flow:
                self._by_target.setdefault(placed.target, []).append(placed)
                for key in RANGES:
                    if key in placed.said:
                        self._ranged[placed.target, key, placed.depth] = placed

    def provider_names(self) -> Iterator[Finding]:
        """Names in providers that no host or domain can have, and built-in providers that are replaced."""
        for layer in self._layers:
            for provider in layer.providers:
                where = f"{_table(layer.name, 'provider')} {provider.name}"
                for key, check in (
                    ("mx", _host_trouble),
                    ("hosts", _host_trouble),
                    ("domains", _domain_trouble),
                ):
                    for name in getattr(provider, key):
                        if trouble := check(name):
                            yield Finding(
                                Level.ERROR, layer.name, where, f"{key}: {name!r} {trouble[0]}", trouble[1]
                            )
                known = self._providers.known[provider.name]
                lost = sorted(_names(provider) - _names(known.rule))
                if known.layer != layer.name and lost:
                    yield Finding(
                        Level.NOTE,
                        known.layer,
                        f"{_table(known.layer, 'provider')} {provider.name}",
                        f"replaces the provider of {layer.name}: {', '.join(lost)} is its no more",
                        "repeat what should stay",
                    )

    def overlaps(self) -> Iterator[Finding]:
        """Providers that claim the same host, domain or suffix, or one suffix inside another's."""
        owners: dict[tuple[str, str], str] = {}
        for name, known in self._providers.known.items():
            where = f"{_table(known.layer, 'provider')} {name}"
            for key in ("mx", "hosts", "domains"):
                for text in getattr(known.rule, key):
                    other = owners.setdefault((key, plain_name(text)), name)
                    if other != name:
                        same_layer = self._providers.known[other].layer == known.layer
                        level = Level.ERROR if same_layer else Level.WARNING
                        yield Finding(
                            level, known.layer, where, f"{key}: {text} is also {other}'s", "name it once"
                        )
        for name, known in self._providers.known.items():
            for text in known.rule.mx:
                for suffix in list(suffixes_of(plain_name(text)))[1:]:
                    other = owners.get(("mx", suffix), name)
                    if other != name:
                        yield Finding(
                            Level.WARNING,
                            known.layer,
                            f"{_table(known.layer, 'provider')} {name}",
                            f"mx: {text} falls under {other}'s {suffix}: the longer suffix wins",
                        )

    def unreachable(self) -> Iterator[Finding]:
        """Rules that can never match, or that say nothing when they do."""
        for placed in self._placed:
            rule = placed.rule
            if rule.provider and rule.provider not in self._providers.known:
                cure = _close(rule.provider, self._providers.known)
                yield placed.finding(
                    Level.ERROR, f"never matches: no provider is called {rule.provider!r}", cure
                )
            if rule.source and rule.source not in self._sources:
                cure = _close(rule.source, self._sources)
                yield placed.finding(Level.ERROR, f"never matches: no source is called {rule.source!r}", cure)
            for name, check in ((rule.mx, _host_trouble), (rule.domain, _domain_trouble)):
                if name and (trouble := check(name)):
                    yield placed.finding(Level.ERROR, f"never matches: {name!r} {trouble[0]}", trouble[1])
            if not placed.said:
                yield placed.finding(
                    Level.WARNING, "matches and says nothing", "give it a value or take it out"
                )

    def contradictions(self) -> Iterator[Finding]:
        """Rules of one layer that match the same and say the same key."""
        for alike in self._alike.values():
            earlier: dict[tuple[int, str], _Placed] = {}
            for placed in alike:
                for key, value in placed.said.items():
                    other = earlier.get((placed.depth, key))
                    earlier[placed.depth, key] = placed
                    if other is None:
                        continue
                    before = getattr(other.rule, key)
                    differs = before != value
                    yield placed.finding(
                        Level.ERROR if differs else Level.WARNING,
                        f"{key} is {_text(value)} here and {_text(before)} in rule {other.index + 1}, which"
                        f" matches the same: {'the last one holds' if differs else 'once is enough'}",
                        "keep one of them",
                    )

    def shadowed(self) -> Iterator[Finding]:
        """Rules of an operator whose every value a stronger rule says wherever they match.

        Not those that only an override covers: overrides are meant to, and go away.
        """
        for alike in self._alike.values():
            covered: dict[str, _Placed] = {}  # key -> who says it, in stronger layers
            equal: dict[str, _Placed] = {}  # the same, in this layer
            for placed in reversed(alike):
                if equal and next(iter(equal.values())).depth != placed.depth:
                    covered |= equal
                    equal = {}
                said = placed.said
                if placed.layer != BUILT_IN and said and said.keys() <= covered.keys():
                    other = covered[next(iter(said))]
                    yield placed.finding(
                        Level.WARNING,
                        f"decides nothing: {other.layer} {other.where} matches the same and is stronger",
                        "take one of them out",
                    )
                if placed.layer != OVERRIDE:
                    equal |= {key: placed for key in said if key not in equal}
        for placed in self._placed:
            if placed.layer != BUILT_IN and placed.said and self._covered_by_suffixes(placed):
                yield placed.finding(
                    Level.WARNING,
                    "decides nothing: rules by mx cover every suffix of the provider, and are stronger",
                    "take it out, or them",
                )

    def _covered_by_suffixes(self, placed: _Placed) -> bool:
        known = self._providers.known.get(placed.rule.provider)
        if placed.rule.is_flow or known is None or known.rule.hosts or known.rule.domains:
            return False
        for suffix in known.rule.mx:
            stronger: set[str] = set()
            for name in suffixes_of(plain_name(suffix)):
                for other in self._by_target.get(("mx", name), ()):
                    if other.rule.source in ("", placed.rule.source):
                        stronger |= set(other.said)
            if not placed.said.keys() <= stronger:
                return False
        return True

    def overridden_defaults(self) -> Iterator[Finding]:
        """What an operator says for everything, and a built-in provider says otherwise."""
        said_by: dict[str, set[str]] = {}
        for placed in self._placed:
            if placed.layer == BUILT_IN and placed.rule.provider:
                for key in placed.said:
                    said_by.setdefault(key, set()).add(placed.rule.provider)
        for placed in self._by_target.get(EVERYTHING, ()):
            if placed.layer == BUILT_IN:
                continue
            names = {provider for key in placed.said for provider in said_by.get(key, ())}
            if names:
                yield placed.finding(
                    Level.NOTE,
                    f"holds for everything but {len(names)} known providers, whose own rules are stronger",
                    "`emass queue explain` shows what holds; say it by provider where it should",
                )

    def ranges(self) -> Iterator[Finding]:
        """Ranges of one layer that lie outside of what a weaker layer says of the same receiver."""
        for placed in self._placed:
            if placed.layer == BUILT_IN or placed.rule.is_flow:
                continue
            for key in RANGES:
                value = getattr(placed.rule, key)
                base = None if value is None else self._weaker(placed, key)
                if base is None:
                    continue
                held = getattr(base.rule, key)
                (floor, ceiling), (held_floor, held_ceiling) = _bounds(value), _bounds(held)
                compared = (
                    f"{key} {value} is {{}} {held}, which {base.layer} says of {describe_match(base.rule)}"
                )
                if floor > held_ceiling:
                    cure = "begin at or below that, and let it grow"
                    yield placed.finding(Level.WARNING, compared.format("even at its floor above"), cure)
                elif ceiling > held_ceiling:
                    yield placed.finding(Level.NOTE, compared.format("above"))
                elif ceiling < held_floor:
                    yield placed.finding(Level.NOTE, compared.format("wholly below"))

    def _weaker(self, placed: _Placed, key: str) -> _Placed | None:
        kind, name = placed.target
        targets = [(kind, name)]
        if kind == "mx" and (provider := self._providers.find([name])):
            targets.append(("provider", provider))
        for target in targets:
            for depth in range(placed.depth - 1, -1, -1):
                if other := self._ranged.get((target, key, depth)):
                    return other
        return None

    def connections(self) -> Iterator[Finding]:
        """More connections for a site than its provider, or the node, may have at all."""
        for placed in self._placed:
            rule = placed.rule
            if placed.layer == BUILT_IN or (rule.connections is None and rule.provider_connections is None):
                continue
            ceiling = 0 if rule.connections is None else rule.connections.ceiling
            if ceiling > self._connections_max:
                yield placed.finding(
                    Level.ERROR,
                    f"connections {ceiling} is above [engine] connections_max, {self._connections_max}",
                    "lower it, or raise connections_max",
                )
            hosts, domain = self._example(rule)
            held = self._rules.path(rule.source, rule.site, hosts, domain)
            together = held.provider_connections
            if together is not None and held.connections.ceiling > together:
                yield placed.finding(
                    Level.WARNING,
                    f"connections {held.connections} of one site is above the {together} of all the"
                    " provider's sites together",
                    "give both",
                )

    def _example(self, rule: ShapingRule) -> tuple[list[str], str]:
        """A host and a domain that the rule matches."""
        if rule.provider:
            known = self._providers.known.get(rule.provider)
            return ([] if known is None else [*known.rule.mx, *known.rule.hosts][:1]), ""
        return ([rule.mx] if rule.mx else []), rule.domain

    def warm_ups(self) -> Iterator[Finding]:
        """Plans for sources or providers that are not there."""
        for index, plan in enumerate(self._plans):
            where = f"[[engine.warmup]] {index + 1} (source {plan.source})"
            if plan.source not in self._sources:
                cure = _close(plan.source, self._sources)
                yield Finding(Level.ERROR, NODE_FILE, where, f"no source is called {plan.source!r}", cure)
            if plan.provider and plan.provider not in self._providers.known:
                cure = _close(plan.provider, self._providers.known)
                yield Finding(Level.ERROR, NODE_FILE, where, f"no provider is called {plan.provider!r}", cure)


def _said(rule: ShapingRule) -> dict[str, object]:
    return {key: value for key in PATH_VALUES if (value := getattr(rule, key)) is not None}


def _table(layer: str, name: str) -> str:
    return f"[[engine.{name}]]" if layer == NODE_FILE else f"[[{name}]]"


def _names(provider: ProviderRule) -> set[str]:
    return {plain_name(name) for name in (*provider.mx, *provider.hosts, *provider.domains)}


def _host_trouble(name: str) -> tuple[str, str] | None:
    """What is wrong with a host name or a suffix of one, and the cure."""
    if name.startswith("*."):
        return "is a pattern, not a suffix", f'write "{name[2:]}": it holds for every name under it'
    plain = plain_name(name)
    if not plain or len(plain) > 253 or not all(_LABEL.match(label) for label in plain.split(".")):
        return "is no host name", "write the end of an MX host's name, as in google.com"
    return None


def _domain_trouble(name: str) -> tuple[str, str] | None:
    try:
        normalise_domain(name.strip("."))
    except AddressError as error:
        return f"is no mail domain: {error}", "write what stands behind the @"
    return None


def _bounds(value: CountRange | RateRange) -> tuple[float, float]:
    if isinstance(value, CountRange):
        return value.floor, value.ceiling
    return value.floor.per_second, value.ceiling.per_second


def _text(value: object) -> str:
    return str(value.value) if isinstance(value, Enum) else str(value)


def _close(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    if close := difflib.get_close_matches(name, names, n=1):
        return f'did you mean "{close[0]}"?'
    if len(names) <= 10:
        return "known: " + ", ".join(names)
    return "the built-in ones stand in engine/config/shaping.toml"
