"""How many replies one core can classify: `python -m bench replies`.

Uncached: every text is different in its words, so that the cache of verdicts never helps. Cached: the same
texts with other addresses, IPs and ids, as a big list meets them. The texts are the samples of the
rules with words of their own put in. Where the corpora lie beside the repository, accuracy is told, too.
"""

import argparse
import platform
import re
import time
from pathlib import Path

from bench import machine
from control.cli.reply_rows import Row, Score, judge_row, read_rows
from engine.config.replies import ReplyRules, load_reply_rules
from engine.model.reply import Reply, Verb
from engine.mta.policy.classify import Judge

_ROUNDS = 3  # the best one counts: the others were disturbed
_CORPUS = Path(__file__).parents[2] / "shared" / "corpora" / "smtp-replies"
_FILES = ("train", "fragments-train", "zonemta-train")
_CODES = re.compile(r"(?:(\d{3})[ -])?(?:(\d\.\d{1,3}\.\d{1,3}) )?")
_LETTERS = "bcdfghjklmnpqrstvwxz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=20_000, help="replies per round (default 20,000)")


def run(args: argparse.Namespace) -> dict[str, object]:
    """Replies per second on one core, without and with the cache, and what it costs to begin."""
    started = time.perf_counter()
    rules = load_reply_rules()
    Judge(rules)
    ready = time.perf_counter() - started
    texts = sample_texts(rules)
    count = max(len(texts), args.messages)
    uncached = max(_uncached(rules, texts, count) for _ in range(_ROUNDS))
    cached = max(_cached(rules, texts, count) for _ in range(_ROUNDS))
    return {
        "messages": count,
        "replies_per_second": round(uncached),
        "replies_per_second_cached": round(cached),
        "rules": len(rules.rules),
        "texts": len(texts),
        "ready_ms": round(ready * 1000, 1),
        **accuracy(Judge(rules), _CORPUS),
        "cores": machine.cores(),
        "python": platform.python_version(),
    }


def sample_texts(rules: ReplyRules) -> list[str]:
    """The samples of the built-in rules: real kinds of answers in our own words."""
    return [text for rule in rules.rules for text in rule.samples]


def accuracy(judge: Judge, folder: Path) -> dict[str, dict[str, float]]:
    """Score of each corpus file that is there, under its name; nothing where there is none."""
    found: dict[str, dict[str, float]] = {}
    for name in _FILES:
        path = folder / f"{name}.jsonl"
        if path.is_file():
            score = Score()
            with path.open("rb") as file:
                for row in read_rows(file):
                    if isinstance(row, Row):
                        score.add(row, judge_row(judge, row.sample))
            found[name] = score.facts()
    return found


def _word(number: int) -> str:
    """A word that no rule knows, another for each number."""
    letters = ""
    while number or not letters:
        number, digit = divmod(number, len(_LETTERS))
        letters += _LETTERS[digit]
    return f"x{letters}"


def _uncached(rules: ReplyRules, texts: list[str], count: int) -> float:
    judge = Judge(rules)
    for text in texts:
        judge.text(text)  # regular expressions are compiled on first use, once in a process
    replies = [_reply(texts[n % len(texts)], "", f" {_word(n)}") for n in range(count)]
    return _rate(judge, replies)


def _cached(rules: ReplyRules, texts: list[str], count: int) -> float:
    judge = Judge(rules)
    replies = [
        _reply(texts[n % len(texts)], f"<reader{n}@example.net>: ", f" [192.0.2.{n % 250}]")
        for n in range(count)
    ]
    for reply in replies[: len(texts)]:
        judge.reply(Verb.RCPT, reply)
    return _rate(judge, replies)


def _reply(text: str, before: str, behind: str) -> Reply:
    """A sample as the protocol hands it over: code and enhanced code apart, words put around the rest."""
    found = _CODES.match(text)
    assert found is not None
    enhanced = tuple(int(part) for part in found[2].split(".")) if found[2] else None
    words = f"{before}{text[found.end() :]}{behind}"
    return Reply(int(found[1] or 550), enhanced, (words,))  # type: ignore[arg-type]


def _rate(judge: Judge, replies: list[Reply]) -> float:
    started = time.process_time()
    for reply in replies:
        judge.reply(Verb.RCPT, reply, mx_host="mx1.example.net")
    return len(replies) / (time.process_time() - started)
