"""`python -m bench replies`: its facts, and how accuracy is told where the corpora are."""

from argparse import Namespace
from pathlib import Path

import pytest

from bench import replies
from engine.config.replies import load_reply_rules
from engine.mta.policy.classify import Judge


@pytest.mark.slow
def test_it_measures_both_ways_and_says_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(replies, "_ROUNDS", 1)
    monkeypatch.setattr(replies, "_CORPUS", tmp_path)
    facts = replies.run(Namespace(messages=1))
    assert facts["messages"] == facts["texts"]
    for key in ("replies_per_second", "replies_per_second_cached", "rules", "cores", "ready_ms"):
        assert facts[key]
    assert "train" not in facts


def test_accuracy_is_told_for_each_corpus_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "550 User unknown", "category": "bad-mailbox"}\n')
    told = replies.accuracy(Judge(load_reply_rules()), tmp_path)
    assert list(told) == ["train"]
    assert told["train"]["group_right"] == 1.0


def test_every_text_of_a_round_is_another() -> None:
    assert len({replies._word(n) for n in range(10_000)}) == 10_000
