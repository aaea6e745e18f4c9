"""Replies to be judged, one JSON object per line, and how well judgements agree with given answers.

A row has `text` and, where known, `provider`, `reply`, `status`, `verb`; rows of a corpus carry their
answer as `category` (and `group`, `also_accepted`). A line that cannot be used is told with its number
and a cure, and the next one is read: a log of a million lines is not thrown away for one.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct

from engine.model.category import TREATMENTS, Category, Group
from engine.model.reply import Verb
from engine.mta.policy.classify import Judge, Verdict
from engine.mta.policy.reply_lint import Sample

LINE_OCTETS_MAX = 1024 * 1024  # of one row; the longest replies are a few KB

_VERB_WORDS = {
    "rcpt to": Verb.RCPT,
    "mail from": Verb.MAIL,
    "end of data": Verb.CONTENT,
    "body": Verb.CONTENT,
    "greeting": Verb.BANNER,
}


class Row(Struct, frozen=True):
    """One line of a file: the reply, and the answer where the row carries one."""

    sample: Sample
    categories: frozenset[str] = frozenset()  # each is right
    groups: frozenset[str] = frozenset()


class BadLine(Struct, frozen=True):
    number: int
    problem: str
    cure: str


def read_rows(lines: Iterable[bytes]) -> Iterator[Row | BadLine]:
    """Every line as a row, or as what is wrong with it; empty lines are passed over."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _row(line, number)


def judge_row(judge: Judge, sample: Sample) -> Verdict:
    """The verdict on one row."""
    return judge.text(
        sample.text,
        provider=sample.provider,
        reply_code=sample.code,
        enhanced=sample.enhanced,
        verb=sample.verb,
    )


class Score:
    """Counts agreement with the answers that rows carry."""

    def __init__(self) -> None:
        self.rows = self.group_right = self.category_right = 0
        self.not_address = self.wrongly_address = self.address = self.address_missed = 0

    def add(self, row: Row, verdict: Verdict) -> None:
        if not row.groups:
            return
        self.rows += 1
        group = verdict.group.value
        self.group_right += group in row.groups
        self.category_right += not row.categories or verdict.category.value in row.categories
        if Group.ADDRESS.value in row.groups:
            self.address += 1
            self.address_missed += group not in row.groups
        else:
            self.not_address += 1
            self.wrongly_address += group == Group.ADDRESS.value

    def facts(self) -> dict[str, float]:
        """Counts and shares; a share of nothing is 0."""
        return {
            "rows": self.rows,
            "group_right": _share(self.group_right, self.rows),
            "category_right": _share(self.category_right, self.rows),
            "wrongly_address": _share(self.wrongly_address, self.not_address),
            "address_missed": _share(self.address_missed, self.address),
        }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _row(line: bytes, number: int) -> Row | BadLine:
    if len(line) > LINE_OCTETS_MAX:
        return BadLine(number, f"is longer than {LINE_OCTETS_MAX} octets", "cut the text")
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError:
        return BadLine(number, "is not UTF-8", "convert the file, for example with iconv -t utf-8")
    except (ValueError, RecursionError) as error:
        return BadLine(
            number, f"is not JSON: {error}", 'one object per line, like {"text": "550 No such user"}'
        )
    if not isinstance(row, dict):
        return BadLine(number, "is no JSON object", 'like {"text": "550 No such user"}')
    try:
        return _read(row)
    except _Wrong as wrong:
        return BadLine(number, wrong.problem, wrong.cure)


class _Wrong(Exception):
    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(problem)
        self.problem, self.cure = problem, cure


def _read(row: dict[str, Any]) -> Row:
    text = row.get("text", row.get("fragment"))
    if not isinstance(text, str):
        raise _Wrong("has no text", 'add "text": the reply as the server sent it')
    provider = row.get("provider")
    if provider is not None and not isinstance(provider, str):
        raise _Wrong("has a provider that is no text", 'a name like "google", or leave it out')
    categories = [row.get("category"), *(row.get("also_accepted") or ())]
    known = {category.value: category for category in Category}
    right = [known[one] for one in categories if isinstance(one, str) and one in known]
    groups = {TREATMENTS[one].group.value for one in right}
    if not right and isinstance(row.get("group"), str):
        groups = {row["group"]}
    return Row(
        Sample(text, provider, _code(row.get("reply")), _status(row.get("status")), _verb(row.get("verb"))),
        frozenset(one.value for one in right),
        frozenset(groups),
    )


def _code(value: object) -> int | None:
    if value is None or value == "":
        return None
    if (
        isinstance(value, int | str)
        and str(value).isascii()
        and str(value).isdigit()
        and len(str(value)) == 3
    ):
        return int(value)
    raise _Wrong(f"has the reply {value!r}", "a code of three digits, or leave it out")


def _status(value: object) -> tuple[int, int, int] | None:
    if value is None or value == "":
        return None
    parts = value.split(".") if isinstance(value, str) else []
    if len(parts) == 3 and all(p.isascii() and p.isdigit() and len(p) <= 3 for p in parts):
        return int(parts[0]), int(parts[1]), int(parts[2])
    raise _Wrong(f"has the status {value!r}", 'an enhanced code like "5.1.1", or leave it out')


def _verb(value: object) -> Verb | None:
    if value is None or value == "":
        return None
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in _VERB_WORDS:
        return _VERB_WORDS[word]
    try:
        return Verb(word)
    except ValueError:
        choices = ", ".join(verb.value for verb in Verb)
        raise _Wrong(f"has the verb {value!r}", f"one of {choices}; or leave it out") from None
