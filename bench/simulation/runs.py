"""What `bench scale` asks: the sections of its table, each some scenarios that differ in one thing.

A section is a function that asks a `Runner` for rows; `SECTIONS` names them. A row is one run with the bound
that `optimum` computes for it. Efficiency is bound over time. A scenario that several sections have in
common runs once. Pure but for the processor time of a run.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from bench.simulation.fleet import simulate
from bench.simulation.model import (
    FIXED_PLAN,
    SIGNED_PER_SECOND,
    UNSIGNED_PER_SECOND,
    Loss,
    Outcome,
    Scenario,
    fleet,
)
from bench.simulation.optimum import Bound, optimum
from bench.simulation.providers import MIXES, known_providers, with_shared_limit

SHARED_PER_SECOND = 250.0  # what one sending domain may do at the largest provider, all addresses together
RETURN_SECONDS = 1_800.0
SLOW_SHARE = 0.25
SOURCES = (1, 4, 16)
LIMITS = (0.5, 1.0, 2.0)
WARM_UP_FIRST, WARM_UP_DAYS = 5_000, 14  # twice as many each day
AHEAD_SECONDS = (30.0, 120.0, 3_600.0)


class Plan(Struct, frozen=True, kw_only=True):
    """What all sections have in common. `base`: how many broadcasters where that is not the question."""

    messages: int
    counts: tuple[int, ...]
    base: int
    per_second: float = SIGNED_PER_SECOND
    shared_per_second: float = SHARED_PER_SECOND
    seed: int = 1

    def scenario(
        self, count: int = 0, *, mix: str = "real", limits: float = 1.0, sources: int = 1
    ) -> Scenario:
        return Scenario(
            messages=self.messages,
            providers=known_providers(mix, limits),
            broadcasters=fleet(count or self.base, per_second=self.per_second, sources=sources),
            seed=self.seed,
        )


class Row(Struct, frozen=True):
    label: str
    scenario: Scenario
    bound: Bound
    outcome: Outcome
    cpu_seconds: float

    @property
    def efficiency(self) -> float:
        return self.bound.seconds / self.outcome.seconds

    @property
    def per_second(self) -> float:
        return self.outcome.finished / self.outcome.seconds

    def facts(self) -> dict[str, Any]:
        """As `--json` prints it."""
        outcome = self.outcome
        return {
            "label": self.label,
            "broadcasters": len(self.scenario.broadcasters),
            "messages": outcome.messages,
            "finished": outcome.finished,
            "given_up": outcome.given_up,
            "may_double": outcome.may_double,
            "seconds": round(outcome.seconds, 1),
            "seconds_50": round(outcome.seconds_50, 1),
            "seconds_99": round(outcome.seconds_99, 1),
            "report_seconds": round(outcome.report_seconds, 1),
            "optimum_seconds": round(self.bound.seconds, 1),
            "bound_by": self.bound.by,
            "efficiency": round(self.efficiency, 4),
            "messages_per_second": round(self.per_second, 1),
            "attempts": outcome.attempts,
            "refused_share": round(outcome.refused_share, 6),
            "chunks": outcome.chunks,
            "moved_chunks": outcome.moved_chunks,
            "steps": outcome.steps,
            "cpu_seconds": round(self.cpu_seconds, 2),
        }


class Runner:
    """Runs scenarios of one plan, each once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._known: dict[str, Row] = {}

    def __repr__(self) -> str:
        return f"<Runner of {len(self._known)} scenarios with {self.plan.messages:,} messages>"

    def run(self, label: str, scenario: Scenario) -> Row:
        """One run and its bound, which counts those alone that it finished."""
        key = repr(scenario)
        if key not in self._known:
            began = time.process_time()
            outcome = simulate(scenario)
            spent = time.process_time() - began
            self._known[key] = Row(label, scenario, optimum(scenario, outcome.finished), outcome, spent)
        return replace(self._known[key], label=label)


def broadcasters(runner: Runner) -> Iterator[Row]:
    for count in runner.plan.counts:
        yield runner.run(f"{count}", runner.plan.scenario(count))


