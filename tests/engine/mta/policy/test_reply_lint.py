"""The lint of reply rules: dead rules, stray samples, repeated phrases, overlaps."""

from engine.config.replies import load_reply_rules, parse_reply_rules
from engine.mta.policy.reply_lint import Finding, Sample, Severity, lint_rules

HEAD = 'version = "1"\n'
FULL = '[[rule]]\nid = "full"\ncategory = "mailbox-full"\nany = ["is full"]\nsamples = ["552 Box is full"]\n'


def found(text: str, *more: Sample) -> list[tuple[Severity, str, str]]:
    return [(one.severity, one.rule, one.problem) for one in lint_rules(parse_reply_rules(HEAD + text), more)]


def test_the_built_in_rules_are_clean() -> None:
    findings = lint_rules(load_reply_rules())
    assert [one for one in findings if one.severity is not Severity.NOTE] == []


def test_a_good_rule_has_no_findings() -> None:
    assert found(FULL) == []


def test_a_sample_that_another_rule_decides_is_an_error() -> None:
    second = FULL.replace('"full"', '"second"').replace("is full", "box is full")
    assert (Severity.ERROR, "second", "its sample is decided by full") in found(FULL + second)
    assert (Severity.WARNING, "second", "decides no sample") in found(FULL + second)


def test_a_sample_that_its_rule_does_not_fit_is_an_error() -> None:
    assert found(FULL.replace("Box is", "Box was"))[0] == (
        Severity.ERROR,
        "full",
        "does not fit its own sample",
    )


def test_a_rule_without_samples_is_reached_by_the_callers_replies() -> None:
    bare = FULL.replace('samples = ["552 Box is full"]\n', "")
    assert [problem for _, _, problem in found(bare)] == ["has no sample", "decides no sample"]
    assert [problem for _, _, problem in found(bare, Sample("552 it is full"))] == ["has no sample"]


def test_a_phrase_that_an_earlier_rule_has_never_decides() -> None:
    second = '[[rule]]\nid = "b"\ncategory = "policy"\nany = ["is full", "no"]\nsamples = ["550 No"]\n'
    assert (Severity.WARNING, "b", '"is full" never decides, full has it before') in found(FULL + second)


def test_two_rules_that_fit_one_sample_are_a_note() -> None:
    second = '[[rule]]\nid = "b"\ncategory = "policy"\nany = ["box"]\nsamples = ["550 box"]\n'
    assert lint_rules(parse_reply_rules(HEAD + FULL + second)) == [
        Finding(Severity.NOTE, "full", "overlaps with b, which comes later", "sample: 552 Box is full")
    ]
