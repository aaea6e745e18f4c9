"""Writing configurations: the default file tells the truth, and what is shown can be pasted back."""

import re
from pathlib import Path

import pytest
from msgspec import Struct
from msgspec.structs import fields

from engine.config import Config, load_config
from engine.config.egress import RelayRule, RouteRule, SourceRule
from engine.config.render import find_origins, render_commented_default, render_toml
from engine.config.shaping import SITE_DEFAULTS, ProviderRule, ShapingRule, ShareRule, WarmUpPlan
from engine.config.tables import DkimKeyFile, EngineTable

FULL = """
[node]
name = "näh"
[engine]
ambiguous = "hold"
[engine.retry]
first = "90 s"
[[engine.source]]
name = "ip-1"
[[engine.source]]
name = "ip.2"
proxy = "socks5://[::1]:1080"
weight = 0
[engine.pools]
main = { ip-1 = 3, "ip.2" = 1 }
"second.one" = ["ip.2"]
[[engine.relay]]
name = "smart"
host = "[::1]:587"
tls = "required"
[[engine.route]]
campaign = 3
relay = "smart"
[[engine.route]]
pool = "main"
[[engine.site]]
mx = "google.com"
rate = "100/min"
chunking = false
[[engine.site]]
connections = 7
[[engine.site]]
provider = "google"
connections = "2..8"
provider_rate = "10/min..300/min"
burst = "1 min"
[[engine.provider]]
name = "mine"
hosts = ["mx.mine.example"]
[[engine.share]]
campaign = 3
weight = 0.5
[[engine.warmup]]
source = "ip-1"
per_day = [50, 100]
overflow = false
[resolver]
servers = ["[::1]:53"]
"""


def uncommented() -> str:
    return re.sub(r"(?m)^#(?=\S)", "", render_commented_default())


def test_the_commented_default_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "emass.toml"
    path.write_text(render_commented_default())
    assert load_config(path, {}).engine == Config().engine
    assert find_origins(path, {}) == {}


def test_the_default_file_uncommented_equals_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "emass.toml").write_text(uncommented())
    (tmp_path / "empty.toml").write_text("")
    assert load_config(tmp_path / "emass.toml", {}) == load_config(tmp_path / "empty.toml", {})


def test_the_examples_in_the_default_file_are_valid(tmp_path: Path) -> None:
    text = re.sub(r"(?m)^#   (?=\S)", "", uncommented())
    text = text.replace("# signers", "signers")
    path = tmp_path / "emass.toml"
    path.write_text(text)
    config = load_config(path, {})
    assert len(config.engine.site) == 6
    assert config.engine.source
    assert config.engine.pools
    assert config.engine.relay
    assert config.engine.route
    assert config.engine.provider
    assert config.engine.share
    assert config.engine.warmup
    assert config.keys.dkim


@pytest.mark.parametrize(
    "table",
    [
        *[f.type for f in fields(Config) if f.name != "engine"],
        *(EngineTable, SourceRule, RelayRule, RouteRule, ProviderRule, ShapingRule, ShareRule, WarmUpPlan),
        DkimKeyFile,
    ],
)
def test_the_default_file_mentions_every_key(table: type[Struct]) -> None:
    text = render_commented_default()
    for field in fields(table):
        assert re.search(rf"(?m)^#? *{field.name} = |\[{{1,2}}[a-z.]*{field.name}\]", text), field.name


def test_the_default_file_tells_what_holds_where_no_rule_says_anything() -> None:
    text = re.sub(r"\n# ", " ", render_commented_default())
    told = re.search(r"What no rule says: (.*)", text)
    assert told is not None
    for field in fields(SITE_DEFAULTS):
        value = getattr(SITE_DEFAULTS, field.name)
        if value and value is not True:
            shown = getattr(value, "value", str(value))
            assert re.search(rf'{field.name} "?{shown}"?[,.]', told[1]), field.name


@pytest.mark.parametrize("text", ["", FULL])
def test_what_is_shown_can_be_pasted_back(tmp_path: Path, text: str) -> None:
    path = tmp_path / "emass.toml"
    path.write_text(text.replace("näh", "n-1"))
    config = load_config(path, {})
    for resolved in (True, False):
        shown = tmp_path / f"shown-{resolved}.toml"
        shown.write_text(render_toml(config, find_origins(path, {}), resolved=resolved))
        assert load_config(shown, {}) == config


def test_the_shaping_file_is_shown_as_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[[site]]\nconnections = 4\n")
    path = tmp_path / "emass.toml"
    path.write_text('[engine]\nshaping = "mine.toml"\n')
    shown = render_toml(load_config(path, {}), find_origins(path, {}), resolved=False)
    assert shown == f'[engine]\nshaping = "{tmp_path.resolve()}/mine.toml"  # from file\n'


def test_each_value_that_is_no_default_names_its_origin(tmp_path: Path) -> None:
    path = tmp_path / "emass.toml"
    path.write_text("[engine]\nsmtp_port = 2525\n")
    environ = {"EMASS_ENGINE__RETRY__FIRST": "90 s"}
    config = load_config(path, environ)
    shown = render_toml(config, find_origins(path, environ), resolved=False)
    assert shown == (
        "[engine]\nsmtp_port = 2525  # from file\n\n"
        '[engine.retry]\nfirst = "90 s"  # from EMASS_ENGINE__RETRY__FIRST\n'
    )
