"""`emass bounce`: says what receivers' answers mean, and checks the rules that say it.

`classify --replies` judges replies out of a file or a pipe, one JSON line each, and scores itself where
the rows carry answers; `rules` lists the rules and what is wrong with them. Both take the operator's own
rules, so that a change can be tried before an engine loads it. Touches the named files, nothing else.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from control.cli.errors import FAILED, InputError
from control.cli.reply_rows import BadLine, Row, Score, judge_row, read_rows
from control.cli.visible import short, visible
from engine.config.replies import ReplyRule, ReplyRules, load_reply_rules
from engine.mta.policy.classify import Judge, Verdict
from engine.mta.policy.reply_lint import Finding, Sample, Severity, lint_rules

BAD_LINES_TOLD_MAX = 20  # the rest is counted: one wrong file has as many as it has lines
LINT_SAMPLES_MAX = 100_000  # replies kept for the lint; more kinds than that nobody has

_rules_option = click.option(
    "--rules", "rules_file", metavar="FILE", help="Your own rules, asked before the built-in ones."
)


@click.group()
def command() -> None:
    """Say what receivers' answers mean.

    \b
    Example:
      emass bounce classify --replies replies.jsonl
    """


@command.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--replies", is_flag=True, help="The files hold replies, one JSON object per line; - reads a pipe."
)
@_rules_option
@click.option("--lint", is_flag=True, help="Check the rules with these replies as samples, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the score as JSON, too (verdicts always are).")
def classify(files: tuple[str, ...], replies: bool, rules_file: str | None, lint: bool, as_json: bool) -> int:
    """Judge replies: one JSON line each, with category, group, class, action and rule.

    An object needs a text; provider, reply, status and verb help where they are known. Where objects
    carry a category, the score is told at the end.

    \b
    Example:
      echo '{"text": "550 5.1.1 User unknown"}' | emass bounce classify --replies -
    """
    if not replies:
        raise InputError("mails cannot be classified yet, only replies: name files of replies with --replies")
    for name in files:
        if name != "-" and not Path(name).is_file():
            raise InputError(f"{name}: no such file")
    rules = _load(rules_file)
    judge, score = Judge(rules), Score()
    samples: list[Sample] = []
    bad = 0
    for name in files:
        for row in _rows(name):
            if isinstance(row, BadLine):
                bad += 1
                if bad <= BAD_LINES_TOLD_MAX:
                    _say(f"{name} line {row.number} {row.problem} ({row.cure})")
                continue
            verdict = judge_row(judge, row.sample)
            score.add(row, verdict)
            if lint and len(samples) < LINT_SAMPLES_MAX:
                samples.append(row.sample)
            print(json.dumps(verdict_facts(verdict)))
    sys.stdout.flush()
    if bad > BAD_LINES_TOLD_MAX:
        _say(f"... and {bad - BAD_LINES_TOLD_MAX:,} more lines that cannot be used")
    if score.rows:
        facts = score.facts()
        _say(json.dumps(facts) if as_json else _score_words(facts))
    findings = lint_rules(rules, samples) if lint else []
    for finding in findings:
        if finding.severity is not Severity.NOTE:
            _say(f"{finding.severity.value}: {finding.rule} {finding.problem} ({finding.hint})")
    return FAILED if bad or _broken(findings) else 0


@command.command()
@_rules_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def rules(rules_file: str | None, as_json: bool) -> int:
    """List the rules in the order in which they are asked, and what is wrong with them.

    \b
    Example:
      emass bounce rules --rules my-replies.toml
    """
    loaded = _load(rules_file)
    findings = lint_rules(loaded)
    if as_json:
        print(
            json.dumps(
                {
                    "version": loaded.version,
                    "rules": [_rule_facts(rule) for rule in loaded.rules],
                    "findings": [_finding_facts(finding) for finding in findings],
                }
            )
        )
    else:
        _print(loaded, findings)
    return FAILED if _broken(findings) else 0


def verdict_facts(verdict: Verdict) -> dict[str, Any]:
    """A verdict as the command prints it."""
    return {
        "category": verdict.category.value,
        "group": verdict.group.value,
        "class": verdict.bounce_class.value,
        "action": verdict.action.value,
        "rule": verdict.rule,
        "key": verdict.key.value,
        "retry_after_seconds": verdict.retry_after_seconds,
        "matched": verdict.matched,
        "lists": list(verdict.lists),
        "outcome": verdict.outcome.value,
    }


def _load(rules_file: str | None) -> ReplyRules:
    return load_reply_rules(Path(rules_file) if rules_file is not None else None)


def _rows(name: str) -> Iterator[Row | BadLine]:
    if name == "-":
        yield from read_rows(sys.stdin.buffer)
        return
    with Path(name).open("rb") as file:
        yield from read_rows(file)


def _broken(findings: list[Finding]) -> bool:
    return any(finding.severity is Severity.ERROR for finding in findings)


def _say(line: str) -> None:
    click.echo(f"emass: {visible(line)}", err=True)


def _score_words(facts: dict[str, float]) -> str:
    return (
        f"{facts['rows']:,} answers: group right {facts['group_right']:.1%}, "
        f"category right {facts['category_right']:.1%}, "
        f"wrongly address {facts['wrongly_address']:.1%}, address missed {facts['address_missed']:.1%}"
    )


def _rule_facts(rule: ReplyRule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "category": rule.category.value,
        "provider": rule.provider,
        "action": rule.action.value if rule.action is not None else "",
        "samples": len(rule.samples),
        "source": rule.source,
    }


def _finding_facts(finding: Finding) -> dict[str, str]:
    return {
        "severity": finding.severity.value,
        "rule": finding.rule,
        "problem": finding.problem,
        "hint": finding.hint,
    }


def _print(loaded: ReplyRules, findings: list[Finding]) -> None:
    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, title=f"reply rules, version {loaded.version}", title_justify="left")
    for heading in ("rule", "category", "provider", "samples"):
        table.add_column(heading, justify="right" if heading == "samples" else "left")
    for rule in loaded.rules:
        table.add_row(rule.id, rule.category.value, rule.provider, str(len(rule.samples)))
    console.print(table)
    wrong = [finding for finding in findings if finding.severity is not Severity.NOTE]
    for finding in wrong:
        console.print(Text(short(f"{finding.severity.value}: {finding.rule} {finding.problem}")))
        if finding.hint:
            console.print(Text(f"  {visible(finding.hint)}"))
    if not wrong:
        console.print("Every sample is decided by its own rule, and every rule decides one.")
    if notes := len(findings) - len(wrong):
        console.print(f"{notes:,} pairs of rules overlap; there the order decides (--json lists them)")