def engines(runner: Runner) -> Iterator[Row]:
    """No limit but our own: engines of one core unsigned, of two cores signed, and one coordinator."""
    for name, per_second in (("signed", SIGNED_PER_SECOND), ("unsigned", UNSIGNED_PER_SECOND)):
        for count in runner.plan.counts:
            scenario = runner.plan.scenario(count, limits=0)
            yield runner.run(
                f"{count} {name}", replace(scenario, broadcasters=fleet(count, per_second=per_second))
            )


def shared(runner: Runner) -> Iterator[Row]:
    for count in runner.plan.counts:
        scenario = runner.plan.scenario(count)
        limited = with_shared_limit(scenario.providers, runner.plan.shared_per_second)
        yield runner.run(f"{count}", replace(scenario, providers=limited))


def mixes(runner: Runner) -> Iterator[Row]:
    for mix in MIXES:
        yield runner.run(mix, runner.plan.scenario(mix=mix))


def losses(runner: Runner) -> Iterator[Row]:
    """The first ones die when half of the list is done. A tenth, a fifth, half of them."""
    whole = runner.run("none lost", runner.plan.scenario())
    yield whole
    at = whole.outcome.seconds / 2
    for count in sorted(
        {max(1, runner.plan.base // 10), max(1, runner.plan.base // 5), max(1, runner.plan.base // 2)}
    ):
        if count < runner.plan.base:
            back = Loss(count, at, returns_after_seconds=RETURN_SECONDS)
            yield runner.run(f"{count} lost, back after 30 min", replace(whole.scenario, loss=back))
            yield runner.run(f"{count} lost, retired", replace(whole.scenario, loss=Loss(count, at)))


def slow(runner: Runner) -> Iterator[Row]:
    """One engine at a quarter of the others' speed, which nobody said."""
    scenario = runner.plan.scenario(limits=0)
    first, *rest = scenario.broadcasters
    lame = replace(first, per_second=first.per_second * SLOW_SHARE)
    scenario = replace(scenario, broadcasters=(lame, *rest))
    yield runner.run("by measured speed", scenario)
    yield runner.run("by equal weights", replace(scenario, bounds=FIXED_PLAN, measures_speed=False))


def addresses(runner: Runner) -> Iterator[Row]:
    for sources in SOURCES:
        yield runner.run(f"{sources} for each broadcaster", runner.plan.scenario(sources=sources))


def limits(runner: Runner) -> Iterator[Row]:
    for factor in LIMITS:
        yield runner.run(f"rates x {factor:g}", runner.plan.scenario(limits=factor))


def ahead(runner: Runner) -> Iterator[Row]:
    """How far the coordinator goes ahead of the engines."""
    for seconds in AHEAD_SECONDS:
        scenario = runner.plan.scenario()
        yield runner.run(
            f"{seconds:g} s", replace(scenario, bounds=replace(scenario.bounds, ahead_seconds=seconds))
        )
    yield runner.run("everything at once", replace(scenario, bounds=FIXED_PLAN))


def warm_up(runner: Runner) -> Iterator[Row]:
    """Addresses that nobody knows: a quota for each address and provider that doubles every day."""
    quotas = tuple(WARM_UP_FIRST * 2**day for day in range(WARM_UP_DAYS))
    yield runner.run("known addresses", runner.plan.scenario())
    yield runner.run(f"new ones, {WARM_UP_FIRST:,} on day 1", replace(runner.plan.scenario(), warm_up=quotas))


SECTIONS: dict[str, tuple[str, Callable[[Runner], Iterator[Row]]]] = {
    "broadcasters": (
        "Broadcasters with one address each, providers with limits for each address",
        broadcasters,
    ),
    "shared": ("The same, where the largest provider also limits the sending domain", shared),
    "engines": ("No provider limits anything: our own ceilings", engines),
    "mixes": ("Who the list goes to", mixes),
    "losses": ("Broadcasters that die at half time", losses),
    "slow": ("One slow machine among equals, no limits", slow),
    "addresses": ("More addresses for each broadcaster: a recipient domain has one of them", addresses),
    "limits": ("What providers let in", limits),
    "ahead": ("How far ahead chunks are dealt", ahead),
    "warm_up": ("Warming up", warm_up),
}
