"""Accuracy on real replies: the development half of the corpus, where it lies beside the repository.

The figures are floors, below what was measured, so that a rule that helps one reply and harms three is seen.
"""

from pathlib import Path

import pytest

from control.cli.reply_rows import Row, Score, judge_row, read_rows
from engine.config.replies import load_reply_rules
from engine.mta.policy.classify import Judge


@pytest.mark.parametrize(
    ("name", "group", "category", "wrongly_address"),
    [
        ("train", 0.95, 0.90, 0.010),
        ("fragments-train", 0.87, 0.75, 0.020),  # parts of replies, without codes and context
        ("zonemta-train", 0.97, 0.88, 0.0),
    ],
)
def test_corpus_of_replies_is_classified_as_people_did(
    corpora: Path, name: str, group: float, category: float, wrongly_address: float
) -> None:
    path = corpora / "smtp-replies" / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"corpora absent: {path}; cure: put the corpora folder there")
    judge, score = Judge(load_reply_rules()), Score()
    with path.open("rb") as file:
        for row in read_rows(file):
            assert isinstance(row, Row)
            score.add(row, judge_row(judge, row.sample))
    facts = score.facts()
    print(name, facts)
    assert facts["group_right"] >= group
    assert facts["category_right"] >= category
    assert facts["wrongly_address"] <= wrongly_address
