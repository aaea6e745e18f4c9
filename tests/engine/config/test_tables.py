"""The engine's tables: defaults that fit together, and relations that are refused."""

import pytest
from msgspec.structs import replace

from engine.config.egress import SourceRule
from engine.config.tables import (
    Config,
    EngineTable,
    LimitsTable,
    RetryTable,
    SiteRule,
)
from engine.config.units import Duration, Size


def test_the_defaults_are_a_whole_configuration():
    config = Config()
    assert config.engine.smtp_port == 25
    assert config.limits.disk_stop < config.limits.disk_refuse


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: RetryTable(first=Duration(7200), max=Duration(3600)), "first"),
        (lambda: RetryTable(factor=0.5), "factor"),
        (lambda: RetryTable(jitter=1.0), "jitter"),
        (lambda: RetryTable(expire_after=Duration(60)), "expire_after"),
        (lambda: SourceRule(name="a b"), "name"),
        (lambda: SourceRule(name="a", address="nowhere"), "address"),
        (lambda: SourceRule(name="a", ehlo_name="no dot"), "ehlo_name"),
        (lambda: SiteRule(domain="a.example", mx="b.example"), "mx"),
        (lambda: SiteRule(connections=0), "connections"),
        (lambda: EngineTable(smtp_port=0), "smtp_port"),
        (lambda: EngineTable(source=(SourceRule(name="a"), SourceRule(name="a"))), "source"),
        (lambda: EngineTable(connections_max=5, site=(SiteRule(connections=6),)), "site"),
        (lambda: LimitsTable(disk_stop=Size(3 * 10**9)), "disk_stop"),
        (lambda: replace(Config(), limits=LimitsTable(spool_map=Size(20 * 10**6))), "limits"),
    ],
)
def test_an_impossible_value_names_its_key(make, key):
    with pytest.raises(ValueError, match=rf"^{key}: "):
        make()
