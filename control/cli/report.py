"""The end of a campaign, for people (a table per domain, then reasons) and for scripts (one JSON object).

Counts are those of the spool; `find_mistakes` checks that they add up before anybody is shown them.
The table shows the columns that have something to say and fits the terminal; reasons are summed over
domains, first those that ended mail, then those that only delayed it. Sample replies come from
strangers' servers and are shown with their control characters escaped, without markup, and cut.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from control.cli.progress import describe_seconds
from control.cli.report_shares import BroadcasterReport, shares_facts, shares_table
from control.cli.visible import short
from engine.mta.policy.forecast import Forecast
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
REASONS_SHOWN_MAX = 10  # of each kind
DOMAIN_CHARS = 40  # a longer name is cut; the JSON has it whole
DOMAIN_CHARS_MIN = 18  # below that, columns are put together instead
GAP = 2  # between columns


class Reason(Struct, frozen=True):
    """Why `count` attempts of a domain did not deliver. `text` is a rule's name, `sample` one raw reply."""

    state: str
    text: str
    count: int
    sample: str = ""
    status: str = ""  # reply code and enhanced status, e.g. "550 5.1.1"


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
    forecast: Forecast | None = None  # as it was before the start
    forecast_error: float | None = None  # its expected time against the real one: 0.1 = a tenth too long
    broadcasters: tuple[BroadcasterReport, ...] = ()  # of a job that many share
    addresses_file: str = ""  # every address and what became of it
    warnings: tuple[str, ...] = ()

    @property
    def messages_per_second(self) -> float:
        return self.counts.delivered / self.seconds if self.seconds > 0 else 0.0


class SummedReason(Struct, frozen=True):
    """One reason over all domains that it was met in; `sample` is from the one that said it most."""

    state: str
    text: str
    status: str
    count: int
    domains: tuple[str, ...]
    sample: str


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


def sum_reasons(domains: Iterable[DomainReport]) -> tuple[list[SummedReason], list[SummedReason]]:
    """What ended mail and what only delayed it, each summed over domains, most frequent first."""
    ended: dict[tuple[str, str, str], list[tuple[str, Reason]]] = {}
    delayed: dict[tuple[str, str, str], list[tuple[str, Reason]]] = {}
    for domain in domains:
        for reason in domain.reasons:
            held = reason.state == "ambiguous" and domain.counts.ambiguous > 0
            group = delayed if reason.state in ("deferred", "ambiguous") and not held else ended
            group.setdefault((reason.state, reason.text, reason.status), []).append((domain.domain, reason))
    return _summed(ended), _summed(delayed)


def _summed(groups: dict[tuple[str, str, str], list[tuple[str, Reason]]]) -> list[SummedReason]:
    found = []
    for (state, text, status), met in groups.items():
        met.sort(key=lambda pair: (-pair[1].count, pair[0]))
        count = sum(reason.count for _, reason in met)
        names = tuple(name for name, _ in met)
        found.append(SummedReason(state, text, status, count, names, met[0][1].sample))
    return sorted(found, key=lambda reason: (-reason.count, reason.state, reason.text, reason.status))


# --- for scripts -----------------------------------------------------------------------------------------


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
        "forecast_seconds": forecast_seconds(report.forecast),
        "forecast_error": None if report.forecast_error is None else round(report.forecast_error, 3),
        "domains": [
            {"domain": domain.domain, **_count_facts(domain.counts), "reasons": _reason_facts(domain.reasons)}
            for domain in report.domains
        ],
    }
    if report.broadcasters:
        facts["broadcasters"] = shares_facts(report.broadcasters, STATES)
        facts["addresses_file"] = report.addresses_file or None
        facts["warnings"] = list(report.warnings)
    return facts


