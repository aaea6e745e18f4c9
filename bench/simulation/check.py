"""The model beside a measured run: the list of `bench world` through the same receivers, as a fluid.

`check` takes the facts that `python -m bench world --json` printed, makes that world anew (its limits are
known, unlike those of real providers), and runs it through the model with one broadcaster that is as fast
as the measured engine was. What differs is what the model leaves out: single connections, reputation,
trouble in the middle of a transaction, the other work of the machine.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from bench.simulation.fleet import simulate
from bench.simulation.model import FIXED_PLAN, NO_COORDINATOR, Broadcaster, Scenario
from bench.simulation.providers import of_world
from bench.world.mix import KINDS, TAIL_WEIGHT, real_list
from bench.world.spec import WorldSpec
from bench.world_report import FIRMS, group_of
from engine.mta.policy.shaping import RetryCurve

WORLD_RETRY = RetryCurve(5.0, 1.5, 30.0, 0.2)  # as `bench world` configures it


def check(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Measured figures, and the model's for the same list."""
    spec = real_list(measured["messages"], world_seconds(measured))
    scenario = world_scenario(spec, measured["messages"], 1e6 / measured["cpu_us_per_message"])
    outcome = simulate(scenario)
    finished: dict[str, float] = {}
    for name, one in outcome.providers.items():
        group = group_of(name)
        finished[group] = max(finished.get(group, 0.0), one.seconds)
    return {
        "messages": measured["messages"],
        "optimum_seconds": measured["optimum_seconds"],
        "measured": {
            "seconds": measured["seconds"],
            "rate_refused_share": measured["rate_refused_share"],
            "finish_seconds": {name: row["finish_seconds"] for name, row in measured["providers"].items()},
        },
        "model": {
            "seconds": round(outcome.seconds, 1),
            "rate_refused_share": round(outcome.refused_share, 5),
            "finish_seconds": {name: round(seconds, 1) for name, seconds in finished.items()},
        },
        "difference": round(outcome.seconds / measured["seconds"] - 1, 4),
    }


def world_seconds(measured: Mapping[str, Any]) -> float:
    """The `--seconds` of that run, from the limit that its largest provider had."""
    largest = KINDS[0]
    total = sum(kind.weight for kind in KINDS) + TAIL_WEIGHT
    limit = measured["providers"][largest.name]["limit_per_second"]
    return float(measured["messages"] * largest.weight / total / largest.fill / limit)


def world_scenario(spec: WorldSpec, messages: int, per_second: float) -> Scenario:
    """That world's list for one engine that takes all of it into its spool at once."""
    provider_of = {domain: each.name for each in spec.providers for domain in each.domains}
    domains = (person.email.rpartition("@")[2] for person in spec.addresses(messages, spec.seed))
    counts = Counter(provider_of[domain] for domain in domains if domain in provider_of)
    return Scenario(
        messages=sum(counts.values()),
        providers=of_world(spec, counts, WORLD_RETRY),
        broadcasters=(Broadcaster("bench", per_second),),
        coordinator=NO_COORDINATOR,
        bounds=FIXED_PLAN,
        measures_speed=False,
        seed=spec.seed,
    )


def check_table(facts: Mapping[str, Any]) -> Table:
    table = Table(title=f"{facts['messages']:,} messages to the built-in world", title_justify="left")
    for heading in ("", "measured", "model", "model / measured"):
        table.add_column(heading, justify="right" if heading else "left")
    measured, model = facts["measured"], facts["model"]
    rows = {
        name: (seconds, model["finish_seconds"][name]) for name, seconds in measured["finish_seconds"].items()
    }
    rows = {"all": (measured["seconds"], model["seconds"]), **rows}
    for name, (theirs, ours) in rows.items():
        told = f"{name} (small sites)" if name == FIRMS else name
        table.add_row(told, f"{theirs:.1f} s", f"{ours:.1f} s", f"{ours / theirs:.2f}")
    refused = (measured["rate_refused_share"], model["rate_refused_share"])
    table.add_row("refused for rate", *(f"{share:.3%}" for share in refused), "")
    return table
