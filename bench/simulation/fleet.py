"""Broadcasters and one coordinator in virtual time: `simulate(scenario)` runs a list to its end.

A step is some seconds: the coordinator cuts and deals chunks (`control.job.spreading`, by weight times the
speed that `control.job.roster` measures), each engine divides its speed among its paths (whoever wants
little gets it, the others the same), and each path takes its turn (`path`). Paths whose control loop
moves, and those that meet a shared limit, go in parts of half a second, as often as an engine looks.
Pure and deterministic: the dice are seeded, there is no clock. That every recipient is accounted for, and
that no limit is exceeded in any step, is asserted as it goes.
"""

import math
import random
from collections.abc import Sequence

from bench.simulation.coordinator import CoordinatorModel
from bench.simulation.model import Broadcaster, Outcome, ProviderOutcome, Scenario
from bench.simulation.optimum import optimum
from bench.simulation.path import DRIFT_SECONDS, DRIFT_SECONDS_MAX, LOOK_SECONDS, NEVER, Allowance, FluidPath
from bench.simulation.providers import Provider
from control.job.roster import LIVE_SECONDS, Speed
from engine.model.egress import Source
from engine.mta.policy.egress import DEFAULT_WAY, Egress

STEPS = 2_000  # about so many for a run, within these bounds
STEP_SECONDS_MAX = 20.0  # a coordinator goes 120 s ahead: paths must not run dry within a step
SECONDS_MAX = 400 * 86_400.0  # nothing takes a year: then it is a bug
TIMELINE_POINTS = 240
ROUNDING = 1e-9  # of sums of parts of a step
STATUS_SECONDS = 2.0  # how often an engine tells of itself


class BroadcasterModel:
    """One engine: its paths, by provider, and what waits in its spool."""

    def __init__(self, spec: Broadcaster, scenario: Scenario, step_seconds: float = LOOK_SECONDS) -> None:
        self.spec = spec
        self.alive = True
        self.died_at = -math.inf
        self.speed = Speed()
        self.paths: list[list[tuple[FluidPath, float]]] = []
        drift_seconds = min(DRIFT_SECONDS_MAX, max(DRIFT_SECONDS, step_seconds / 4))
        egress = Egress([Source(f"{spec.name}-ip-{number}", "") for number in range(1, spec.sources + 1)])
        for provider in scenario.providers:
            parts = placed(provider, egress, spec.sources)
            self.paths.append(
                [(FluidPath(provider, 0.0, scenario.warm_up, drift_seconds), part) for part in parts]
            )
        self.flat = [path for paths in self.paths for path, _ in paths]
        self._owed = [[0.0] * len(paths) for paths in self.paths]

    def __repr__(self) -> str:
        return f"<BroadcasterModel {self.spec.name}: {self.waiting:,} waiting, alive={self.alive}>"

    @property
    def waiting(self) -> int:
        return sum(path.waiting for path in self.flat)

    @property
    def fresh(self) -> int:
        return sum(path.fresh for path in self.flat)

    @property
    def tried(self) -> int:
        return sum(path.tried for path in self.flat)

    @property
    def finished(self) -> int:
        return sum(path.finished for path in self.flat)

    def accept(self, counts: Sequence[int]) -> None:
        """A chunk with so many people of each provider is in its spool."""
        for count, paths, owed in zip(counts, self.paths, self._owed, strict=True):
            left = count
            for index, (path, part) in enumerate(paths):
                owed[index] += count * part
                whole = left if index == len(paths) - 1 else min(left, max(0, int(owed[index])))
                owed[index] -= whole
                left -= whole
                path.fresh += whole

    def known_alive(self, now: float) -> bool:
        """As the coordinator sees it."""
        return self.alive or now - self.died_at < LIVE_SECONDS

    def die(self, now: float) -> int:
        """Returns how many messages were on the wire."""
        self.alive, self.died_at = False, now
        return sum(min(path.in_flight, path.ready) for path in self.flat)

    def return_(self, now: float) -> None:
        self.alive = True
        for path in self.flat:
            path.start_anew(now)


def placed(provider: Provider, egress: Egress, sources: int) -> list[float]:
    """The parts of a provider's mail on each address that carries some: a domain has one address."""
    if provider.sites != 1 or sources == 1:
        return [1.0] if provider.sites != 1 or not provider.domains else [sum(p for _, p in provider.domains)]
    parts: dict[str, float] = {}
    for domain, part in provider.domains or ((f"{provider.name}.example", 1.0),):
        source = egress.source_for(DEFAULT_WAY, domain, lambda _: True)
        parts[source.name] = parts.get(source.name, 0.0) + part
    return list(parts.values())


