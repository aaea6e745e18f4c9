"""Rows of replies: what is read, what is wrong with a line and its cure, and the score."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.cli.reply_rows import LINE_OCTETS_MAX, BadLine, Row, Score, judge_row, read_rows
from engine.config.replies import load_reply_rules
from engine.model.reply import Verb
from engine.mta.policy.classify import Judge
from engine.mta.policy.reply_lint import Sample


def rows(*lines: object) -> list[Row | BadLine]:
    return list(read_rows([one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines]))


def test_a_row_is_read_with_all_that_is_known() -> None:
    full = {"text": "no", "provider": "google", "reply": "550", "status": "5.1.1", "verb": "RCPT TO"}
    assert rows(full) == [Row(Sample("no", "google", 550, (5, 1, 1), Verb.RCPT))]
    assert rows({"text": "no", "reply": 450, "verb": None, "status": ""}) == [Row(Sample("no", None, 450))]


def test_an_answer_names_category_group_and_what_is_also_right() -> None:
    (row,) = rows({"text": "no", "category": "recipient-refused", "also_accepted": ["bad-mailbox"]})
    assert isinstance(row, Row)
    assert row.categories == {"recipient-refused", "bad-mailbox"}
    assert row.groups == {"refused", "address"}
    (row,) = rows({"text": "no", "group": "sender"})
    assert isinstance(row, Row)
    assert row.groups == {"sender"}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is no JSON object"),
        (b'{"text": 7}', "has no text"),
        (b"\xff", "is not UTF-8"),
        (b'{"text": "x", "reply": "55"}', "has the reply '55'"),
        (b'{"text": "x", "status": "5.1"}', "has the status '5.1'"),
        (b'{"text": "x", "verb": "noop"}', "has the verb 'noop'"),
        (b'{"text": "x", "provider": 7}', "has a provider that is no text"),
        (b'{"text": "' + b"x" * LINE_OCTETS_MAX + b'"}', "is longer than"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_a_bad_line_is_told_with_number_and_cure_and_the_next_is_read(line: bytes, problem: str) -> None:
    bad, good = rows(b"", line, {"text": "no"})[-2:]
    assert isinstance(bad, BadLine)
    assert bad.number == 2
    assert bad.problem.startswith(problem)
    assert bad.cure
    assert isinstance(good, Row)


@given(st.binary(max_size=60))
def test_any_line_is_a_row_or_a_bad_line(line: bytes) -> None:
    assert len(rows(line)) <= 1


def test_the_score_counts_groups_categories_and_wrong_suppressions() -> None:
    judge, score = Judge(load_reply_rules()), Score()
    for row in rows(
        {"text": "550 5.1.1 User unknown", "category": "bad-mailbox"},
        {"text": "550 5.1.1 User unknown", "category": "policy"},
        {"text": "552 Mailbox is full", "category": "mailbox-full"},
        {"text": "552 Mailbox is full", "category": "bad-mailbox"},
        {"text": "552 Mailbox is full"},
    ):
        assert isinstance(row, Row)
        score.add(row, judge_row(judge, row.sample))
    assert score.facts() == {
        "rows": 4,
        "group_right": 0.5,
        "category_right": 0.5,
        "wrongly_address": 0.5,
        "address_missed": 0.5,
    }
    assert set(Score().facts().values()) == {0}
