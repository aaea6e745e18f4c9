"""A fresh emass.toml with values in it: they hold, and what explains them is still there."""

import pytest

from control.cluster.node_file import check_text, filled_default, parse_setting, toml_value, with_settings
from engine.config import BusKind, ConfigError, render_commented_default


def test_values_take_the_place_of_their_commented_lines():
    text = filled_default(
        {"node": {"name": '"b"'}, "bus": {"kind": '"nats"'}, "resolver": {"allow_private": "true"}}
    )
    config = check_text(text)
    assert (config.node.name, config.bus.kind, config.resolver.allow_private) == ("b", BusKind.NATS, True)
    assert len(text.splitlines()) == len(render_commented_default().splitlines())


def test_without_values_it_is_the_default():
    assert filled_default({}) == render_commented_default()


def test_tables_may_be_added_at_the_end():
    text = filled_default({}, '\n[[engine.source]]\nname = "ip"\naddress = "127.0.0.2"\n')
    assert check_text(text).engine.source[0].address == "127.0.0.2"


def test_a_key_of_another_table_that_looks_the_same_is_left_alone():
    config = check_text(filled_default({"keys": {"folder": '"secrets"'}}))
    assert config.keys.folder.endswith("/secrets")
    assert config.bus.folder == ""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("engine.smtp_port=2525", ("engine", "smtp_port", "2525")),
        ("resolver.allow_private = true", ("resolver", "allow_private", "true")),
        ("engine.ambiguous=hold", ("engine", "ambiguous", '"hold"')),
        ("engine.retry.first=10 s", ("engine.retry", "first", '"10 s"')),
        ('resolver.servers=["127.0.0.1:53"]', ("resolver", "servers", '["127.0.0.1:53"]')),
    ],
)
def test_settings_are_read(text, wanted):
    assert parse_setting(text) == wanted


@pytest.mark.parametrize("text", ["", "name=x", "engine.smtp_port", "a-b.c=1", "a.b=1\n[x]"])
def test_what_is_no_setting_is_refused(text):
    with pytest.raises(ConfigError, match="--set"):
        parse_setting(text)


@pytest.mark.parametrize("text", ["engine.smtp_prot=1", "nothing.at_all=1", "engine.smtp_port=many"])
def test_a_setting_that_cannot_be_is_named(text):
    with pytest.raises(ConfigError):
        filled_default(with_settings({}, [parse_setting(text)]))


def test_later_settings_win():
    values = {"bus": {"kind": '"local"'}}
    assert with_settings(values, [("bus", "kind", '"nats"')]) == {"bus": {"kind": '"nats"'}}
    assert values == {"bus": {"kind": '"local"'}}


def test_texts_are_quoted():
    assert toml_value(('a"b', "c")) == '["a\\"b", "c"]'
