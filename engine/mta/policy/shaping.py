"""Which values hold for a path or for a workspace's mail, and which layer said so.

The rules of all layers (built in, the operator's file, `emass.toml`, overrides at run time) are laid
out once by what they match. For a path the strongest come first: recipient domain, then site, then
the longest MX suffix that all hosts share, then provider, then rules for everything; among equals a
rule for one source (workspace, campaign) before one for all, then the later layer, then the later
rule. Each value comes from the first rule that says it. Pure: a new set of rules is a new object, and
who holds the old one keeps working by it.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Any

from msgspec import Struct

from engine.config.shaping import (
    FLOW_VALUES,
    MATCH_KEYS,
    PATH_VALUES,
    SITE_DEFAULTS,
    ProviderRule,
    ShapingRule,
    ShareRule,
    TlsPolicy,
    WarmUpPlan,
    builtin_shaping,
)
from engine.config.tables import Config, RetryTable
from engine.config.units import CountRange, Duration, Rate, RateRange
from engine.mta.policy.provider import Providers, describe_provider, plain_name, suffixes_shared

BUILT_IN, RELAYS, NODE_FILE, OVERRIDE = "built-in", "[[engine.relay]]", "emass.toml", "override"
DEFAULTS_LAYER = "default"
CACHE_MAX = 10_000  # answers kept of each kind; an answer is about 300 octets, a miss about 30 us


class RetryCurve(Struct, frozen=True):
    """Seconds: first, then times factor up to max, each +- jitter (a share)."""

    first: float
    factor: float
    max: float
    jitter: float


class Shaping(Struct, frozen=True):
    """What holds on one egress path. None = unlimited, of no provider, or as the client's own table says."""

    provider: str  # "" = none that is known
    connections: CountRange
    connection_rate: Rate | None
    rate: RateRange | None
    burst_seconds: float
    messages_per_connection: int
    provider_connections: int | None
    provider_rate: RateRange | None
    connect_timeout_seconds: float
    reply_timeout_seconds: float | None
    final_timeout_seconds: float | None
    idle_timeout_seconds: float
    tls: TlsPolicy
    pipelining: bool
    chunking: bool
    retry: RetryCurve
    expire_after_seconds: float | None  # None = as the class of the mail says
    failures_max: int


class FlowShaping(Struct, frozen=True):
    """What holds for a campaign's mail to one provider, whichever path it takes. None = as the path says."""

    rate: Rate | None
    rate_key: str  # mail with the same key is counted together against `rate`
    burst_seconds: float
    weight_workspace: float
    weight_campaign: float
    expire_after_seconds: float | None
    retry_first_seconds: float | None
    retry_factor: float | None
    retry_max_seconds: float | None

    def bend(self, curve: RetryCurve) -> RetryCurve:
        """The path's curve with what the workspace or campaign says instead."""
        return RetryCurve(
            curve.first if self.retry_first_seconds is None else self.retry_first_seconds,
            curve.factor if self.retry_factor is None else self.retry_factor,
            curve.max if self.retry_max_seconds is None else self.retry_max_seconds,
            curve.jitter,
        )


class Layer(Struct, frozen=True):
    """Providers and rules of one origin. Later layers are stronger."""

    name: str
    providers: tuple[ProviderRule, ...] = ()
    rules: tuple[ShapingRule, ...] = ()


class ExplainedValue(Struct, frozen=True):
    """One value in force, and who said it; `rule` is empty for a default."""

    key: str
    value: str
    layer: str
    rule: str


class _Placed(Struct, frozen=True):
    rule: ShapingRule
    layer: str
    place: str
    strength: tuple[int, int, int]  # among rules for the same target


class _Said(Struct, frozen=True):
    value: object
    layer: str
    place: str


