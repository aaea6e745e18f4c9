"""Which values hold for a path or a flow: by strength, value by value, each with its origin."""

import pytest
from msgspec.structs import replace

import engine.mta.policy.shaping
from engine.config import (
    Config,
    CountRange,
    Duration,
    EngineTable,
    ProviderRule,
    Rate,
    RateRange,
    RetryTable,
    ShapingFile,
    ShapingPath,
    ShapingRule,
    ShareRule,
    TlsPolicy,
    WarmUpPlan,
)
from engine.mta.policy.shaping import (
    ExplainedValue,
    Layer,
    RetryCurve,
    ShapingRules,
    describe_match,
    shaping_layers,
    shaping_rules,
)

HOSTS = ["mx1.mail.giant.test", "mx2.mail.giant.test"]
SITE = "+".join(HOSTS)
GIANT = ProviderRule(name="giant", mx=("giant.test",))


def rule(connections: int, **match: str) -> ShapingRule:
    return ShapingRule(connections=connections, **match)


def rules_of(*layers: list[ShapingRule]) -> ShapingRules:
    names = ["built-in", "mine.toml", "emass.toml", "override"]
    return ShapingRules(
        [Layer(name, (GIANT,), tuple(rules)) for name, rules in zip(names, layers, strict=False)],
        RetryTable(),
    )


@pytest.mark.parametrize(
    ("layers", "connections"),
    [
        ([[]], 20),
        ([[rule(1)]], 1),
        ([[rule(1), rule(2)]], 2),  # a contradiction: the last holds
        ([[rule(1), rule(2, provider="giant")]], 2),
        ([[rule(2, provider="giant"), rule(1)]], 2),
        ([[rule(2, mx="giant.test"), rule(1, provider="giant")]], 2),
        ([[rule(2, mx="mail.giant.test"), rule(1, mx="giant.test")]], 2),  # the longest suffix
        ([[rule(1, mx="giant.test"), rule(2, mx=".MAIL.giant.test.")]], 2),  # however it is written
        ([[rule(2, mx="iant.test")]], 20),  # a suffix of names, not of letters
        ([[rule(2, mx="mx1.mail.giant.test")]], 20),  # all hosts must share it
        ([[rule(3, site=SITE), rule(2, mx="mail.giant.test")]], 3),
        ([[rule(4, domain="Giant.test"), rule(3, site=SITE)]], 4),
        ([[rule(4, domain="small.test"), rule(3, site="elsewhere"), rule(2, provider="small")]], 20),
        ([[rule(1, provider="giant")], [rule(2, provider="giant")]], 2),  # the later layer
        ([[rule(1, provider="giant")], [rule(2)]], 1),  # is no stronger with a weaker match
        ([[rule(1)], [rule(2)], [rule(3)], [rule(4)]], 4),
        ([[rule(1, source="ip-1")], [rule(2)]], 1),  # one source before all of them, in any layer
        ([[rule(1, source="ip-2")], [rule(2)]], 2),
        ([[rule(1, source="ip-1")], [rule(2, provider="giant")]], 2),
        ([[rule(1, provider="giant", source="ip-1")], [rule(2, provider="giant")]], 1),
    ],
)
def test_the_strongest_rule_that_matches_says_it(layers: list[list[ShapingRule]], connections: int) -> None:
    assert rules_of(*layers).path("ip-1", SITE, HOSTS, "giant.test").connections.ceiling == connections


def test_a_rule_for_a_domain_holds_for_that_domain_only() -> None:
    rules = rules_of([rule(4, domain="giant.test")])
    assert rules.path("ip-1", SITE, HOSTS).connections == CountRange(1, 20)


def test_a_rule_of_a_workspace_shapes_no_path() -> None:
    rules = rules_of([ShapingRule(workspace="a", rate=Rate(1, 1.0), retry_first=Duration(7))])
    assert rules.path("ip-1", SITE, HOSTS) == rules_of([]).path("ip-1", SITE, HOSTS)