def forecast_seconds(forecast: Forecast | None) -> dict[str, float | None] | None:
    """Low, expected, high; null = cannot be told."""
    if forecast is None:
        return None
    return {
        "low": _rounded(forecast.low_seconds),
        "expected": _rounded(forecast.expected_seconds),
        "high": _rounded(forecast.high_seconds),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def report_json(report: CampaignReport) -> str:
    """One line. Non-ASCII is escaped, so that no terminal acts on a stranger's reply."""
    return json.dumps(report_facts(report))


def _count_facts(counts: StateCounts) -> dict[str, Any]:
    return {"accepted": counts.accepted} | {state: getattr(counts, state) for state in STATES}


def _reason_facts(reasons: Sequence[Reason]) -> list[dict[str, Any]]:
    return [
        {"state": r.state, "text": r.text, "status": r.status, "count": r.count, "sample": r.sample}
        for r in reasons
    ]


# --- for people ------------------------------------------------------------------------------------------


def print_report(report: CampaignReport, console: Console) -> None:
    """The table, the reasons and the sums."""
    if report.domains:
        console.print(_domain_table(report.domains, console.width))
        hidden = len(report.domains) - DOMAINS_SHOWN_MAX
        if hidden > 0:
            console.print(f"... and {hidden:,} more domains (--json lists all)", highlight=False)
    if report.broadcasters:
        console.print()
        console.print(shares_table(report.broadcasters, STATES, state_words))
    ended, delayed = sum_reasons(report.domains)
    _print_reasons(console, "Why not delivered", ended)
    _print_reasons(console, "What took more than one attempt", delayed)
    console.print()
    counts = report.counts
    states = [
        f"{getattr(counts, state):,} {state_words(state)}" for state in STATES if getattr(counts, state)
    ]
    console.print(f"{counts.accepted:,} accepted: " + (", ".join(states) or "nothing"), highlight=False)
    console.print(
        f"{describe_seconds(report.seconds)} in all, {report.messages_per_second:,.0f} messages a second",
        highlight=False,
    )
    if report.forecast is not None and report.forecast_error is not None:
        told = _forecast_words(report.forecast)
        console.print(f"the forecast before the start was {told}", highlight=False)
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
    if report.addresses_file:
        console.print(
            Text(f"every address and its state: {short(report.addresses_file, 500)}"), soft_wrap=True
        )
    for warning in report.warnings:
        console.print(Text(f"Warning: {short(warning, 500)}"), soft_wrap=True)
    for mistake in find_mistakes(report):
        console.print(Text(f"These counts are wrong, please report it: {mistake}"), soft_wrap=True)


def _forecast_words(forecast: Forecast) -> str:
    low, expected, high = (
        "?" if seconds is None else describe_seconds(seconds)
        for seconds in (forecast.low_seconds, forecast.expected_seconds, forecast.high_seconds)
    )
    return f"{expected} ({low} to {high})"


def _domain_table(domains: Sequence[DomainReport], width: int) -> Table:
    largest = sorted(domains, key=lambda domain: (-domain.counts.accepted, domain.domain))
    shown = [_table_counts(domain.counts) for domain in domains]
    columns, columns_width = choose_columns(shown, width - DOMAIN_CHARS_MIN - GAP)
    room = max(DOMAIN_CHARS_MIN, width - columns_width - GAP)
    table = Table(
        title="By domain",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),  # the box puts one more space between columns
    )
    table.add_column("domain", no_wrap=True, overflow="ellipsis", max_width=min(room, DOMAIN_CHARS))
    for name in columns:
        table.add_column(state_words(name), justify="right", no_wrap=True)
    for domain in largest[:DOMAINS_SHOWN_MAX]:
        counts = _table_counts(domain.counts)
        counts["other"] = sum(number for name, number in counts.items() if name not in columns)
        cells = (f"{counts[name]:,}" if counts[name] else "-" for name in columns)
        table.add_row(Text(short(domain.domain)), *cells)
    return table


def _table_counts(counts: StateCounts) -> dict[str, int]:
    return {name: getattr(counts, name) for name in ("accepted", *STATES)}


