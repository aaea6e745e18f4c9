"""Loading: what a file and the environment may say, and how each mistake is named."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.config import (
    AmbiguousPolicy,
    Config,
    ConfigError,
    CountRange,
    Duration,
    ProviderRule,
    Rate,
    RateRange,
    SiteRule,
    TlsPolicy,
    load_config,
    load_shaping,
)
from engine.config.load import parse_rule


def write(folder: Path, text: str) -> Path:
    path = folder / "emass.toml"
    path.write_text(text)
    return path


def test_without_a_file_the_defaults_hold() -> None:
    assert load_config(None, {}) == Config()


def test_a_file_overrides_the_defaults(tmp_path: Path) -> None:
    config = load_config(
        write(
            tmp_path,
            """
            [engine]
            smtp_port = 2525
            ambiguous = "hold"
            [engine.retry]
            first = "1 min"
            [[engine.source]]
            name = "ip-1"
            address = "127.0.0.2"
            [[engine.site]]
            mx = "google.com"
            rate = "100/min"
            tls = "required"
            connections = 3
            [[engine.site]]
            provider = "orange"
            connections = "2..10"
            rate = "10/min..600/min"
            [resolver]
            servers = ["127.0.0.1:5353", "[::1]:53"]
            """,
        ),
        {},
    )
    assert config.engine.smtp_port == 2525
    assert config.engine.ambiguous is AmbiguousPolicy.HOLD
    assert config.engine.retry.first == Duration(60)
    assert config.engine.source[0].address == "127.0.0.2"
    assert config.engine.site == (
        SiteRule(mx="google.com", rate=Rate(100, 60), tls=TlsPolicy.REQUIRED, connections=3),
        SiteRule(
            provider="orange",
            connections=CountRange(2, 10),
            rate=RateRange(Rate(10, 60), Rate(600, 60)),
        ),
    )
    assert [server.port for server in config.resolver.servers] == [5353, 53]


def test_relative_folders_hang_under_the_folder_of_the_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, '[keys]\nfolder = "/etc/keys"\n'), {})
    assert config.node.data == str(tmp_path.resolve() / "data")
    assert config.keys.folder == "/etc/keys"


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, '[engine]\nsmtp_port = 2525\n[node]\nname = "a"\n')
    config = load_config(
        path,
        {
            "EMASS_ENGINE__SMTP_PORT": "2626",
            "EMASS_ENGINE__RETRY__FIRST": "7 s",
            "EMASS_ENGINE__RETRY__FACTOR": "3",
            "EMASS_NODE__NAME": "7",
            "EMASS_RESOLVER__ALLOW_PRIVATE": "true",
            "EMASS_RESOLVER__SERVERS": '["127.0.0.1:54"]',
            "EMASS_ENGINE__SOURCE": '[{name = "x", address = "127.0.0.3"}]',
            "EMASS_ENGINE__AMBIGUOUS": "hold",
            "EMASS_ENGINE__SITE": '[{connections = "2..5"}]',
            "EMASS_CONFIG": "is no override",
            "PATH": "/bin",
        },
    )
    assert config.engine.smtp_port == 2626
    assert (config.engine.retry.first, config.engine.retry.factor) == (7, 3)
    assert config.node.name == "7"
    assert config.resolver.allow_private
    assert config.resolver.servers[0].port == 54
    assert config.engine.source[0].name == "x"
    assert config.engine.ambiguous is AmbiguousPolicy.HOLD
    assert config.engine.site == (SiteRule(connections=CountRange(2, 5)),)


def test_tables_of_other_packages_are_left_to_them(tmp_path: Path) -> None:
    path = write(tmp_path, "[landing]\nport = 80\n")
    assert load_config(path, {}, others={"landing"}).engine == Config().engine
    with pytest.raises(ConfigError, match="unknown table"):
        load_config(path, {})


@pytest.mark.parametrize(
    ("text", "table", "key", "problem", "hint"),
    [
        ("[engine]\nsmtp_prot = 25", "engine", "smtp_prot", "unknown key", 'did you mean "smtp_port"?'),
        ("[engin]\nsmtp_port = 25", "", "engin", "unknown table", 'did you mean "engine"?'),
        (
            "[engine]\nallow_private = true",
            "engine",
            "allow_private",
            "unknown key",
            "it belongs in [resolver]",
        ),
        ("[engine]\njitter = 1", "engine", "jitter", "unknown key", "it belongs in [engine.retry]"),
        ("[bus]\nxyzzy = 1", "bus", "xyzzy", "unknown key", "known here: ca_file"),
        ('[engine]\nsmtp_port = "25"', "engine", "smtp_port", "a whole number, not a text", ""),
        ("[engine]\nsmtp_port = 0", "engine", "smtp_port", "from 1 to 65535", ""),
        ("[engine]\nconnections_max = 0", "engine", "connections_max", "from 1 to", ""),
        ('[engine]\nambiguous = "retri"', "engine", "ambiguous", '"retry", "hold"', 'did you mean "retry"?'),
        ("[engine.retry]\nfirst = 300", "engine.retry", "first", "15 min", ""),
        ('[engine.retry]\nfirst = "5 h"', "engine.retry", "first", "longer than max (4 h)", ""),
        ("[engine.retry]\nfactor = 0.5", "engine.retry", "factor", "from 1 to 10", ""),
        ('[engine.retry]\nexpire_after = "1 s"', "engine.retry", "expire_after", "not longer than first", ""),
        ('[engine]\nprepared_bytes_max = "1 KB"', "engine", "prepared_bytes_max", "at least 1 MB", ""),
        ('[[engine.source]]\naddress = "::1"', "engine.source[0]", "name", "is missing", ""),
        ('[[engine.source]]\nname = "a"\naddress = "x"', "engine.source[0]", "address", "IPv4", ""),
        ('[[engine.source]]\nname = "a"\nehlo_name = "x"', "engine.source[0]", "ehlo_name", "no dot", ""),
        ('[[engine.source]]\nname = "a"\n[[engine.source]]\nname = "a"', "engine", "source", "twice", ""),
        ('[[engine.site]]\nmx = "a"\ndomain = "b"', "engine.site[0]", "mx", "one key", ""),
        ("[[engine.site]]\nconections = 3", "engine.site[0]", "conections", "unknown key", '"connections"?'),
        ('[[engine.site]]\nrate = "100"', "engine.site[0]", "rate", "100/min", ""),
        ('[[engine.site]]\ntls = "yes"', "engine.site[0]", "tls", '"never"', ""),
        ("[[engine.site]]\nconnections = 3000", "engine", "site", "exceed connections_max", ""),
        ("[[engine.site]]\nconnections = 0", "engine.site[0]", "connections", "at least 1", ""),
        ('[[engine.site]]\nconnections = "5..2"', "engine.site[0]", "connections", "floor (5) above", ""),
        ("[[engine.site]]\nconnections = [2, 5]", "engine.site[0]", "connections", '"2..10"', ""),
        ('[[engine.site]]\nrate = "2/s..1/s"', "engine.site[0]", "rate", "floor (2/s) above", ""),
        ('[[engine.site]]\nworkspace = "a"\ntls = "never"', "engine.site[0]", "tls", "every workspace", ""),
        ("[[engine.share]]\nweight = 3.0", "engine.share[0]", "workspace", "workspace or campaign", ""),
        (
            '[[engine.share]]\nworkspace = "a"\n' * 2,
            "engine",
            "share",
            "'workspace a' stands there twice",
            "",
        ),
        ('[[engine.warmup]]\nsource = "a"', "engine.warmup[0]", "per_day", "is missing", ""),
        ('[[engine.provider]]\nname = "a"', "engine.provider[0]", "mx", "hosts or domains", ""),
        (
            "[engine]\nconnections = 5",
            "engine",
            "connections",
            "unknown key",
            "[engine.relay] or [engine.site]",
        ),
        ("[engine]\nshaping = 5", "engine", "shaping", "the path of a file", ""),
        ("[resolver]\nservers = []", "resolver", "servers", "at least one", ""),
        ('[resolver]\nservers = ["1.1.1.1"]', "resolver", "servers[0]", "has no port", ""),
        ('[limits]\ndisk_stop = "3 GB"', "limits", "disk_stop", "not below disk_refuse", ""),
        ('[limits]\nballast = "1 GB"', "limits", "ballast", "larger than disk_stop", ""),
        (f'[keys]\nmaster = "{"ab" * 32}"', "keys", "master", "holds the key itself", ""),
        (
            '[[keys.dkim]]\nname = "a"\nfile = "-----BEGIN PRIVATE KEY-----"',
            "keys.dkim[0]",
            "file",
            "holds the key itself",
            "",
        ),
        ('[node]\nname = "a b"', "node", "name", "letters", ""),
        ("node = 3", "", "node", "must be a table, not a whole number", ""),
        ("[node", "", "", "is not TOML", ""),
    ],
)
def test_every_mistake_names_file_table_key_and_a_hint(
    tmp_path: Path, text: str, table: str, key: str, problem: str, hint: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    error = caught.value
    assert (error.file, error.table, error.key) == (str(path), table, key)
    assert problem in error.problem
    assert hint in error.hint
    assert "\n" not in str(error)
    assert str(error).startswith(str(path))


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("EMASS_ENGINE__SMTP_PROT", "25", "unknown key"),
        ("EMASS_ENGINE__SMTP_PORT", "many", "whole number"),
        ("EMASS_ENGINE__RETRY__FIRST", "5", "15 min"),
        ("EMASS_ENGINE__", "5", "EMASS_<TABLE>__<KEY>"),
        ("EMASS_ENGINE__SMTP_PORT__X", "5", "is no table"),
        ("EMASS_NOTHING__X", "5", "unknown table"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    tmp_path: Path, variable: str, value: str, problem: str
) -> None:
    path = write(tmp_path, "[engine]\nsmtp_port = 26\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, {variable: value})
    assert problem in str(caught.value)
    assert variable in str(caught.value) or "unknown table" in str(caught.value)


def test_a_missing_or_undecodable_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "none.toml", {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path, {})
    path = tmp_path / "emass.toml"
    path.write_bytes(b'[node]\nname = "\xff"\n')
    with pytest.raises(ConfigError, match="line 2 is not UTF-8"):
        load_config(path, {})


def test_a_replaced_table_is_checked_again() -> None:
    with pytest.raises(ValueError, match="disk_stop"):
        replace(Config().limits, disk_refuse=Config().limits.disk_stop)


# --- the file of shaping that an operator writes ----------------------------------------------------------


def test_the_shaping_file_is_read_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        """
        version = 1
        [[provider]]
        name = "mine"
        mx = ["mx.mine.example"]
        [[site]]
        provider = "mine"
        connections = "2..4"
        """
    )
    config = load_config(write(tmp_path, '[engine]\nshaping = "mine.toml"\n'), {})
    assert config.engine.shaping == str(tmp_path.resolve() / "mine.toml")
    file = config.engine.shaping.file
    assert file is not None
    assert file.provider == (ProviderRule(name="mine", mx=("mx.mine.example",)),)
    assert file.site == (SiteRule(provider="mine", connections=CountRange(2, 4)),)
    named = load_config(None, {"EMASS_ENGINE__SHAPING": str(tmp_path / "mine.toml")})
    assert named.engine.shaping.file == file


@pytest.mark.parametrize(
    ("text", "table", "key", "problem", "hint"),
    [
        ("version = 7", "", "version", "must be 1", ""),
        ("[[site]]\nconections = 3", "site[0]", "conections", "unknown key", 'did you mean "connections"?'),
        ("[[sites]]\nconnections = 3", "", "sites", "unknown table", 'did you mean "site"?'),
        ("[[provider]]\nconnections = 3", "provider[0]", "connections", "unknown key", "belongs in [site]"),
        ('[[site]]\n[[site]]\ntls = "requird"', "site[1]", "tls", '"required"', '"required"?'),
        ('[[site]]\nrate = "5"', "site[0]", "rate", "100/min", ""),
        ("[[site]", "", "", "is not TOML", ""),
    ],
)
def test_a_mistake_in_the_shaping_file_is_named_there(
    tmp_path: Path, text: str, table: str, key: str, problem: str, hint: str
) -> None:
    shaping = tmp_path / "mine.toml"
    shaping.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, '[engine]\nshaping = "mine.toml"\n'), {})
    error = caught.value
    assert (error.file, error.table, error.key) == (str(shaping.resolve()), table, key)
    assert problem in error.problem
    assert hint in error.hint


def test_a_shaping_file_that_is_not_there_says_who_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine.toml: does not exist \(\[engine\] shaping names it\)"):
        load_config(write(tmp_path, '[engine]\nshaping = "mine.toml"\n'), {})


def test_a_shaping_file_of_thousands_of_rules_is_read(tmp_path: Path) -> None:
    path = tmp_path / "big.toml"
    path.write_text("".join(f'[[site]]\ndomain = "d{i}.example"\nconnections = 3\n' for i in range(2_000)))
    assert len(load_shaping(path).site) == 2_000


def test_a_rule_is_read_from_texts() -> None:
    said = {"provider": "lamp", "connections": "2..4", "pipelining": "false", "retry_factor": "1.5"}
    rule = parse_rule(said)
    assert (rule.provider, rule.pipelining, rule.retry_factor) == ("lamp", False, 1.5)
    assert str(rule.connections) == "2..4"
    with pytest.raises(
        ConfigError, match=r'override: conections: unknown key \(did you mean "connections"\?\)'
    ):
        parse_rule({"conections": "4"}, "override")
