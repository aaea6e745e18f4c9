"""What is wrong with a set of reply rules although it loads: rules that never decide, samples that stray.

Every rule should have a sample, and every sample should be decided by its own rule; a rule that none of
the samples (nor of the replies that the caller adds) reaches is dead or shadowed by an earlier one. Rules
of different categories that fit the same sample are named, too: the order decides there, and a change of
order changes verdicts. Pure; only tells, changes nothing.
"""

from collections.abc import Iterable
from enum import Enum

from msgspec import Struct

from engine.config.replies import ReplyRule, ReplyRules
from engine.model.reply import Verb
from engine.mta.policy.classify import Judge
from engine.mta.policy.reply_words import Enhanced


class Severity(Enum):
    ERROR = "error"  # a sample contradicts its rule
    WARNING = "warning"  # nothing shows that the rule can decide
    NOTE = "note"  # the order of two rules matters


class Finding(Struct, frozen=True):
    severity: Severity
    rule: str
    problem: str
    hint: str = ""


class Sample(Struct, frozen=True):
    """One text to be judged, with what is known besides it."""

    text: str
    provider: str | None = None
    code: int | None = None
    enhanced: Enhanced | None = None
    verb: Verb | None = None


def sample_of(rule: ReplyRule, text: str) -> Sample:
    """A rule's own sample comes from its provider and answers the first of its verbs."""
    return Sample(text, rule.provider or None, verb=rule.verbs[0] if rule.verbs else None)


def lint_rules(rules: ReplyRules, more: Iterable[Sample] = ()) -> list[Finding]:
    """All findings, worst first, in the order of the rules. `more`: replies that count as samples, too."""
    judge = Judge(rules)
    found: list[Finding] = []
    reached: set[str] = set()
    overlaps: dict[tuple[str, str], str] = {}
    for rule in rules.rules:
        if not rule.samples:
            found.append(Finding(Severity.WARNING, rule.id, "has no sample", "add a reply that it is for"))
        for text in rule.samples:
            fitting = _fitting(judge, sample_of(rule, text))
            reached.update(one.id for one in fitting[:1])
            _judge_sample(rule, text, fitting, found)
            for other in fitting[1:]:
                if fitting[0] is rule and other.category is not rule.category and (other.any or other.all):
                    overlaps.setdefault((rule.id, other.id), text)
    for sample in more:
        reached.update(one.id for one in _fitting(judge, sample)[:1])
    found += [
        Finding(
            Severity.WARNING,
            rule.id,
            "decides no sample",
            "an earlier rule takes all of it, or its words never occur",
        )
        for rule in rules.rules
        if rule.id not in reached
    ]
    found += _repeated(rules.rules)
    found += [
        Finding(Severity.NOTE, first, f"overlaps with {second}, which comes later", f"sample: {text}")
        for (first, second), text in overlaps.items()
    ]
    order = list(Severity)
    return sorted(found, key=lambda finding: order.index(finding.severity))


def _fitting(judge: Judge, sample: Sample) -> list[ReplyRule]:
    return list(
        judge.matching(
            sample.text,
            provider=sample.provider,
            reply_code=sample.code,
            enhanced=sample.enhanced,
            verb=sample.verb,
        )
    )


def _judge_sample(rule: ReplyRule, text: str, fitting: list[ReplyRule], found: list[Finding]) -> None:
    if not fitting:
        found.append(Finding(Severity.ERROR, rule.id, "does not fit its own sample", f"sample: {text}"))
    elif fitting[0] is not rule:
        found.append(
            Finding(Severity.ERROR, rule.id, f"its sample is decided by {fitting[0].id}", f"sample: {text}")
        )


def _repeated(rules: Iterable[ReplyRule]) -> list[Finding]:
    """Phrases that an earlier rule with no further conditions has already: here they never decide."""
    taken: dict[str, ReplyRule] = {}
    found = []
    for rule in rules:
        for phrase in rule.any:
            earlier = taken.get(phrase)
            if earlier is not None and earlier.category is not rule.category:
                found.append(
                    Finding(
                        Severity.WARNING,
                        rule.id,
                        f'"{phrase}" never decides, {earlier.id} has it before',
                        "take it out of one of the two",
                    )
                )
            elif earlier is None and _bare(rule):
                taken[phrase] = rule
    return found


def _bare(rule: ReplyRule) -> bool:
    """Whether one phrase of `any` is all that the rule asks."""
    conditions = (rule.provider, rule.verbs, rule.codes, rule.enhanced, rule.all, rule.unless, rule.pattern)
    return not any(conditions) and not rule.listed
