"""What the lint finds in rules that parse, and that it is silent on what makes sense."""

from typing import Any

import pytest

from engine.config import (
    Config,
    CountRange,
    EngineTable,
    ProviderRule,
    Rate,
    ShapingFile,
    ShapingPath,
    ShapingRule,
    SourceRule,
    TlsPolicy,
    WarmUpPlan,
)
from engine.mta.policy.shaping_lint import Finding, Level, lint_shaping

IP_1 = (SourceRule(name="ip-1"),)


def lint(*rules: ShapingRule, file: ShapingFile | None = None, **engine: Any) -> list[Finding]:
    path = ShapingPath("/etc/mine.toml", file) if file else ShapingPath()
    return lint_shaping(Config(engine=EngineTable(site=rules, shaping=path, **engine)))


def rule(connections: int, **match: Any) -> ShapingRule:
    return ShapingRule(connections=connections, **match)


def test_the_built_in_rules_have_no_findings() -> None:
    assert lint_shaping(Config()) == []


def test_rules_that_make_sense_have_no_findings() -> None:
    assert (
        lint(
            rule(2, provider="google", source="ip-1"),
            rule(3, mx="mx.example.net"),
            ShapingRule(domain="bücher.example", tls=TlsPolicy.REQUIRED),
            ShapingRule(workspace="a", rate=Rate(1, 1.0)),
            ShapingRule(workspace="b", rate=Rate(2, 1.0)),
            source=IP_1,
            warmup=(WarmUpPlan(source="ip-1", provider="google", per_day=(50,)),),
            provider=(ProviderRule(name="mine", mx=("mx.mine.example",)),),
        )
        == []
    )


@pytest.mark.parametrize(
    ("odd", "text", "cure"),
    [
        (rule(3, provider="gogle"), "no provider is called 'gogle'", 'did you mean "google"?'),
        (rule(3, provider="zzzzz"), "no provider is called 'zzzzz'", "shaping.toml"),
        (rule(3, source="ip-9"), "no source is called 'ip-9'", 'did you mean "ip-1"?'),
        (rule(3, mx="*.example.net"), "is a pattern", 'write "example.net"'),
        (rule(3, mx="a@example.net"), "is no host name", "MX host"),
        (rule(3, mx="a..b"), "is no host name", "MX host"),
        (rule(3, domain="localhost"), "is no mail domain", "behind the @"),
        (ShapingRule(workspace="a", provider="gogle", rate=Rate(1, 1.0)), "no provider", '"google"'),
    ],
)
def test_a_rule_that_can_never_match_is_an_error(odd: ShapingRule, text: str, cure: str) -> None:
    (found,) = [one for one in lint(odd, source=IP_1) if one.level is Level.ERROR]
    assert (found.layer, found.where.partition(" (")[0]) == ("emass.toml", "[[engine.site]] 1")
    assert text in found.text
    assert cure in found.cure


def test_a_node_without_sources_has_one_called_default() -> None:
    assert lint(rule(3, mx="mx.example.net", source="default")) == []


def test_a_rule_that_says_nothing_is_a_warning() -> None:
    (found,) = lint(ShapingRule(mx="mx.example.net"))
    assert (found.level, found.text) == (Level.WARNING, "matches and says nothing")


def test_two_rules_of_one_layer_that_contradict_are_an_error() -> None:
    (found,) = lint(rule(3, mx="mx.a.test"), rule(4, mx="MX.a.test."))
    assert found.level is Level.ERROR
    assert found.where == "[[engine.site]] 2 (mx MX.a.test.)"
    assert found.text == "connections is 4 here and 3 in rule 1, which matches the same: the last one holds"


def test_two_rules_of_one_layer_that_say_the_same_are_a_warning() -> None:
    (found,) = lint(rule(3, mx="mx.a.test"), rule(3, mx="mx.a.test"))
    assert found.level is Level.WARNING
    assert "once is enough" in found.text


def test_rules_that_say_different_keys_or_match_different_mail_do_not_contradict() -> None:
    found = lint(
        rule(3, mx="mx.a.test"),
        ShapingRule(mx="mx.a.test", chunking=False),
        rule(4, mx="mx.a.test", source="ip-1"),
        rule(5, mx="a.test"),
        source=IP_1,
    )
    assert found == []


def test_a_rule_of_a_file_that_the_node_says_again_decides_nothing() -> None:
    file = ShapingFile(
        site=(rule(3, mx="mx.a.test"), ShapingRule(mx="mx.b.test", connections=3, chunking=False))
    )
    (found,) = lint(rule(2, mx="mx.a.test"), rule(2, mx="mx.b.test"), file=file)
    assert (found.level, found.layer, found.where) == (
        Level.WARNING,
        "mine.toml",
        "[[site]] 1 (mx mx.a.test)",
    )
    assert "emass.toml [[engine.site]] 1 (mx mx.a.test)" in found.text


def test_a_rule_that_only_an_override_covers_is_left_alone() -> None:
    config = Config(engine=EngineTable(site=(rule(3, mx="mx.a.test"),)))
    assert lint_shaping(config, [rule(1, mx="mx.a.test")]) == []


