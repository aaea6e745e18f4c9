"""The saboteur: counts the steps of all tasks and strikes at the drawn ones.

A trio instrument, so that a blow can fall between any two awaits of any task: a child is told to crash,
the whole process dies, or the system's clock is set. What it does is what `kill` of a supervisor does;
nothing of the engine is replaced. A kill is a cancellation, which actors may heed; a bug is not, so some
blows let the next call to the network or to the spool raise what nobody expects.
"""

import random
from collections.abc import Callable, Sequence

import trio

from tests.sim.scenario import Blow

STEPS_MAX = 1_000_000  # 50 times what a usual run takes: it goes in circles without time passing
AGAIN_STEPS = 23


class InjectedBug(Exception):
    """What a call raises that was told to."""


class Saboteur(trio.abc.Instrument):
    """Calls `strike` with each blow when its step has come, and `overrun` when there are far too many.

    A blow that finds no victim (`strike` says False) is tried again a little later.
    """

    def __init__(
        self, blows: Sequence[Blow], strike: Callable[[Blow], bool], overrun: Callable[[], None]
    ) -> None:
        self.steps = 0
        self.error: Exception | None = None
        self._blows = sorted(blows, key=lambda blow: blow.step, reverse=True)
        self._strike = strike
        self._overrun = overrun
        self._next = self._blows[-1].step if self._blows else STEPS_MAX

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        if self.steps < self._next:
            return
        try:
            if self.steps >= STEPS_MAX:
                self._next = 2 * STEPS_MAX
                self._overrun()
                return
            hit = self._strike(self._blows[-1])
        except Exception as error:  # an instrument that raises is silently taken out
            self.error, hit = error, True
        if hit:
            self._blows.pop()
            self._next = self._blows[-1].step if self._blows else STEPS_MAX
        else:
            self._next = self.steps + AGAIN_STEPS


def pick(names: Sequence[str], dice: random.Random) -> str | None:
    return dice.choice(sorted(names)) if names else None
