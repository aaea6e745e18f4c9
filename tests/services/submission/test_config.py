"""`[submission]` from file and environment, and what its values may not be."""

from pathlib import Path

import pytest

from engine.config import ConfigError, load_config
from engine.model.content import DkimAlgorithm, DkimIdentity
from services.submission.config import DkimRule, DomainRule, SubmissionTable, load_submission

TABLE = """
[node]
name = "a"

[submission]
listen = ["127.0.0.1:5870"]
tls_cert = "cert.pem"
tls_key = "key.pem"
size_max = "5 MB"
messages_per_account = "100/min"
expire_after = "2 h"

[[submission.domain]]
name = "shop.test"
return_path = "bounce.shop.test"
dkim = [{ key = "rsa", selector = "s1" }, { key = "ed", selector = "e1", algorithm = "ed25519-sha256" }]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "emass.toml").write_text(TABLE)
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("")
    return tmp_path


def test_the_table_is_read_with_its_files_resolved(folder: Path) -> None:
    config, table = load_submission(folder / "emass.toml", {"EMASS_SUBMISSION__WORKERS": "3"})
    assert config.node.name == "a"
    assert (table.workers, table.size_max, table.expire_after) == (3, 5_000_000, 7_200.0)
    assert table.messages_per_account.per_second == pytest.approx(100 / 60)
    assert table.tls_cert == str(folder / "cert.pem")
    assert table.accounts == str(folder / "keys" / "accounts.json")
    rule = table.rule("shop.test")
    assert rule is not None
    assert rule.identities() == (
        DkimIdentity("shop.test", "s1", "rsa"),
        DkimIdentity("shop.test", "e1", "ed", DkimAlgorithm.ED25519_SHA256),
    )
    assert table.rule("other.test") is None


def test_the_engine_leaves_the_table_alone(folder: Path) -> None:
    assert load_config(folder / "emass.toml", {}).node.name == "a"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("size_max", "sise_max", r"\[submission\] sise_max: unknown key \(did you mean \"size_max\"\?\)"),
        ('"5 MB"', '"11 MB"', "size_max: must be from 1 KB to 10 MB"),
        ('"100/min"', '"often"', "messages_per_account: is no rate"),
        ('"shop.test"', '"Shop.test"', "name: is not in lower-case A-labels: write shop.test"),
        ('"bounce.shop.test"', '"no domain"', "return_path:"),
        (', selector = "s1"', "", "selector: is missing"),
        ('"cert.pem"', '"none.pem"', r"tls_cert: names no file: .*none\.pem"),
        ('tls_key = "key.pem"\n', "", r"tls_key: is not set \(passwords are taken over TLS only"),
        ('["127.0.0.1:5870"]', "[]", "listen: and listen_tls are both empty"),
        (
            "[[submission.domain]]",
            '[[submission.domain]]\nname = "shop.test"\n[[submission.domain]]',
            "twice",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(folder: Path, old: str, new: str, why: str) -> None:
    (folder / "emass.toml").write_text(TABLE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=why):
        load_submission(folder / "emass.toml", {})


@pytest.mark.parametrize(
    "facts",
    [
        {"workers": 0},
        {"workers": 65},
        {"recipients_max": 0},
        {"connections_max": 0},
        {"connections_per_address": 0},
        {"idle_timeout": 0.0},
        {"durable_timeout": 0.0},
        {"expire_after": 1.0},
        {"fan_out_max": 1},
        {"hostname": "not a host"},
    ],
)
def test_impossible_values_are_refused(facts: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(facts))):
        SubmissionTable(**facts)  # type: ignore[arg-type]


def test_a_signature_may_be_another_domains() -> None:
    rule = DomainRule(name="shop.test", dkim=(DkimRule(key="k", selector="s", domain="platform.test"),))
    assert [identity.domain for identity in rule.identities()] == ["platform.test"]