class ShapingRules:
    """Every layer's rules, ready to be asked. `retry` is what holds where no rule bends the curve."""

    def __init__(
        self,
        layers: Sequence[Layer],
        retry: RetryTable,
        *,
        shares: Sequence[ShareRule] = (),
        warm_ups: Sequence[WarmUpPlan] = (),
    ) -> None:
        self.layers = tuple(layers)
        self._retry = retry
        self._shares = {share.of: share.weight for share in shares}
        self._warm_ups = {(plan.source, plan.provider): plan for plan in warm_ups}
        self._providers = Providers([(layer.name, layer.providers) for layer in layers])
        self._by_target: dict[tuple[str, str], list[_Placed]] = {}
        self._flows: dict[str, list[_Placed]] = {}
        for depth, layer in enumerate(layers):
            for index, rule in enumerate(layer.rules):
                self._place(rule, layer.name, depth, index)
        for found in (*self._by_target.values(), *self._flows.values()):
            found.sort(key=lambda placed: placed.strength, reverse=True)
        self._provider_cache: dict[tuple[tuple[str, ...], str], str] = {}
        self._path_cache: dict[tuple[str, str, tuple[str, ...], str], Shaping] = {}
        self._flow_cache: dict[tuple[str, int, str], FlowShaping] = {}

    def __repr__(self) -> str:
        layers = ", ".join(f"{layer.name} {len(layer.rules)}" for layer in self.layers)
        return f"<ShapingRules {len(self._providers.known)} providers, rules: {layers}>"

    @property
    def providers(self) -> dict[str, ProviderRule]:
        """Name -> the definition in force."""
        return {name: provider.rule for name, provider in self._providers.known.items()}

    def provider_of(self, hosts: Sequence[str], domain: str = "") -> str:
        """Whose mailboxes these MX hosts (or this recipient domain) are; "" = no provider that is known."""
        key = (tuple(hosts), domain)
        found = self._provider_cache.get(key)
        if found is None:
            found = self._providers.find(hosts, domain)
            _keep(self._provider_cache, key, found)
        return found

    def path(self, source: str, site: str, hosts: Sequence[str], domain: str = "") -> Shaping:
        """What holds from `source` to `site` with MX `hosts`.

        `domain` is given where one recipient domain is asked about; a path as a whole has many.
        """
        key = (source, site, tuple(hosts), domain)
        found = self._path_cache.get(key)
        if found is None:
            provider = self.provider_of(hosts, domain)
            found = self._shape(provider, self._resolve_path(source, site, hosts, domain, provider))
            _keep(self._path_cache, key, found)
        return found

    def flow(self, workspace: str, campaign: int, provider: str) -> FlowShaping:
        """What holds for a campaign's mail (0 = none) to a provider ("" = none that is known)."""
        key = (workspace, campaign, provider)
        found = self._flow_cache.get(key)
        if found is None:
            found = self._shape_flow(workspace, campaign, provider)
            _keep(self._flow_cache, key, found)
        return found

    def warm_up(self, source: str, provider: str) -> WarmUpPlan | None:
        """The plan for a source at a provider: its own, else the one for every provider."""
        return self._warm_ups.get((source, provider)) or self._warm_ups.get((source, ""))

    def explain(
        self,
        source: str,
        site: str,
        hosts: Sequence[str],
        domain: str = "",
        workspace: str = "",
        campaign: int = 0,
    ) -> list[ExplainedValue]:
        """Every value that holds, path first, then those of the workspace and campaign where they differ."""
        provider = self.provider_of(hosts, domain)
        rows = []
        if provider:
            known = self._providers.known[provider]
            rows.append(ExplainedValue("provider", provider, known.layer, describe_provider(known.rule)))
        for key, said in self._resolve_path(source, site, hosts, domain, provider).items():
            rows.append(ExplainedValue(key, _text(said.value), said.layer, said.place))
        for key, said in _resolve(self._flow_rules(workspace, campaign, provider), FLOW_VALUES).items():
            rows.append(ExplainedValue(f"flow {key}", _text(said.value), said.layer, said.place))
        for whose in (
            f"workspace {workspace}" if workspace else "",
            f"campaign {campaign}" if campaign else "",
        ):
            if whose in self._shares:
                rows.append(ExplainedValue(f"weight {whose}", f"{self._shares[whose]:g}", NODE_FILE, "share"))
        return rows

    # --- laying out ------------------------------------------------------------------------------------

    def _place(self, rule: ShapingRule, layer: str, depth: int, index: int) -> None:
        place = f"rule {index + 1} ({describe_match(rule)})"
        if rule.is_flow:
            narrow = 2 * bool(rule.campaign) + bool(rule.workspace)
            placed = _Placed(rule, layer, place, (narrow, depth, index))
            self._flows.setdefault(rule.provider, []).append(placed)
        else:
            placed = _Placed(rule, layer, place, (int(bool(rule.source)), depth, index))
            self._by_target.setdefault(target_of(rule), []).append(placed)

    # --- asking ----------------------------------------------------------------------------------------

    def _path_rules(
        self, source: str, site: str, hosts: Sequence[str], domain: str, provider: str
    ) -> Iterator[_Placed]:
        """The rules that match, strongest first."""
        targets = [("domain", plain_name(domain))] if domain else []
        targets.append(("site", site))
        targets += [("mx", suffix) for suffix in suffixes_shared(hosts)]
        if provider:
            targets.append(("provider", provider))
        targets.append(("", ""))
        for target in targets:
            for placed in self._by_target.get(target, ()):
                if placed.rule.source in ("", source):
                    yield placed

    def _resolve_path(
        self, source: str, site: str, hosts: Sequence[str], domain: str, provider: str
    ) -> dict[str, _Said]:
        """Key -> value, for every key that anything says."""
        found = _resolve(self._path_rules(source, site, hosts, domain, provider), PATH_VALUES)
        retry = {f"retry_{key}": getattr(self._retry, key) for key in ("first", "factor", "max")}
        for key in PATH_VALUES:
            value = retry.get(key, getattr(SITE_DEFAULTS, key))
            if key not in found and value is not None:
                layer = "[engine.retry]" if key in retry else DEFAULTS_LAYER
                found[key] = _Said(value, layer, "")
        return {key: found[key] for key in PATH_VALUES if key in found}

    def _shape(self, provider: str, found: dict[str, _Said]) -> Shaping:
        def of(key: str) -> Any:
            said = found.get(key)
            return None if said is None else said.value

        return Shaping(
            provider=provider,
            connections=of("connections"),
            connection_rate=of("connection_rate"),
            rate=of("rate"),
            burst_seconds=float(of("burst")),
            messages_per_connection=of("messages_per_connection"),
            provider_connections=of("provider_connections"),
            provider_rate=of("provider_rate"),
            connect_timeout_seconds=float(of("connect_timeout")),
            reply_timeout_seconds=of("reply_timeout"),
            final_timeout_seconds=of("final_timeout"),
            idle_timeout_seconds=float(of("idle_timeout")),
            tls=of("tls"),
            pipelining=of("pipelining"),
            chunking=of("chunking"),
            retry=RetryCurve(
                float(of("retry_first")), of("retry_factor"), float(of("retry_max")), self._retry.jitter
            ),
            expire_after_seconds=of("expire_after"),
            failures_max=of("failures_max"),
        )

    def _flow_rules(self, workspace: str, campaign: int, provider: str) -> Iterator[_Placed]:
        for name in (provider, "") if provider else ("",):
            for placed in self._flows.get(name, ()):
                rule = placed.rule
                if rule.workspace in ("", workspace) and rule.campaign in (0, campaign):
                    yield placed

    def _shape_flow(self, workspace: str, campaign: int, provider: str) -> FlowShaping:
        rules = list(self._flow_rules(workspace, campaign, provider))
        found = _resolve(rules, FLOW_VALUES)

        def of(key: str) -> Any:
            said = found.get(key)
            return None if said is None else said.value

        rated = next((placed.rule for placed in rules if placed.rule.rate is not None), None)
        burst = of("burst")
        return FlowShaping(
            rate=None if rated is None or rated.rate is None else rated.rate.ceiling,
            rate_key="" if rated is None else describe_match(rated),
            burst_seconds=float(SITE_DEFAULTS.burst or 0.0) if burst is None else float(burst),
            weight_workspace=self._shares.get(f"workspace {workspace}", 1.0),
            weight_campaign=self._shares.get(f"campaign {campaign}", 1.0),
            expire_after_seconds=of("expire_after"),
            retry_first_seconds=of("retry_first"),
            retry_factor=of("retry_factor"),
            retry_max_seconds=of("retry_max"),
        )


