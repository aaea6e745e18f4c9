"""`emass config check` and `show`."""

import json
import re
from pathlib import Path

import pytest

from control.cli.__main__ import run
from engine.keyring import write_secret


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMASS_CONFIG", raising=False)
    return tmp_path / "emass.toml"


def test_a_correct_file_is_said_to_be(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "check"]) == 0
    assert "the defaults hold" in capsys.readouterr().out
    file.write_text("[engine]\nsmtp_port = 26\n")
    assert run(["config", "check"]) == 0
    assert capsys.readouterr().out == f"{file}: correct\n"


def test_the_file_may_be_named_by_option_or_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMASS_CONFIG", "other.toml")
    assert run(["config", "check"]) == 2
    assert "other.toml: does not exist" in capsys.readouterr().err
    file.write_text("")
    assert run(["config", "check", "--config", str(file)]) == 0


def test_a_mistake_is_one_line_and_exit_code_2(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("[engine]\nsmtp_prot = 26\n")
    assert run(["config", "check"]) == 2
    assert (
        capsys.readouterr().err
        == f'emass: {file}: [engine] smtp_prot: unknown key (did you mean "smtp_port"?)\n'
    )
    assert run(["config", "check", "--json"]) == 2
    facts = json.loads(capsys.readouterr().out)
    assert (facts["ok"], facts["table"], facts["key"]) == (False, "engine", "smtp_prot")


def test_a_key_file_that_is_missing_or_open_to_others_is_found(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text('[[keys.dkim]]\nname = "a"\nfile = "a.pem"\n')
    assert run(["config", "check"]) == 2
    assert "[keys.dkim[0]] file" in capsys.readouterr().err
    key = file.parent / "keys" / "a.pem"
    key.parent.mkdir()
    key.write_text("x")
    key.chmod(0o644)
    assert run(["config", "check"]) == 2
    assert "chmod 600" in capsys.readouterr().err
    key.chmod(0o600)
    assert run(["config", "check"]) == 0


def test_the_table_of_submission_is_looked_at_its_files_where_it_runs(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("[submission]\nworkers = 0\n")
    assert run(["config", "check"]) == 2
    assert "[submission] workers: must be from 1 to 64" in capsys.readouterr().err
    file.write_text("[submission]\nworkers = 1\n")
    assert run(["config", "check"]) == 0
    file.write_text('[node]\nruns = ["submission"]\n[submission]\ntls_cert = "tls/chain.pem"\n')
    assert run(["config", "check"]) == 2
    assert f"tls_cert: names no file: {file.parent / 'tls' / 'chain.pem'}" in capsys.readouterr().err


def test_a_rule_that_cannot_work_is_named_and_exit_code_2(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text('[[engine.site]]\nprovider = "gogle"\nconnections = 3\n')
    assert run(["config", "check"]) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith("error: emass.toml: [[engine.site]] 1 (provider gogle): never matches")
    assert captured.err == f"emass: {file}: 1 of the rules for receivers cannot work\n"
    assert run(["config", "check", "--json"]) == 2
    facts = json.loads(capsys.readouterr().out)
    assert not facts["ok"]
    assert facts["shaping"][0] | {"text": ""} == {
        "level": "error",
        "layer": "emass.toml",
        "where": "[[engine.site]] 1 (provider gogle)",
        "text": "",
        "cure": 'did you mean "google"?',
    }


def test_warnings_are_shown_and_do_no_harm(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text('[engine]\nshaping = "mine.toml"\n[[engine.site]]\nmx = "mx.a.test"\n')
    file.with_name("mine.toml").write_text('[[site]]\nmx = "mx.b.test"\nconnections = 3\n')
    assert run(["config", "check"]) == 0
    warning, last = capsys.readouterr().out.splitlines()
    assert warning.startswith(
        "warning: emass.toml: [[engine.site]] 1 (mx mx.a.test): matches and says nothing"
    )
    assert last == f"{file}: correct"
    assert run(["config", "check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]


def test_a_mistake_in_the_shaping_file_is_named_there(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text('[engine]\nshaping = "mine.toml"\n')
    file.with_name("mine.toml").write_text("[[site]]\nconections = 3\n")
    assert run(["config", "check"]) == 2
    assert "mine.toml: [site[0]] conections: unknown key" in capsys.readouterr().err


def test_the_examples_of_a_fresh_file_work_together(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from engine.config import render_commented_default

    text = re.sub(r"(?m)^#   (?=\S)", "", render_commented_default())
    keys = re.search(r"(?s)\[\[keys.dkim\]\].*?\n\n", text)
    assert keys is not None
    file.write_text(text.replace(keys[0], ""))
    (file.parent / "keys").mkdir()
    for name in ("socks.password", "smart.password"):
        assert run(["config", "check"]) == 2
        assert f"{name} does not exist" in capsys.readouterr().err
        write_secret(file.parent / "keys" / name, b"secret\n")
    assert run(["config", "check"]) == 0
    assert "error" not in capsys.readouterr().out


def test_what_dns_says_of_our_names_is_a_warning(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def names(resolver: object, sources: object) -> dict[str, tuple[str, ...]]:
        return {"ip-1": ("11.22.33.44 has no PTR record",), "ip-2": ()}

    monkeypatch.setattr("engine.mta.net.fcrdns.check_names", names)
    assert run(["config", "check", "--dns"]) == 0
    out = capsys.readouterr().out
    assert "warning: source ip-1: 11.22.33.44 has no PTR record" in out
    assert "note: source ip-2: its address and EHLO name prove each other" in out
    assert run(["config", "check", "--dns", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["names"]["ip-1"] == ["11.22.33.44 has no PTR record"]


def test_without_a_public_address_there_is_nothing_to_ask(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text('[[engine.source]]\nname = "a"\naddress = "10.0.0.1"\n')
    assert run(["config", "check", "--dns"]) == 0
    assert "no source has a public address" in capsys.readouterr().out
    assert run(["config", "check"]) == 0
    assert "public address" not in capsys.readouterr().out


def test_show_prints_what_was_set_and_resolved_prints_all(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["config", "show"]) == 0
    assert capsys.readouterr().out.startswith("#")
    file.write_text("[engine]\nsmtp_port = 26\n")
    monkeypatch.setenv("EMASS_RESOLVER__TIMEOUT", "7 s")
    assert run(["config", "show"]) == 0
    assert capsys.readouterr().out == (
        "[engine]\nsmtp_port = 26  # from file\n\n"
        '[resolver]\ntimeout = "7 s"  # from EMASS_RESOLVER__TIMEOUT\n'
    )
    assert run(["config", "show", "--resolved"]) == 0
    assert 'spool_map = "64 GB"' in capsys.readouterr().out
    assert run(["config", "show", "--resolved", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["resolver"]["timeout"] == "7 s"
