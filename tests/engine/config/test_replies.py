"""Rule files: every mistake is one line with file, table, key and hint; the operator's rules come first."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import ConfigError
from engine.config.replies import RULES_MAX, ReplyRule, load_reply_rules, parse_reply_rules
from engine.config.shaping import builtin_shaping
from engine.model.category import Category

RULE = 'version = "1"\n[[rule]]\nid = "full"\ncategory = "mailbox-full"\nany = ["is full"]\n'


def test_the_built_in_rules_load_and_have_samples() -> None:
    rules = load_reply_rules()
    assert len(rules.rules) > 100
    assert [rule.id for rule in rules.rules if not rule.samples] == []
    assert len(rules.providers) >= 25


def test_a_rule_is_what_the_file_says() -> None:
    rules = parse_reply_rules(RULE)
    assert rules.rules == (ReplyRule(id="full", category=Category.MAILBOX_FULL, any=("is full",)),)


def test_a_set_of_words_is_written_out_where_a_phrase_names_it() -> None:
    rules = parse_reply_rules(
        RULE.replace("is full", "@box is|was full") + '[words]\nbox = ["inbox", "mailb*"]\n'
    )
    assert rules.rules[0].any == ("inbox|mailb* is|was full",)


@pytest.mark.parametrize(
    ("text", "table", "key", "told"),
    [
        ("[[rule]\nid=1", "", "", "is not TOML"),
        (RULE.replace('version = "1"\n', ""), "", "version", "is missing"),
        (RULE + "anny = []\n", "rule full", "anny", 'did you mean "any"?'),
        (RULE + '[[rules]]\nid = "x"\n', "", "rules", 'did you mean "rule"?'),
        (
            RULE.replace("mailbox-full", "mailbox-ful"),
            "rule full",
            "category",
            'did you mean "mailbox-full"?',
        ),
        (RULE.replace('id = "full"\n', ""), "rule number 1", "id", "is missing"),
        (RULE + RULE.partition("\n")[2], "rule full", "id", "is there twice"),
        (RULE.replace('any = ["is full"]', ""), "rule full", "", "matches everything"),
        (RULE.replace("is full", "Is full"), "rule full", "any", "capitals"),
        (RULE.replace("is full", "is  full"), "rule full", "any", "single spaces"),
        (RULE.replace("is full", "is full!"), "rule full", "any", "is no phrase"),
        (RULE.replace("is full", "... full"), "rule full", "any", "begins or ends open"),
        (RULE.replace("is full", "@bx full"), "rule full", "any", "is no set of [words]"),
        (RULE + 'codes = ["55"]\n', "rule full", "codes", "is no reply code"),
        (RULE + 'enhanced = ["5.1"]\n', "rule full", "enhanced", "is no enhanced code"),
        (RULE + 'verbs = ["rcp"]\n', "rule full", "verbs", 'did you mean "rcpt"?'),
        (RULE + 'pattern = "(a+)+"\n', "rule full", "pattern", "could take very long"),
        (RULE + "retry_seconds = 0\n", "rule full", "retry_seconds", ">= 1"),
        (RULE + 'provider = "gogle"\n[[provider]]\nname = "google"\n', "rule full", "provider", '"google"?'),
        (
            RULE + '[[list]]\nname = "x"\nkind = "ipp"\nwords = ["x"]\n',
            "list x",
            "kind",
            'did you mean "ip"?',
        ),
    ],
)
def test_a_mistake_is_named_with_file_table_key_and_hint(text: str, table: str, key: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_reply_rules(text, "mine.toml")
    error = refused.value
    assert (error.file, error.table, error.key) == ("mine.toml", table, key)
    assert told in str(error)


def test_too_many_rules_are_refused() -> None:
    rule = '[[rule]]\nid = "r{}"\ncategory = "policy"\nany = ["x"]\n'
    text = 'version = "1"\n' + "".join(rule.format(n) for n in range(RULES_MAX + 1))
    with pytest.raises(ConfigError, match="more than"):
        parse_reply_rules(text)


def test_the_operators_rules_come_before_the_built_in_ones(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(RULE)
    rules = load_reply_rules(path)
    assert rules.rules[0].id == "full"
    assert rules.rules[1:] == load_reply_rules().rules
    assert rules.version == f"1+{load_reply_rules().version}"


def test_the_operators_file_may_use_the_built_in_sets_and_replace_a_provider(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        RULE.replace("is full", "@person is full") + '[[provider]]\nname = "google"\nhosts = ["g.test"]\n'
    )
    rules = load_reply_rules(path)
    assert "mailbox" in rules.rules[0].any[0]
    assert [one.hosts for one in rules.providers if one.name == "google"] == [("g.test",)]


def test_a_built_in_id_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(RULE.replace('"full"', f'"{load_reply_rules().rules[0].id}"'))
    with pytest.raises(ConfigError, match="is a built-in rule's"):
        load_reply_rules(path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x = [" * 200_000, b'version = "1"'])
def test_a_broken_file_is_a_config_error_or_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    if content.startswith(b"version"):
        assert load_reply_rules(path).rules == load_reply_rules().rules
    else:
        with pytest.raises(ConfigError, match=r"mine\.toml"):
            load_reply_rules(path)


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_reply_rules(tmp_path / "none.toml")


@given(st.text(max_size=200))
def test_any_text_gives_rules_or_a_config_error(text: str) -> None:
    with suppress(ConfigError):
        parse_reply_rules(text)


def test_who_is_known_by_shaping_and_by_replies_has_one_name() -> None:
    """Shaping parts providers by their limits, replies by their dialect: these alone differ, on purpose."""
    finer = {
        "microsoft-dane": "microsoft",
        "mail-com": "gmx",
        "ionos": "gmx",
        "proofpoint-essentials": "proofpoint",
    }
    limits = {host: rule.name for rule in builtin_shaping().provider for host in (*rule.mx, *rule.hosts)}
    for provider in load_reply_rules().providers:
        for host in provider.hosts:
            name = limits.get(host, provider.name)
            assert finer.get(name, name) == provider.name, host
