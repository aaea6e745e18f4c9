"""The final report: promised keys, sums that are checked, a table that fits, replies that cannot act."""

import io
import json

import pytest
from rich.console import Console

from control.cli.report import (
    DOMAINS_SHOWN_MAX,
    REASONS_SHOWN_MAX,
    STATES,
    CampaignReport,
    DomainReport,
    Reason,
    choose_columns,
    find_mistakes,
    print_report,
    reason_words,
    report_facts,
    report_json,
    sum_reasons,
)
from engine.model.category import TREATMENTS, Category, Group
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.policy.classify import judge_failure
from engine.mta.policy.forecast import Bound, Forecast
from engine.mta.spool.api import StateCounts

PROMISED = ["accepted", "delivered", "bounced", "deferred", "expired", "suppressed", "cancelled", "ambiguous"]
PROMISED += ["quarantined", "render_failed", "was_ambiguous", "seconds", "messages_per_second"]

HOSTILE = "550 5.1.1 [red]\x1b[31mno\u202e <rcpt>"
REPORT = CampaignReport(
    counts=StateCounts(accepted=10, delivered=6, bounced=2, ambiguous=1, was_ambiguous=2),
    seconds=3.0,
    domains=(
        DomainReport(
            "a.example",
            StateCounts(accepted=7, delivered=6, ambiguous=1),
            (
                Reason("ambiguous", "ambiguous, held", 1),
                Reason("deferred", "remote-system-error", 4, "450 later"),
            ),
        ),
        DomainReport(
            "b.example",
            StateCounts(accepted=3, bounced=2),
            (Reason("bounced", "bad-mailbox", 2, HOSTILE, "550 5.1.1"),),
        ),
    ),
    refused=4,
    refused_file="data/refused.csv",
)


def shown(report: CampaignReport, width: int = 80) -> str:
    out = io.StringIO()
    print_report(report, Console(file=out, width=width))
    return out.getvalue()


def test_the_json_object_has_the_promised_keys_and_adds_up() -> None:
    facts = json.loads(report_json(REPORT))
    assert list(facts)[: len(PROMISED)] == PROMISED
    assert sum(facts[state] for state in STATES) == facts["accepted"]
    assert (facts["deferred"], facts["messages_per_second"]) == (1, 2.0)
    assert facts["domains"][1]["reasons"][0] == {
        "state": "bounced",
        "text": "bad-mailbox",
        "status": "550 5.1.1",
        "count": 2,
        "sample": HOSTILE,
    }
    assert "\x1b" not in report_json(REPORT)


def test_a_report_that_adds_up_has_no_mistakes() -> None:
    assert find_mistakes(REPORT) == []


@pytest.mark.parametrize(
    ("report", "mistake"),
    [
        (CampaignReport(StateCounts(accepted=1, delivered=2), 1.0), "deferred is negative"),
        (
            CampaignReport(StateCounts(accepted=2), 1.0, (DomainReport("a", StateCounts(accepted=1)),)),
            "accepted of all domains add up to 1, not 2",
        ),
    ],
)
def test_counts_that_do_not_add_up_are_said(report: CampaignReport, mistake: str) -> None:
    assert mistake in find_mistakes(report)
    assert mistake in shown(report)


def test_the_table_has_a_line_for_each_domain_and_only_columns_that_say_something() -> None:
    lines = shown(REPORT).splitlines()
    assert lines[1].split() == ["domain", "accepted", "delivered", "bounced", "deferred", "ambiguous"]
    assert lines[3].split() == ["a.example", "7", "6", "-", "-", "1"]
    assert lines[4].split() == ["b.example", "3", "-", "2", "1", "-"]


def test_the_sums_and_the_refused_lines_come_last() -> None:
    text = shown(REPORT)
    assert "10 accepted: 6 delivered, 2 bounced, 1 deferred, 1 ambiguous" in text
    assert "2 were ambiguous for a time" in text
    assert "4 lines of the list were refused, see data/refused.csv" in text


def test_the_forecast_is_held_against_what_came_of_it() -> None:
    forecast = Forecast("", 10, 60.0, 120.0, None, Bound.RATE, "")
    report = CampaignReport(
        StateCounts(accepted=1, delivered=1), 100.0, forecast=forecast, forecast_error=0.2004
    )
    facts = json.loads(report_json(report))
    assert facts["forecast_seconds"] == {"low": 60.0, "expected": 120.0, "high": None}
    assert facts["forecast_error"] == 0.2
    assert "the forecast before the start was 2:00 (1:00 to ?)" in shown(report)
    without = json.loads(report_json(CampaignReport(StateCounts(), 0.0)))
    assert (without["forecast_seconds"], without["forecast_error"]) == (None, None)


