"""Shaping as data: what one rule may say, and that the built-in values are sound."""

import re
from pathlib import Path

import pytest

import engine.config.shaping
from engine.config.shaping import (
    FLOW_VALUES,
    MATCH_KEYS,
    PATH_VALUES,
    SITE_DEFAULTS,
    ProviderRule,
    ShapingFile,
    ShapingPath,
    ShapingRule,
    ShareRule,
    TlsPolicy,
    WarmUpPlan,
    builtin_shaping,
)
from engine.config.units import CountRange, Duration, Rate, RateRange

NOTED = (
    "KumoMTA's shipped value",
    "KumoMTA's community value",
    "published rule",
    "careful default",
    "Its reply",
)
WANTED = {
    *("google", "outlook", "microsoft", "microsoft-dane", "yahoo", "apple", "comcast"),
    *("gmx", "tonline", "orange", "laposte", "free", "mailru", "yandex", "qq", "netease", "yahoo-japan"),
    *("seznam", "libero", "kpn", "proofpoint", "mimecast", "barracuda", "zoho", "fastmail", "proton"),
}


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: ShapingRule(domain="a.example", mx="b.example"), "mx"),
        (lambda: ShapingRule(site="a", provider="b"), "provider"),
        (lambda: ShapingRule(campaign=-1), "campaign"),
        (lambda: ShapingRule(connections=0), "connections"),
        (lambda: ShapingRule(connections=CountRange(1, 50_001)), "connections"),
        (lambda: ShapingRule(messages_per_connection=0), "messages_per_connection"),
        (lambda: ShapingRule(provider_connections=0), "provider_connections"),
        (lambda: ShapingRule(failures_max=0), "failures_max"),
        (lambda: ShapingRule(mx="a.example", provider_connections=3), "provider_connections"),
        (lambda: ShapingRule(domain="a.example", provider_rate=RateRange.parse("1/s")), "provider_rate"),
        (lambda: ShapingRule(connect_timeout=Duration(0)), "connect_timeout"),
        (lambda: ShapingRule(reply_timeout=Duration(3601)), "reply_timeout"),
        (lambda: ShapingRule(final_timeout=Duration(0)), "final_timeout"),
        (lambda: ShapingRule(idle_timeout=Duration(601)), "idle_timeout"),
        (lambda: ShapingRule(burst=Duration(7200)), "burst"),
        (lambda: ShapingRule(retry_factor=0.5), "retry_factor"),
        (lambda: ShapingRule(retry_first=Duration(0)), "retry_first"),
        (lambda: ShapingRule(retry_first=Duration(60), retry_max=Duration(30)), "retry_max"),
        (lambda: ShapingRule(retry_first=Duration(60), expire_after=Duration(60)), "expire_after"),
        (lambda: ShapingRule(workspace="a", connections=3), "connections"),
        (lambda: ShapingRule(campaign=1, tls=TlsPolicy.REQUIRED), "tls"),
        (lambda: ShapingRule(workspace="a", mx="a.example"), "mx"),
        (lambda: ShapingRule(campaign=1, source="ip-1"), "source"),
        (lambda: ProviderRule(name="a b", mx=("a.example",)), "name"),
        (lambda: ProviderRule(name="a"), "mx"),
        (lambda: ShareRule(weight=2.0), "workspace"),
        (lambda: ShareRule(workspace="a", campaign=1), "workspace"),
        (lambda: ShareRule(workspace="a", weight=0.001), "weight"),
        (lambda: ShareRule(workspace="a", weight=1001), "weight"),
        (lambda: WarmUpPlan(source="a b", per_day=(1,)), "source"),
        (lambda: WarmUpPlan(source="a", per_day=()), "per_day"),
        (lambda: WarmUpPlan(source="a", per_day=(50, 0)), "per_day"),
        (lambda: WarmUpPlan(source="a", per_day=(50,), counted_share=1.5), "counted_share"),
        (lambda: ShapingFile(version=2), "version"),
        (lambda: ShapingFile(provider=(ProviderRule(name="a", mx=("b",)),) * 2), "provider"),
    ],
)
def test_what_a_rule_cannot_mean_names_its_key(make, key):
    with pytest.raises(ValueError, match=rf"^{key}: "):
        make()


def test_a_rule_of_a_workspace_says_why_it_may_not_shape_connections():
    with pytest.raises(ValueError, match=r"a connection carries mail of every workspace.*rate, burst"):
        ShapingRule(workspace="a", connections=3)


def test_a_rule_of_a_workspace_may_say_what_is_the_mails_own():
    rule = ShapingRule(workspace="a", provider="google", rate=Rate(10, 1.0), expire_after=Duration(3600))
    assert rule.is_flow
    assert rule.rate == RateRange.parse("10/s")
    assert not ShapingRule(provider="google").is_flow


def test_code_may_write_a_plain_number_and_rate_as_a_file_may():
    rule = ShapingRule(connections=5, rate=Rate(100, 60.0))
    assert rule == ShapingRule(connections=CountRange(1, 5), rate=RateRange.parse("100/min"))


def test_every_key_is_a_match_or_a_value():
    assert set(MATCH_KEYS) | set(PATH_VALUES) == set(ShapingRule.__struct_fields__)
    assert set(FLOW_VALUES) < set(PATH_VALUES)


def test_the_site_defaults_say_everything_that_a_path_needs():
    unsaid = {key for key in PATH_VALUES if getattr(SITE_DEFAULTS, key) is None}
    assert unsaid == {
        *("rate", "connection_rate", "provider_rate", "provider_connections"),  # unlimited
        *("reply_timeout", "final_timeout"),  # the client's own table
        *("retry_first", "retry_factor", "retry_max", "expire_after"),  # [engine.retry]
    }


def test_a_shaping_path_is_a_text_that_remembers_what_was_read():
    file = ShapingFile()
    assert ShapingPath("x.toml", file) == "x.toml"
    assert ShapingPath("x.toml", file).file is file
    assert ShapingPath.parse("x.toml").file is None
    assert not ShapingPath()
    with pytest.raises(ValueError, match="path of a file"):
        ShapingPath.parse(3)


# --- what is built in -------------------------------------------------------------------------------------


def test_the_providers_that_matter_are_built_in():
    names = {provider.name for provider in builtin_shaping().provider}
    assert names.issuperset(WANTED)
    assert len(names) >= 60


def test_every_built_in_provider_has_a_note_and_exactly_one_rule():
    file = builtin_shaping()
    assert [rule.provider for rule in file.site] == [provider.name for provider in file.provider]
    for provider in file.provider:
        assert any(word in provider.note for word in NOTED), provider.name


def test_built_in_values_are_careful():
    for rule in builtin_shaping().site:
        assert rule.connections is not None
        assert rule.connections.ceiling <= 25, rule.provider
        assert rule.messages_per_connection is not None
        assert rule.provider_connections is None or rule.connections.ceiling <= rule.provider_connections
        assert rule.tls is not TlsPolicy.NEVER
        assert (rule.domain, rule.mx, rule.site, rule.source, rule.workspace, rule.campaign) == ("",) * 5 + (
            0,
        )


def test_the_built_in_file_reads_well():
    text = Path(engine.config.shaping.__file__).with_name("shaping.toml").read_text()
    assert text.startswith("# ")
    assert text.isascii()
    assert not re.search(r"[ \t]$", text, re.MULTILINE)
    assert builtin_shaping() is builtin_shaping()