def shaping_rules(config: Config, overrides: Sequence[ShapingRule] = ()) -> ShapingRules:
    """The rules of a node: built in, the operator's file, `emass.toml`, and what was set at run time."""
    return ShapingRules(
        shaping_layers(config, overrides),
        config.engine.retry,
        shares=config.engine.share,
        warm_ups=config.engine.warmup,
    )


def shaping_layers(config: Config, overrides: Sequence[ShapingRule] = ()) -> list[Layer]:
    """The layers of a node, weakest first; one that says nothing is left out."""
    built_in, operator = builtin_shaping(), config.engine.shaping.file
    layers = [Layer(BUILT_IN, built_in.provider, built_in.site)]
    if operator is not None:
        layers.append(Layer(config.engine.shaping.rpartition("/")[2], operator.provider, operator.site))
    relays = (relay.shaping() for relay in config.engine.relay)
    layers.append(Layer(RELAYS, (), tuple(rule for rule in relays if rule is not None)))
    layers.append(Layer(NODE_FILE, config.engine.provider, config.engine.site))
    layers.append(Layer(OVERRIDE, (), tuple(overrides)))
    return [layer for layer in layers if layer.providers or layer.rules]


def target_of(rule: ShapingRule) -> tuple[str, str]:
    """By which key a rule matches, and with what, in the form that names are compared in."""
    for key in ("domain", "mx", "site", "provider"):
        if said := getattr(rule, key):
            return key, plain_name(said) if key in {"domain", "mx"} else said
    return "", ""


def describe_match(rule: ShapingRule) -> str:
    """What a rule matches, as an operator would say it: "mx google.com, source ip-1"."""
    said = [f"{key} {value}" for key in MATCH_KEYS if (value := getattr(rule, key))]
    return ", ".join(said) or "everything"


def _resolve(rules: Iterable[_Placed], keys: Sequence[str]) -> dict[str, _Said]:
    """The first rule that says a key has it."""
    found: dict[str, _Said] = {}
    for placed in rules:
        for key in keys:
            if key not in found and (value := getattr(placed.rule, key)) is not None:
                found[key] = _Said(value, placed.layer, placed.place)
    return found


def _text(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and not isinstance(value, Duration):
        return f"{value:g}"
    return str(value)


def _keep(cache: dict[Any, Any], key: object, value: object) -> None:
    if len(cache) >= CACHE_MAX:
        cache.clear()  # rare, and cheaper than an order of use
    cache[key] = value