def test_reasons_that_ended_mail_stand_apart_from_those_that_delayed_it() -> None:
    ended, _, delayed = shown(REPORT).partition("Why not delivered")[2].partition("What took more than one")
    assert "2  bounced: there is no such mailbox, b.example" in ended
    assert "1  ambiguous: ambiguous, held, a.example" in ended
    assert "4  deferred: trouble at the receiver, a.example" in delayed
    assert "450 later" in delayed


def test_reasons_are_summed_over_domains_with_the_sample_of_the_one_that_said_it_most() -> None:
    def domain(name: str, *reasons: Reason) -> DomainReport:
        return DomainReport(name, StateCounts(accepted=9), reasons)

    ended, delayed = sum_reasons(
        [
            domain("a.example", Reason("bounced", "bad-mailbox", 2, "550 5.1.1 A", "550 5.1.1")),
            domain(
                "b.example",
                Reason("bounced", "bad-mailbox", 5, "550 5.1.1 B", "550 5.1.1"),
                Reason("bounced", "bad-mailbox", 9, "552 5.2.2 C", "552 5.2.2"),
                Reason("ambiguous", "ambiguous", 1, "closed at content"),
            ),
        ]
    )
    assert [(r.status, r.count, r.domains, r.sample) for r in ended] == [
        ("552 5.2.2", 9, ("b.example",), "552 5.2.2 C"),
        ("550 5.1.1", 7, ("b.example", "a.example"), "550 5.1.1 B"),
    ]
    assert [(r.state, r.count) for r in delayed] == [("ambiguous", 1)]


def test_a_strangers_reply_is_shown_escaped() -> None:
    text = shown(REPORT)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[red]" in text
    assert "\\x1b" in text


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    million = StateCounts(9_000_000, *[1_000_000] * 8)  # every state at once: the widest table there is
    name = "a-very-long-domain-name-that-somebody-registered.subdomain.example"
    reasons = tuple(Reason("bounced", f"rule-{n}", 10, "550 5.7.1 " + "words " * 40) for n in range(30))
    lines = shown(CampaignReport(million, 900.0, (DomainReport(name, million, reasons),)), width).splitlines()
    assert max(map(len, lines)) <= width
    names, numbers = lines[1].replace("failed to render", "unrendered").split(), lines[3].split()
    assert len(names) == len(numbers)
    if width >= 60:
        assert numbers[0].startswith("a-very-long-")
        assert numbers[1] == "9,000,000"


def test_columns_that_do_not_fit_are_put_together_rarest_first() -> None:
    counts = [
        dict.fromkeys(("accepted", *STATES), 0) | {"accepted": 9, "bounced": 5, "expired": 1, "suppressed": 2}
    ]
    everything, width = choose_columns(counts, 100)
    assert everything == ["accepted", "delivered", "bounced", "expired", "suppressed"]
    assert choose_columns(counts, width)[0] == everything
    assert choose_columns(counts, width - 1)[0] == ["accepted", "delivered", "bounced", "other"]
    assert choose_columns(counts, 1)[0] == ["accepted", "delivered", "other"]


def test_only_the_largest_domains_and_the_commonest_reasons_are_shown_and_all_are_in_the_json() -> None:
    reasons = tuple(Reason("bounced", f"reason number {n}", 100 - n) for n in range(40))
    domains = tuple(
        DomainReport(f"d{n:03d}.example", StateCounts(accepted=n), reasons) for n in range(1, 101)
    )
    report = CampaignReport(StateCounts(accepted=5_050), 0.0, domains)
    text = shown(report)
    assert "d100.example" in text
    assert "d001.example" not in text
    assert f"and {100 - DOMAINS_SHOWN_MAX} more domains" in text
    assert "10,000  bounced: reason number 0, 100 domains" in text
    assert f"and {40 - REASONS_SHOWN_MAX} rarer reasons" in text
    assert len(report_facts(report)["domains"]) == 100
    assert report.messages_per_second == 0


def test_a_report_without_domains_or_mail_is_short() -> None:
    assert shown(CampaignReport(StateCounts(), 0.0)).split("\n")[1] == "0 accepted: nothing"


@pytest.mark.parametrize("category", [one for one in Category if TREATMENTS[one].group is not Group.NONE])
def test_every_category_of_a_refusal_has_words(category: Category) -> None:
    words = reason_words(category.value)
    assert " " in words
    assert "-" not in words


@pytest.mark.parametrize("kind", list(FailureKind))
def test_every_rule_about_a_failure_has_words(kind: FailureKind) -> None:
    words = reason_words(judge_failure(TransportFailure(kind, Verb.CONNECT)).rule)
    assert " " in words
    assert "_" not in words


def test_what_is_no_rule_is_shown_as_it_is() -> None:
    assert reason_words("html line 3: no such filter") == "html line 3: no such filter"
