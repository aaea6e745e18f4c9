"""The figures of a run through a world: receivers' counts beside what their limits allowed. Pure.

`summary` makes the facts of one run (JSON keys as they are printed), `tables` the same for people,
`panels` what the chart shows. The many small sites of a mix stand together as "firms".
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from bench.chart import Panel
from bench.world.optimum import Bound, allowed_per_second
from bench.world.spec import WorldSpec
from bench.world_watch import Watch

FIRMS = "firms"
COUNTS = ("attempts", "rate_refusals", "connections_refused", "blocks", "blocked_refusals")
SUMMARY = (
    *("messages", "finished", "delivered", "bounced", "expired", "seconds", "optimum_seconds", "ratio"),
    *("attempts", "deferred", "rate_refused_share", "connection_refusals", "blocks", "blocked_refusals"),
    *("connections", "protocol_errors", "cpu_us_per_message"),
    "world_cpu_us_per_message",
)


def group_of(provider: str) -> str:
    return FIRMS if provider.startswith("firm") else provider


def summary(
    bounds: Mapping[str, Bound],
    statistics: Mapping[str, Any],
    watch: Watch,
    seconds: float,
    cpu_seconds: float,
) -> dict[str, Any]:
    """One run's facts. `statistics` are the world's; without a finish the ratio is a lower bound."""
    totals = statistics["totals"]
    messages = sum(bound.messages for bound in bounds.values())
    optimum = max(bound.seconds for bound in bounds.values())
    attempts = totals["attempts"]
    return {
        "messages": messages,
        "finished": watch.finished,
        "delivered": watch.outcomes["delivered"],
        "bounced": watch.outcomes["bounced"],
        "expired": watch.outcomes["expired"],
        "deferred": watch.outcomes["deferred"],
        "seconds": round(seconds, 1),
        "optimum_seconds": round(optimum, 1),
        "ratio": round(seconds / optimum, 3) if optimum else 0.0,
        "attempts": attempts,
        "rate_refused_share": round(totals["rate_refusals"] / attempts, 5) if attempts else 0.0,
        "connection_refusals": totals["connections_refused"],
        "blocks": totals["blocks"],
        "blocked_refusals": totals["blocked_refusals"],
        "connections": totals["connections"],
        "protocol_errors": totals["protocol_errors"],
        "cpu_us_per_message": round(cpu_seconds / max(1, watch.finished) * 1e6, 1),
    }


def provider_rows(
    spec: WorldSpec, bounds: Mapping[str, Bound], statistics: Mapping[str, Any], watch: Watch
) -> dict[str, dict[str, Any]]:
    """By provider, the small ones together (then the limit is None, the finish that of the last)."""
    rows: dict[str, dict[str, Any]] = {}
    for each in spec.providers:
        bound = bounds.get(each.name)
        if bound is None:
            continue
        counts = statistics["providers"][each.name]
        allowed = allowed_per_second(each.manners)
        limit = round(allowed, 2) if allowed < float("inf") and group_of(each.name) != FIRMS else None
        row = rows.setdefault(
            group_of(each.name),
            {
                "messages": 0,
                "limit_per_second": limit,
                "connections_max": each.manners.connections_max,
                "optimum_seconds": 0.0,
                "finish_seconds": 0.0,
                "accepted": 0,
                "connections_peak": 0,
                **dict.fromkeys(COUNTS, 0),
            },
        )
        row["messages"] += bound.messages
        row["accepted"] += counts["accepted"]
        row["optimum_seconds"] = max(row["optimum_seconds"], round(bound.seconds, 1))
        finish = round(watch.finish_seconds.get(each.name, 0.0), 1)
        row["finish_seconds"] = max(row["finish_seconds"], finish)
        row["connections_peak"] = max(row["connections_peak"], counts["connections_peak"])
        for name in COUNTS:
            row[name] += counts[name]
    for row in rows.values():
        row["achieved_per_second"] = round(row["accepted"] / max(1.0, row["finish_seconds"]), 1)
        row["rate_refused_share"] = round(row["rate_refusals"] / max(1, row["attempts"]), 5)
    return rows


def tables(runs: Mapping[str, Mapping[str, Any]]) -> Iterable[Table]:
    """One table of sums with the runs side by side, then one of providers for each run."""
    sums = Table(title="bench world", title_justify="left")
    sums.add_column("")
    for name in runs:
        sums.add_column(name, justify="right")
    for key in SUMMARY:
        sums.add_row(key, *(_cell(facts[key]) for facts in runs.values()))
    yield sums
    for name, facts in runs.items():
        table = Table(title=f"providers, {name}", title_justify="left")
        titles = ("provider", "messages", "limit/s", "achieved/s", "refused", "connections", "conn. refused")
        for title in (*titles, "blocks", "finish s", "optimum s"):
            table.add_column(title, justify="left" if title == "provider" else "right")
        for provider, row in facts["providers"].items():
            table.add_row(
                provider,
                _cell(row["messages"]),
                _cell(row["limit_per_second"]),
                _cell(row["achieved_per_second"]),
                f"{row['rate_refused_share']:.2%}",
                f"{row['connections_peak']}/{row['connections_max']}",
                _cell(row["connections_refused"]),
                _cell(row["blocks"]),
                _cell(row["finish_seconds"]),
                _cell(row["optimum_seconds"]),
            )
        yield table


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)


def panels(spec: WorldSpec, timeline: Mapping[str, Any], watch: Watch) -> list[Panel]:
    """A panel for each provider, the small ones together in the last."""
    offset = timeline["at"] - timeline["now"] - watch.began  # from the receivers' clock to seconds of the run
    connections, rates, rests = watch.steps("connections"), watch.steps("rate"), watch.rests()
    drawn: list[Panel] = []
    firms = Panel(title=f"{FIRMS} (small sites)", accepted=[], refused=[])
    for each in spec.providers:
        told = timeline["providers"][each.name]
        accepted, refused = (_from_start(told, name, offset) for name in ("accepted", "refused"))
        if group_of(each.name) == FIRMS:
            firms = Panel(
                title=firms.title,
                accepted=_added(firms.accepted, accepted),
                refused=_added(firms.refused, refused),
            )
            continue
        allowed = allowed_per_second(each.manners)
        drawn.append(
            Panel(
                title=each.name,
                accepted=accepted,
                refused=refused,
                limit=allowed if allowed < float("inf") else None,
                window=connections.get(each.name, ()),
                rate=rates.get(each.name, ()),
                rests=rests.get(each.name, ()),
            )
        )
    return [*drawn, firms] if firms.accepted else drawn


def _from_start(told: Mapping[str, Any], name: str, offset: float) -> list[float]:
    """One number for each second of the run; what came before its begin counts to the first."""
    if told["begin"] < 0:
        return []
    lead = round(told["begin"] + offset)
    counts = [float(count) for count in told[name]]
    return [0.0] * lead + counts if lead >= 0 else [sum(counts[: 1 - lead]), *counts[1 - lead :]]


def _added(one: Sequence[float], other: Sequence[float]) -> list[float]:
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    return [value + (shorter[at] if at < len(shorter) else 0.0) for at, value in enumerate(longer)]
