"""The end of a campaign, for people (a table per domain) and for scripts (one JSON object).

Counts are those of the spool; `find_mistakes` checks that they add up before anybody is shown
them. Sample replies come from strangers' servers and are shown with their control characters
escaped, without markup, and cut.
"""

import json
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from control.cli.progress import describe_seconds
from control.cli.visible import short
from engine.mta.spool.api import StateCounts

# interfaces: each envelope is in exactly one of these, so they add up to `accepted`.
STATES = (
    "delivered",
    "bounced",
    "deferred",
    "expired",
    "suppressed",
    "cancelled",
    "ambiguous",
    "quarantined",
    "render_failed",
)
DOMAINS_SHOWN_MAX = 25
REASONS_SHOWN_MAX = 3


class Reason(Struct, frozen=True):
    """Why `count` messages of a domain are not delivered; `sample` is one raw reply."""

    state: str
    text: str
    count: int
    sample: str = ""


class DomainReport(Struct, frozen=True):
    domain: str
    counts: StateCounts
    reasons: tuple[Reason, ...] = ()


class CampaignReport(Struct, frozen=True):
    """What became of one campaign. `seconds` = from the first acceptance to the last change."""

    counts: StateCounts
    seconds: float
    domains: tuple[DomainReport, ...] = ()
    refused: int = 0  # lines of the CSV, not envelopes
    refused_file: str = ""
    data: str = ""

    @property
    def messages_per_second(self) -> float:
        return self.counts.delivered / self.seconds if self.seconds > 0 else 0.0


def find_mistakes(report: CampaignReport) -> list[str]:
    """What does not add up, in words; empty when all does."""
    mistakes = []
    total = sum(getattr(report.counts, state) for state in STATES)
    if total != report.counts.accepted:
        mistakes.append(f"the states add up to {total}, accepted are {report.counts.accepted}")
    mistakes += [f"{s} is negative" for s in STATES if getattr(report.counts, s) < 0]
    if report.domains:
        for state in ("accepted", *STATES):
            by_domain = sum(getattr(domain.counts, state) for domain in report.domains)
            if by_domain != getattr(report.counts, state):
                expected = getattr(report.counts, state)
                mistakes.append(f"{state} of all domains add up to {by_domain}, not {expected}")
    return mistakes


def report_facts(report: CampaignReport) -> dict[str, Any]:
    """The JSON object of `emass send --json`: the keys that interfaces promise, then more."""
    facts: dict[str, Any] = _count_facts(report.counts)
    facts |= {
        "was_ambiguous": report.counts.was_ambiguous,
        "seconds": round(report.seconds, 3),
        "messages_per_second": round(report.messages_per_second, 1),
        "refused": report.refused,
        "refused_file": report.refused_file or None,
        "data": report.data or None,
        "domains": [
            {"domain": domain.domain, **_count_facts(domain.counts), "reasons": _reason_facts(domain.reasons)}
            for domain in report.domains
        ],
    }
    return facts


def report_json(report: CampaignReport) -> str:
    """One line. Non-ASCII is escaped, so that no terminal acts on a stranger's reply."""
    return json.dumps(report_facts(report))


def print_report(report: CampaignReport, console: Console) -> None:
    """The table and the sums, for people."""
    console.print(_domain_table(report.domains))
    hidden = len(report.domains) - DOMAINS_SHOWN_MAX
    if hidden > 0:
        console.print(f"... and {hidden:,} more domains (--json lists all)")
    counts = report.counts
    states = [f"{getattr(counts, state):,} {_words(state)}" for state in STATES if getattr(counts, state)]
    console.print(f"{counts.accepted:,} accepted: " + (", ".join(states) or "nothing"), highlight=False)
    console.print(
        f"{describe_seconds(report.seconds)} in all, {report.messages_per_second:,.0f} messages a second",
        highlight=False,
    )
    if counts.was_ambiguous:
        console.print(
            f"{counts.was_ambiguous:,} were ambiguous for a time: some of those may have arrived twice",
            highlight=False,
        )
    if report.refused:
        console.print(
            Text(f"{report.refused:,} lines of the list were refused, see {short(report.refused_file, 500)}"),
            soft_wrap=True,
        )
    for mistake in find_mistakes(report):
        console.print(Text(f"These counts are wrong, please report it: {mistake}"))


def _domain_table(domains: Sequence[DomainReport]) -> Table:
    table = Table(title="By domain", title_justify="left")
    table.add_column("domain", overflow="fold")
    for name in ("accepted", "delivered", "bounced", "deferred", "other"):
        table.add_column(name, justify="right")
    table.add_column("most common reasons", overflow="fold", ratio=1)
    largest = sorted(domains, key=lambda domain: (-domain.counts.accepted, domain.domain))
    for domain in largest[:DOMAINS_SHOWN_MAX]:
        counts = domain.counts
        other = counts.accepted - counts.delivered - counts.bounced - counts.deferred
        numbers = (counts.accepted, counts.delivered, counts.bounced, counts.deferred, other)
        top = sorted(domain.reasons, key=lambda reason: (-reason.count, reason.text))[:REASONS_SHOWN_MAX]
        lines = [_describe_reason(reason) for reason in top]
        table.add_row(
            Text(short(domain.domain)), *(f"{number:,}" for number in numbers), Text("\n".join(lines))
        )
    return table


def _describe_reason(reason: Reason) -> str:
    line = f"{reason.count:,} {_words(reason.state)}: {short(reason.text)}"
    return f"{line} ({short(reason.sample)})" if reason.sample and reason.sample != reason.text else line


def _count_facts(counts: StateCounts) -> dict[str, Any]:
    return {"accepted": counts.accepted} | {state: getattr(counts, state) for state in STATES}


def _reason_facts(reasons: Sequence[Reason]) -> list[dict[str, Any]]:
    return [{"state": r.state, "text": r.text, "count": r.count, "sample": r.sample} for r in reasons]


def _words(state: str) -> str:
    return "failed to render" if state == "render_failed" else state