def share_out(demands: Sequence[int], speed: int) -> list[int]:
    """An engine's speed among its paths: who wants little gets it, the others as much as each other."""
    if sum(demands) <= speed:
        return list(demands)
    given = [0] * len(demands)
    left, order = speed, sorted(range(len(demands)), key=lambda index: demands[index])
    for position, index in enumerate(order):
        given[index] = min(demands[index], left // (len(order) - position))
        left -= given[index]
    return given


class FleetModel:
    """One run as it goes."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.now = 0.0
        self.steps = 0
        self.given_up = 0
        self.may_double = 0
        self.step_seconds = scenario.step_seconds or min(
            STEP_SECONDS_MAX, max(LOOK_SECONDS, optimum(scenario).seconds / STEPS)
        )
        self.broadcasters = [
            BroadcasterModel(spec, scenario, self.step_seconds) for spec in scenario.broadcasters
        ]
        self.coordinator = CoordinatorModel(scenario, self.broadcasters)
        self._dice = random.Random(scenario.seed)
        self._shared = [Allowance(each.shared_per_second, each.burst_seconds) for each in scenario.providers]
        self._provider_at = [0.0] * len(scenario.providers)
        self._history: list[tuple[float, int]] = [(0.0, 0)]
        self._told_at = -math.inf
        self._loss = 0  # what of the loss has happened

    def __repr__(self) -> str:
        return f"<FleetModel at {self.now:,.1f} s, {self.finished:,} finished>"

    @property
    def finished(self) -> int:
        return sum(each.finished for each in self.broadcasters)

    @property
    def done(self) -> bool:
        return self.finished + self.given_up == self.scenario.messages

    def run(self) -> Outcome:
        while not self.done:
            self.step()
            assert self.now < SECONDS_MAX, f"no end: {self!r}"
        sending_seconds = self._history[-1][0]
        self.check()
        return self._outcome(sending_seconds, sending_seconds + self.coordinator.fold_rest())

    def check(self) -> None:
        """Every recipient is in one place."""
        waiting = sum(each.waiting for each in self.broadcasters)
        together = self.finished + self.given_up + waiting + self.coordinator.held
        assert together == self.scenario.messages, f"{together:,} of {self.scenario.messages:,} recipients"

    def step(self) -> None:
        now = self.now
        self._lose(now)
        seconds = self._seconds_of_step(now)
        handed = self.coordinator.hand_out(now, seconds)
        budgets = [self._budgets(each, now, seconds) for each in self.broadcasters]
        attempts = 0
        for index, provider in enumerate(self.scenario.providers):
            paths = [
                (path, budget)
                for one, budget_of in zip(self.broadcasters, budgets, strict=True)
                if one.alive
                for (path, _), budget in zip(one.paths[index], budget_of[index], strict=True)
                if path.ready and not path.over_quota(now)
            ]
            if not paths:
                continue
            before = sum(path.finished for path, _ in paths)
            if math.isinf(provider.shared_per_second):
                went = sum(self._alone(path, budget, now, seconds) for path, budget in paths)
            else:
                went = self._together(paths, self._shared[index], now, seconds)
            attempts += went
            if sum(path.finished for path, _ in paths) > before:
                self._provider_at[index] = now + seconds
        self._check_speed(budgets, seconds)
        self.coordinator.told(attempts)
        self.now = now + seconds
        self.steps += 1
        if self.now - self._told_at >= STATUS_SECONDS:
            self._told_at = self.now
            for each in self.broadcasters:
                if each.alive:
                    each.speed.add(each.tried, each.fresh, self.now)
        if attempts:
            self._history.append((self.now, self.finished))
        elif not handed and not self.done:
            self.now = max(self.now, self._next_at())

    # --- one provider's step ---------------------------------------------------------------------------

    def _alone(self, path: FluidPath, budget: int, now: float, seconds: float) -> int:
        """One path whose limits are its own."""
        attempts, at, ends = 0, now, now + seconds
        while at < ends - ROUNDING:
            stride = min(ends - at, path.stride_seconds(at))
            wanted = path.wants(at, stride, budget - attempts)
            let_in = path.allowance.take(at, stride, wanted) if wanted else 0
            refused = min(wanted - let_in, path.in_flight)
            attempts += path.went(at, stride, wanted, let_in, refused, self._dice.random())
            at += stride
        return attempts

    def _together(
        self, paths: Sequence[tuple[FluidPath, int]], shared: Allowance, now: float, seconds: float
    ) -> int:
        """All paths to a provider that also limits the sending domain: whom it refuses is chance."""
        left = [budget for _, budget in paths]
        attempts, at, ends = 0, now, now + seconds
        while at < ends - ROUNDING:
            stride = min(ends - at, DRIFT_SECONDS, *(path.stride_seconds(at) for path, _ in paths))
            wants = [path.wants(at, stride, budget) for (path, _), budget in zip(paths, left, strict=True)]
            own = [
                path.allowance.take(at, stride, wanted) if wanted else 0
                for (path, _), wanted in zip(paths, wants, strict=True)
            ]
            offered = sum(own)
            over = self._spread(own, offered - shared.take(at, stride, offered))
            for index, (path, _) in enumerate(paths):
                let_in = own[index] - over[index]
                path.allowance.give_back(over[index])
                refused = min(wants[index] - let_in, path.in_flight)
                went = path.went(at, stride, wants[index], let_in, refused, self._dice.random())
                left[index] -= went
                attempts += went
            at += stride
        return attempts

    def _spread(self, offered: Sequence[int], over: int) -> list[int]:
        """Whom a shared limit's refusals hit: everybody for what he offers, the last few by chance."""
        if not over:
            return [0] * len(offered)
        together = sum(offered)
        hit = [over * each // together for each in offered]
        while missing := over - sum(hit):
            for index in self._dice.choices(range(len(offered)), weights=offered, k=missing):
                hit[index] += hit[index] < offered[index]
        return hit

    # --- engines ---------------------------------------------------------------------------------------

    def _budgets(self, one: BroadcasterModel, now: float, seconds: float) -> list[list[int]]:
        """What each path of an engine may try in this step, by provider."""
        if not one.alive:
            return [[0] * len(paths) for paths in one.paths]
        for path in one.flat:
            path.wake(now)
        speed = int(one.spec.per_second * seconds)
        demands = [path.ready for path in one.flat]
        if sum(demands) > speed:
            demands = [path.demand(now, seconds) for path in one.flat]
        given = iter(share_out(demands, speed))
        return [[next(given) for _ in paths] for paths in one.paths]

    def _check_speed(self, budgets: list[list[list[int]]], seconds: float) -> None:
        for one, budget in zip(self.broadcasters, budgets, strict=True):
            assert sum(map(sum, budget)) <= one.spec.per_second * seconds + 1e-6

    def _lose(self, now: float) -> None:
        loss = self.scenario.loss
        if loss is None:
            return
        lost = self.broadcasters[: loss.count]
        if self._loss == 0 and now >= loss.at_seconds - 1e-6:
            self._loss = 1
            self.may_double = sum(each.die(now) for each in lost)
        if self._loss == 1 and now >= loss.at_seconds + self._until_end - 1e-6:
            self._loss = 2
            for each in lost:
                if loss.returns_after_seconds is not None:
                    each.return_(now)
                else:
                    self.given_up += sum(path.drop() for path in each.flat)
            if loss.returns_after_seconds is None:
                self.may_double = 0  # nothing of theirs is sent again

    @property
    def _until_end(self) -> float:
        """From the loss to the return, or to the operator's word."""
        loss = self.scenario.loss
        assert loss is not None
        return (
            loss.retired_after_seconds if loss.returns_after_seconds is None else loss.returns_after_seconds
        )

    def _seconds_of_step(self, now: float) -> float:
        """A step ends where broadcasters die or return."""
        loss = self.scenario.loss
        if loss is None or self._loss == 2:
            return self.step_seconds
        event = loss.at_seconds + (self._until_end if self._loss else 0.0)
        return min(self.step_seconds, event - now) if event - now > 1e-6 else self.step_seconds

    def _next_at(self) -> float:
        """When anything can happen again."""
        times = [path.next_at(self.now) for each in self.broadcasters if each.alive for path in each.flat]
        loss = self.scenario.loss
        if loss is not None and self._loss < 2:
            times.append(loss.at_seconds + (self._until_end if self._loss else 0.0))
        soonest = min(times, default=NEVER)
        assert soonest < NEVER, f"nothing can go on: {self!r}"
        return soonest

    # --- the end ---------------------------------------------------------------------------------------

    def _outcome(self, seconds: float, report_seconds: float) -> Outcome:
        flat = [path for each in self.broadcasters for path in each.flat]
        providers = {
            provider.name: ProviderOutcome(
                sum(path.finished for path in flat if path.provider is provider),
                sum(path.attempts for path in flat if path.provider is provider),
                sum(path.refused for path in flat if path.provider is provider),
                self._provider_at[index],
            )
            for index, provider in enumerate(self.scenario.providers)
        }
        finished = self.finished
        return Outcome(
            messages=self.scenario.messages,
            finished=finished,
            given_up=self.given_up,
            may_double=self.may_double,
            seconds=seconds,
            seconds_50=next(at for at, count in self._history if count >= 0.50 * finished),
            seconds_99=next(at for at, count in self._history if count >= 0.99 * finished),
            report_seconds=report_seconds,
            attempts=sum(path.attempts for path in flat),
            refused=sum(path.refused for path in flat),
            chunks=self.coordinator.chunks,
            moved_chunks=self.coordinator.moved_chunks,
            providers=providers,
            broadcasters={each.spec.name: each.finished for each in self.broadcasters},
            timeline=thinned(self._history),
            steps=self.steps,
        )


def thinned(history: Sequence[tuple[float, int]]) -> tuple[tuple[float, int], ...]:
    """At most TIMELINE_POINTS of it, evenly, with both ends."""
    last = len(history) - 1
    count = min(last, TIMELINE_POINTS)
    return (
        tuple(history[round(index * last / count)] for index in range(count + 1)) if last else tuple(history)
    )


def simulate(scenario: Scenario) -> Outcome:
    """Run it to its end."""
    return FleetModel(scenario).run()
