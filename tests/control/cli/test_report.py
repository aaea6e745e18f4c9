"""The final report: promised keys, sums that are checked, and replies that cannot act."""

import io
import json

import pytest
from rich.console import Console

from control.cli.report import (
    DOMAINS_SHOWN_MAX,
    STATES,
    CampaignReport,
    DomainReport,
    Reason,
    find_mistakes,
    print_report,
    report_facts,
    report_json,
)
from engine.mta.spool.api import StateCounts

PROMISED = ["accepted", "delivered", "bounced", "deferred", "expired", "suppressed", "cancelled", "ambiguous"]
PROMISED += ["quarantined", "render_failed", "was_ambiguous", "seconds", "messages_per_second"]

REPORT = CampaignReport(
    counts=StateCounts(accepted=10, delivered=6, bounced=2, ambiguous=1, was_ambiguous=2),
    seconds=3.0,
    domains=(
        DomainReport("a.example", StateCounts(accepted=7, delivered=6, ambiguous=1)),
        DomainReport(
            "b.example",
            StateCounts(accepted=3, bounced=2),
            (Reason("bounced", "no such user", 2, "550 5.1.1 [red]\x1b[31mno\u202e <rcpt>"),),
        ),
    ),
    refused=4,
    refused_file="data/refused.csv",
)


def shown(report: CampaignReport) -> str:
    out = io.StringIO()
    print_report(report, Console(file=out, width=160))
    return out.getvalue()


def test_the_json_object_has_the_promised_keys_and_adds_up() -> None:
    facts = json.loads(report_json(REPORT))
    assert list(facts)[: len(PROMISED)] == PROMISED
    assert sum(facts[state] for state in STATES) == facts["accepted"]
    assert (facts["deferred"], facts["messages_per_second"]) == (1, 2.0)
    assert facts["domains"][1]["reasons"][0]["count"] == 2
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


def test_the_table_names_domains_counts_and_reasons() -> None:
    text = shown(REPORT)
    assert "a.example" in text
    assert "2 bounced: no such user" in text
    assert "10 accepted: 6 delivered, 2 bounced, 1 deferred, 1 ambiguous" in text
    assert "4 lines of the list were refused, see data/refused.csv" in text


def test_a_strangers_reply_is_shown_escaped() -> None:
    text = shown(REPORT)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[red]" in text
    assert "\\x1b" in text


def test_only_the_largest_domains_are_in_the_table_and_all_are_in_the_json() -> None:
    domains = tuple(DomainReport(f"d{n:03d}.example", StateCounts(accepted=n)) for n in range(1, 101))
    report = CampaignReport(StateCounts(accepted=5_050), 0.0, domains)
    text = shown(report)
    assert "d100.example" in text
    assert "d001.example" not in text
    assert f"and {100 - DOMAINS_SHOWN_MAX} more domains" in text
    assert len(report_facts(report)["domains"]) == 100
    assert report.messages_per_second == 0