def test_each_value_comes_from_the_strongest_rule_that_says_it() -> None:
    rules = rules_of(
        [ShapingRule(rate=Rate(100, 60.0), tls=TlsPolicy.REQUIRED, chunking=False, failures_max=9)],
        [
            ShapingRule(
                provider="giant",
                connections=CountRange(2, 3),
                tls=TlsPolicy.NEVER,
                provider_connections=7,
                provider_rate=RateRange.parse("5/s"),
                connection_rate=Rate(3, 1.0),
                retry_first=Duration(60),
                expire_after=Duration(600),
            )
        ],
        [
            ShapingRule(
                site=SITE,
                messages_per_connection=9,
                burst=Duration(2),
                connect_timeout=Duration(7),
                reply_timeout=Duration(8),
                final_timeout=Duration(9),
                idle_timeout=Duration(10),
                pipelining=False,
                retry_max=Duration(3600),
            )
        ],
    )
    shaping = rules.path("ip-1", SITE, HOSTS)
    assert shaping.provider == "giant"
    assert shaping.connections == CountRange(2, 3)
    assert (shaping.connection_rate, shaping.rate) == (Rate(3, 1.0), RateRange.parse("100/min"))
    assert (shaping.provider_connections, shaping.provider_rate) == (7, RateRange.parse("5/s"))
    assert (shaping.messages_per_connection, shaping.burst_seconds, shaping.failures_max) == (9, 2.0, 9)
    assert (shaping.connect_timeout_seconds, shaping.reply_timeout_seconds) == (7.0, 8.0)
    assert (shaping.final_timeout_seconds, shaping.idle_timeout_seconds) == (9.0, 10.0)
    assert (shaping.tls, shaping.pipelining, shaping.chunking) == (TlsPolicy.NEVER, False, False)
    assert shaping.retry == RetryCurve(60.0, 2.0, 3600.0, 0.2)
    assert shaping.expire_after_seconds == 600.0


def test_without_rules_the_defaults_hold() -> None:
    shaping = ShapingRules([], RetryTable(first=Duration(30), jitter=0.1)).path("ip-1", SITE, HOSTS)
    assert shaping.provider == ""
    assert (shaping.rate, shaping.provider_connections, shaping.reply_timeout_seconds) == (None, None, None)
    assert (shaping.connections, shaping.messages_per_connection) == (CountRange(1, 20), 500)
    assert (shaping.burst_seconds, shaping.idle_timeout_seconds, shaping.failures_max) == (0.25, 5.0, 1)
    assert shaping.retry == RetryCurve(30.0, 2.0, 14_400.0, 0.1)
    assert shaping.expire_after_seconds is None


def test_an_answer_is_kept_and_the_memory_of_answers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = rules_of([rule(3)])
    assert rules.path("ip-1", SITE, HOSTS) is rules.path("ip-1", SITE, tuple(HOSTS))
    assert rules.flow("a", 1, "giant") is rules.flow("a", 1, "giant")
    monkeypatch.setattr(engine.mta.policy.shaping, "CACHE_MAX", 3)
    for number in range(10):
        assert rules.path("ip-1", f"site-{number}", HOSTS).connections.ceiling == 3
    assert len(rules._path_cache) <= 3


# --- workspaces and campaigns -----------------------------------------------------------------------------

FLOWS = [
    ShapingRule(workspace="a", rate=Rate(10, 1.0), retry_first=Duration(60), burst=Duration(3)),
    ShapingRule(workspace="a", provider="giant", rate=Rate(5, 1.0)),
    ShapingRule(campaign=7, rate=Rate(3, 1.0), expire_after=Duration(600), retry_max=Duration(900)),
]


@pytest.mark.parametrize(
    ("workspace", "campaign", "provider", "rate", "key"),
    [
        ("a", 0, "", Rate(10, 1.0), "workspace a"),
        ("a", 0, "giant", Rate(5, 1.0), "provider giant, workspace a"),
        ("a", 7, "", Rate(3, 1.0), "campaign 7"),
        ("a", 7, "giant", Rate(5, 1.0), "provider giant, workspace a"),  # by provider is the stronger match
        ("b", 7, "giant", Rate(3, 1.0), "campaign 7"),
        ("b", 8, "giant", None, ""),
        ("", 0, "", None, ""),
    ],
)
def test_a_flows_rate_is_of_the_strongest_rule_and_named_by_it(
    workspace: str, campaign: int, provider: str, rate: Rate | None, key: str
) -> None:
    flow = rules_of(FLOWS).flow(workspace, campaign, provider)
    assert (flow.rate, flow.rate_key) == (rate, key)


def test_a_flow_bends_the_curve_of_its_path() -> None:
    curve = RetryCurve(300.0, 2.0, 14_400.0, 0.2)
    flow = rules_of(FLOWS).flow("a", 7, "")
    assert flow.bend(curve) == RetryCurve(60.0, 2.0, 900.0, 0.2)
    assert flow.expire_after_seconds == 600.0
    assert flow.burst_seconds == 3.0
    assert rules_of(FLOWS).flow("b", 0, "").bend(curve) == curve


