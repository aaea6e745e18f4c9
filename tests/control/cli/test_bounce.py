"""`emass bounce`: replies in, verdicts out, one JSON line each; rules listed and checked."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from control.cli.__main__ import run

OWN = 'version = "7"\n[[rule]]\nid = "own"\ncategory = "policy"\nany = ["purple"]\nsamples = ["550 Purple"]\n'


@pytest.fixture
def replies(tmp_path: Path) -> Path:
    path = tmp_path / "replies.jsonl"
    path.write_text(
        '{"text": "550 5.1.1 User unknown", "category": "bad-mailbox"}\n'
        '{"text": "451 4.7.1 Greylisted, try again in 10 minutes", "verb": "rcpt"}\n'
    )
    return path


def test_each_reply_is_one_json_line_in_order(replies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bounce", "classify", "--replies", str(replies)]) == 0
    told = capsys.readouterr()
    first, second = (json.loads(line) for line in told.out.splitlines())
    assert (first["category"], first["group"], first["class"], first["action"]) == (
        "bad-mailbox",
        "address",
        "hard",
        "suppress",
    )
    assert first["rule"]
    assert first["matched"] == "user unknown"
    assert (second["category"], second["retry_after_seconds"]) == ("greylisted", 600.0)
    assert "1 answers: group right 100.0%" in told.err


def test_a_pipe_is_read_and_the_score_can_be_json(
    replies: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(replies.read_bytes())))
    assert run(["bounce", "classify", "--replies", "-", "--json"]) == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 2
    assert json.loads(told.err.removeprefix("emass: "))["group_right"] == 1.0


def test_a_bad_line_is_told_with_its_number_and_the_rest_is_judged(
    replies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replies.write_text("nonsense\n" * 30 + replies.read_text())
    assert run(["bounce", "classify", "--replies", str(replies)]) == 1
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 2
    assert f"{replies} line 1 is not JSON" in told.err
    assert "... and 10 more lines that cannot be used" in told.err


def test_mails_are_not_classified_yet_and_a_missing_file_is_named(
    replies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bounce", "classify", str(replies)]) == 2
    assert "--replies" in capsys.readouterr().err
    assert run(["bounce", "classify", "--replies", "none.jsonl"]) == 2
    assert "none.jsonl: no such file" in capsys.readouterr().err


def test_the_operators_rules_decide_first(
    replies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.toml"
    own.write_text(OWN.replace("purple", "user unknown").replace("Purple", "User unknown"))
    assert run(["bounce", "classify", "--replies", str(replies), "--rules", str(own)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["rule"] == "own"


def test_rules_that_cannot_be_used_are_refused_with_file_table_key_and_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.toml"
    own.write_text(OWN.replace('"policy"', '"polcy"'))
    for arguments in (["rules"], ["classify", "--replies", "-"]):
        assert run(["bounce", *arguments, "--rules", str(own)]) == 2
        told = capsys.readouterr().err
        assert f"{own}: [rule own] category" in told
        assert 'did you mean "policy"?' in told


@pytest.mark.slow
def test_the_rules_are_listed_and_clean(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bounce", "rules"]) == 0
    told = capsys.readouterr().out
    assert "unknown-user" in told
    assert "Every sample is decided by its own rule" in told


def test_a_stray_sample_fails_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.toml"
    own.write_text(OWN.replace("Purple", "Green"))
    assert run(["bounce", "rules", "--rules", str(own), "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["rules"][0]["id"] == "own"
    assert facts["findings"][0] == {
        "severity": "error",
        "rule": "own",
        "problem": "does not fit its own sample",
        "hint": "sample: 550 Green",
    }


@pytest.mark.slow
def test_lint_counts_the_replies_as_samples(
    replies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.toml"
    own.write_text(OWN)
    replies.write_text('{"text": "550 purple rain"}\n')
    assert run(["bounce", "classify", "--replies", str(replies), "--rules", str(own), "--lint"]) == 0
    assert "own" not in capsys.readouterr().err.replace(str(own), "")
    own.write_text(OWN.replace("Purple", "Green"))
    assert run(["bounce", "classify", "--replies", str(replies), "--rules", str(own), "--lint"]) == 1
    assert "error: own does not fit its own sample" in capsys.readouterr().err