def choose_columns(counts: Sequence[dict[str, int]], width: int) -> tuple[list[str], int]:
    """The columns that are not zero everywhere, and their width; if too wide, the rarest become "other"."""
    totals = {name: sum(item[name] for item in counts) for name in ("accepted", *STATES)}
    columns = [name for name, total in totals.items() if total or name in ("accepted", "delivered")]
    rarest = sorted(columns[2:], key=totals.__getitem__)
    put_together = 0
    while _width(columns, totals) > width and len(rarest) > 1:
        put_together = max(2, put_together + 1)
        rest = rarest[:put_together]
        totals["other"] = sum(totals[name] for name in rest)
        columns = [name for name in totals if name in columns and name not in (*rest, "other")] + ["other"]
        if put_together == len(rarest):
            break
    return columns, _width(columns, totals)


def _width(columns: Sequence[str], totals: dict[str, int]) -> int:
    return sum(GAP + max(len(state_words(name)), len(f"{totals[name]:,}")) for name in columns)


def _print_reasons(console: Console, title: str, reasons: Sequence[SummedReason]) -> None:
    if not reasons:
        return
    grid = Table.grid(padding=(0, GAP))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    for reason in reasons[:REASONS_SHOWN_MAX]:
        lines = Text(f"{state_words(reason.state)}: {short(reason_words(reason.text))}, {_places(reason)}")
        if reason.sample and reason.sample != reason.text and reason.text not in _SAY_IT_ALL:
            lines.append(f"\n{short(reason.sample)}", style="dim")
        grid.add_row(f"{reason.count:,}", lines)
    console.print()
    console.print(Text(title, style="bold"))
    console.print(grid)
    hidden = len(reasons) - REASONS_SHOWN_MAX
    if hidden > 0:
        console.print(f"... and {hidden:,} rarer reasons (--json lists all)", highlight=False)


def _places(reason: SummedReason) -> str:
    if len(reason.domains) == 1:
        return short(reason.domains[0])
    return f"{len(reason.domains):,} domains"


def state_words(state: str) -> str:
    """A state as people read it."""
    return "failed to render" if state == "render_failed" else state


def reason_words(text: str) -> str:
    """A category, or a rule's name (`engine.mta.policy.classify`), in words; anything else stays as it is."""
    known = _WORDS.get(text)
    if known is not None:
        return known
    kind, _, detail = text.partition("-")
    return _TRANSPORT.get(detail, detail.replace("_", " ")) if kind == "transport" else text


_WORDS = {
    "bad-mailbox": "there is no such mailbox",
    "bad-domain": "the domain takes no mail",
    "inactive-mailbox": "the mailbox is closed",
    "mailbox-full": "the mailbox is full",
    "recipient-refused": "the recipient, or its administrator, wants none of it",
    "rate-limited": "the receiver's rate limit was reached",
    "greylisted": "greylisted, a first attempt is always refused",
    "remote-system-error": "trouble at the receiver",
    "no-answer": "the receiver's server could not be reached",
    "expired": "given up after its time",
    "reputation-block": "the receiver blocks our address or domain",
    "auth-failed": "the receiver finds SPF, DKIM or DMARC failing",
    "spam-content": "refused as spam",
    "policy": "against the receiver's policy",
    "sender-refused": "the sender was refused",
    "content-refused": "the content was refused",
    "too-large": "the message is too large",
    "relay-denied": "the server does not serve that domain",
    "protocol-error": "the receiver found a fault in the protocol",
    "unknown": "refused without a reason that is known",
    "domain-nxdomain": "the domain does not exist",
    "domain-null-mx": "the domain takes no mail",
    "domain-mx-refused": "the domain's mail server is no public host",
    "ambiguous": "the connection was lost before the last answer",
}
_SAY_IT_ALL = frozenset({"domain-nxdomain", "domain-null-mx"})  # the raw text only repeats them
_TRANSPORT = {
    "no_address": "the domain's mail servers have no address",
    "dns": "DNS gave no answer",
    "connect_refused": "no mail server listens there",
    "connect_timeout": "the mail server cannot be reached",
    "unreachable": "the mail server cannot be reached",
    "source": "our own address cannot be used",
    "local": "this machine is out of ports, descriptors or memory for a moment",
    "tls": "TLS failed",
    "timeout": "the server was silent for too long",
    "closed": "the connection was lost",
    "protocol": "the server does not speak SMTP",
    "stopped": "we closed the connection",
}