def test_a_provider_whose_suffixes_all_have_rules_needs_none() -> None:
    mine = ProviderRule(name="mine", mx=("a.test", "b.test"))
    by_suffix = [rule(2, mx="a.test"), rule(2, mx="b.test")]
    (found,) = lint(rule(2, provider="mine"), *by_suffix, provider=(mine,))
    assert "rules by mx cover every suffix" in found.text
    assert lint(rule(2, provider="mine"), by_suffix[0], provider=(mine,)) == []
    assert lint(ShapingRule(provider="mine", chunking=False), *by_suffix, provider=(mine,)) == []


def test_an_override_of_a_built_in_value_is_no_shadow() -> None:
    assert lint(rule(3, provider="google")) == []


@pytest.mark.parametrize(
    ("provider", "level", "text"),
    [
        (ProviderRule(name="mine", mx=("google.com",)), Level.WARNING, "google.com is also google's"),
        (ProviderRule(name="mine", mx=("l.google.com",)), Level.WARNING, "falls under google's google.com"),
        (ProviderRule(name="mine", hosts=("*.a.test",)), Level.ERROR, "is a pattern"),
        (ProviderRule(name="mine", mx=("a b",)), Level.ERROR, "is no host name"),
        (ProviderRule(name="mine", domains=("nodot",)), Level.ERROR, "is no mail domain"),
    ],
)
def test_a_provider_that_overlaps_or_has_an_odd_name_is_found(
    provider: ProviderRule, level: Level, text: str
) -> None:
    (found,) = lint(provider=(provider,))
    assert (found.level, found.layer, found.where) == (level, "emass.toml", "[[engine.provider]] mine")
    assert text in found.text


def test_two_providers_of_one_layer_with_one_suffix_are_an_error() -> None:
    twins = tuple(ProviderRule(name=name, mx=("a.test",)) for name in ("one", "two"))
    (found,) = lint(provider=twins)
    assert (found.level, found.text) == (Level.ERROR, "mx: a.test is also one's")


def test_a_provider_that_replaces_a_built_in_one_says_what_is_lost() -> None:
    (found,) = lint(provider=(ProviderRule(name="google", mx=("google.com",)),))
    assert found.level is Level.NOTE
    assert "googlemail.com" in found.text


def test_a_rule_for_everything_that_known_providers_overrule_is_a_note() -> None:
    (found,) = lint(rule(3))
    assert found.level is Level.NOTE
    assert "known providers, whose own rules are stronger" in found.text
    assert lint(ShapingRule(pipelining=False)) == []  # no built-in rule says that


@pytest.mark.parametrize(
    ("connections", "level", "text"),
    [
        (CountRange(30, 40), Level.WARNING, "even at its floor above 2..10"),
        (
            CountRange(2, 12),
            Level.NOTE,
            "connections 2..12 is above 2..10, which built-in says of provider mimecast",
        ),
        (CountRange(1, 1), Level.NOTE, "wholly below"),
    ],
)
def test_a_range_outside_of_a_weaker_layers_is_found(
    connections: CountRange, level: Level, text: str
) -> None:
    for match in ({"provider": "mimecast"}, {"mx": "eu-smtp-inbound-1.mimecast.com"}):
        (found,) = lint(ShapingRule(connections=connections, **match))
        assert found.level is level
        assert text in found.text
    assert lint(ShapingRule(connections=CountRange(3, 9), provider="mimecast")) == []


def test_a_rate_outside_of_a_weaker_layers_is_found() -> None:
    (found,) = lint(ShapingRule(provider="netease", rate=Rate(1, 1.0)))
    assert (found.level, "above" in found.text) == (Level.NOTE, True)


def test_more_connections_than_the_provider_or_the_node_allows_are_found() -> None:
    found = lint(rule(8, provider="google"))
    assert [one.level for one in found] == [Level.WARNING, Level.NOTE]
    assert "8 of one site is above the 5 of all the provider's sites together" in found[0].text
    file = ShapingFile(site=(rule(50, mx="mx.a.test"),))
    (error,) = lint(file=file, connections_max=40)
    assert (error.level, error.layer) == (Level.ERROR, "mine.toml")
    assert "50 is above [engine] connections_max, 40" in error.text


def test_a_warm_up_of_an_unknown_source_or_provider_is_an_error() -> None:
    plans = (
        WarmUpPlan(source="ip-2", per_day=(1,)),
        WarmUpPlan(source="ip-1", provider="gogle", per_day=(1,)),
    )
    found = lint(source=IP_1, warmup=plans)
    assert [one.level for one in found] == [Level.ERROR, Level.ERROR]
    assert [one.cure for one in found] == ['did you mean "ip-1"?', 'did you mean "google"?']


def test_errors_come_first_and_a_finding_is_one_line() -> None:
    found = lint(rule(3), ShapingRule(mx="mx.a.test"), rule(3, provider="gogle"))
    assert [one.level for one in found] == [Level.ERROR, Level.WARNING, Level.NOTE]
    assert str(found[0]) == (
        "error: emass.toml: [[engine.site]] 3 (provider gogle): never matches: no provider is called"
        " 'gogle' (did you mean \"google\"?)"
    )


@pytest.mark.slow
def test_a_file_of_thousands_of_rules_is_read_in_one_pass() -> None:
    rules = tuple(rule(3, domain=f"d{number}.example") for number in range(2_000))
    assert lint(file=ShapingFile(site=rules)) == []
    alike = tuple(rule(3) for _ in range(2_000))
    assert len(lint(file=ShapingFile(site=alike))) == 1_999 + 2_000  # said twice; known providers overrule