def test_weights_are_one_unless_shared_otherwise() -> None:
    shares = [ShareRule(workspace="a", weight=3.0), ShareRule(campaign=7, weight=0.5)]
    rules = ShapingRules([], RetryTable(), shares=shares)
    assert (rules.flow("a", 7, "").weight_workspace, rules.flow("a", 7, "").weight_campaign) == (3.0, 0.5)
    assert (rules.flow("b", 8, "").weight_workspace, rules.flow("b", 8, "").weight_campaign) == (1.0, 1.0)


def test_a_warm_up_plan_of_the_provider_comes_before_the_one_for_all() -> None:
    for_all = WarmUpPlan(source="ip-1", per_day=(10, 20))
    for_giant = WarmUpPlan(source="ip-1", provider="giant", per_day=(1,))
    rules = ShapingRules([], RetryTable(), warm_ups=[for_all, for_giant])
    assert rules.warm_up("ip-1", "giant") is for_giant
    assert rules.warm_up("ip-1", "other") is for_all
    assert rules.warm_up("ip-2", "giant") is None


# --- layers and origins -----------------------------------------------------------------------------------


def test_a_node_has_the_built_in_layer_the_operators_file_its_own_and_overrides() -> None:
    file = ShapingFile(site=(rule(2, provider="google"),))
    config = Config(engine=EngineTable(shaping=ShapingPath("/etc/emass/mine.toml", file), site=(rule(9),)))
    assert [layer.name for layer in shaping_layers(Config())] == ["built-in"]
    names = [layer.name for layer in shaping_layers(config, [rule(1, provider="google")])]
    assert names == ["built-in", "mine.toml", "emass.toml", "override"]
    hosts = ["gmail-smtp-in.l.google.com"]
    assert shaping_rules(Config()).path("default", "x", hosts).connections.ceiling == 5
    assert shaping_rules(config).path("default", "x", hosts).connections.ceiling == 2
    assert (
        shaping_rules(config, [rule(1, provider="google")]).path("default", "x", hosts).connections.ceiling
        == 1
    )
    assert shaping_rules(config).path("default", "x", ["mx.nobody.test"]).connections.ceiling == 9
    assert repr(shaping_rules(config)).endswith("mine.toml 1, emass.toml 1>")


def test_every_value_knows_its_origin() -> None:
    rules = rules_of(
        [rule(4, provider="giant")],
        [],
        [ShapingRule(mx="giant.test", tls=TlsPolicy.REQUIRED, chunking=False), *FLOWS],
    )
    rows = rules.explain("ip-1", SITE, HOSTS, workspace="a", campaign=7)
    assert rows[0] == ExplainedValue("provider", "giant", "emass.toml", "mx giant.test")
    assert ExplainedValue("connections", "4", "built-in", "rule 1 (provider giant)") in rows
    assert ExplainedValue("tls", "required", "emass.toml", "rule 1 (mx giant.test)") in rows
    assert ExplainedValue("chunking", "no", "emass.toml", "rule 1 (mx giant.test)") in rows
    assert ExplainedValue("connect_timeout", "30 s", "default", "") in rows
    assert ExplainedValue("retry_first", "5 min", "[engine.retry]", "") in rows
    assert ExplainedValue("flow rate", "5/s", "emass.toml", "rule 3 (provider giant, workspace a)") in rows
    assert ExplainedValue("flow expire_after", "10 min", "emass.toml", "rule 4 (campaign 7)") in rows


def test_what_is_explained_is_what_holds() -> None:
    rules = rules_of([rule(4, provider="giant")], [rule(6, mx="giant.test")])
    rows = {row.key: row.value for row in rules.explain("ip-1", SITE, HOSTS)}
    assert rows["connections"] == str(rules.path("ip-1", SITE, HOSTS).connections) == "6"


def test_a_share_is_explained_where_it_is_not_one() -> None:
    rules = ShapingRules([], RetryTable(), shares=[ShareRule(workspace="a", weight=2.5)])
    rows = rules.explain("ip-1", SITE, HOSTS, workspace="a", campaign=7)
    assert rows[-1] == ExplainedValue("weight workspace a", "2.5", "emass.toml", "share")


def test_a_match_reads_as_an_operator_would_say_it() -> None:
    assert describe_match(ShapingRule()) == "everything"
    assert describe_match(rule(1, mx="a.test", source="ip-1")) == "mx a.test, source ip-1"
    assert describe_match(replace(ShapingRule(), campaign=7)) == "campaign 7"
