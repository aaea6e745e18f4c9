"""What is simulated, and what came of it, as data: a list, a fleet, a coordinator's ceilings, losses.

The ceilings of engine and coordinator are measured ones (docs/SCALING.md says where); every one can be
another. An engine's `per_second` are attempts: who is tried twice costs twice. Nothing here computes.
"""

import math

from msgspec import Struct

from bench.simulation.providers import Provider
from control.job.spreading import DEFAULT_BOUNDS, Bounds

UNSIGNED_PER_SECOND = 6_000.0  # one engine process of 10 KB messages; bench engine
SIGNED_PER_SECOND = 1_900.0  # an engine on two cores, RSA-2048 in its signer processes
ACCEPTS_PER_SECOND = 100_000.0  # envelopes of chunks that become durable; bench engine --queue-first
# Given out at once by weight: a plan that looks at nothing afterwards.
FIXED_PLAN = Bounds(
    chunks_ahead=2**40, ahead_seconds=1e12, waiting_min=2**50, unfinished_max=2**50, unclaimed_seconds=1e12
)


class Broadcaster(Struct, frozen=True):
    """One engine. `sources`: its addresses; `per_second`: attempts that its machine can make."""

    name: str
    per_second: float = UNSIGNED_PER_SECOND
    sources: int = 1
    weight: float = 1.0


class Coordinator(Struct, frozen=True):
    """What the one process that cuts, spreads and reports can do a second, and its bus.

    People and events share its one core: each figure is what it could do if it did nothing else.
    """

    people_per_second: float = 87_000.0  # read from a CSV file, cut into chunks and encoded
    publishes_per_second: float = 300.0  # chunks of 300 KB to one nats-server, one after the other
    claims_per_second: float = 1_250.0  # one after the other; several at a time are five times that
    events_per_second: float = 180_000.0  # read from the bus, decoded and folded into the report


class Loss(Struct, frozen=True):
    """So many broadcasters, the first ones, die together. They come back, or are retired."""

    count: int
    at_seconds: float
    returns_after_seconds: float | None = None  # None = never: an operator retires them
    retired_after_seconds: float = 600.0


class Scenario(Struct, frozen=True, kw_only=True):
    """One run."""

    messages: int
    providers: tuple[Provider, ...]
    broadcasters: tuple[Broadcaster, ...]
    coordinator: Coordinator = Coordinator()
    bounds: Bounds = DEFAULT_BOUNDS
    measures_speed: bool = True  # False: weights alone say who gets how much
    loss: Loss | None = None
    warm_up: tuple[int, ...] = ()  # messages of one address at one provider on sending day 1, 2, ...
    seed: int = 1
    step_seconds: float = 0.0  # 0 = as the length of the run asks for


class ProviderOutcome(Struct, frozen=True):
    """One provider's part; `messages` are finished ones."""

    messages: int
    attempts: int
    refused: int
    seconds: float  # until its last message


class Outcome(Struct, frozen=True, kw_only=True):
    """What came of it. Every recipient is in just one of `finished` and `given_up`."""

    messages: int
    finished: int
    given_up: int  # claimed by a broadcaster that was retired: listed as ambiguous, never sent again
    may_double: int  # on the wire when a broadcaster died, sent again when it came back
    seconds: float  # until the last of them
    seconds_50: float  # until half of those that finish
    seconds_99: float
    report_seconds: float  # until the last event was folded
    attempts: int
    refused: int
    chunks: int
    moved_chunks: int
    providers: dict[str, ProviderOutcome]
    broadcasters: dict[str, int]  # finished by each
    timeline: tuple[tuple[float, int], ...]  # (seconds, finished by then)
    steps: int

    @property
    def refused_share(self) -> float:
        return self.refused / self.attempts if self.attempts else 0.0


def fleet(
    count: int, *, per_second: float = UNSIGNED_PER_SECOND, sources: int = 1
) -> tuple[Broadcaster, ...]:
    """So many broadcasters of one kind."""
    return tuple(Broadcaster(f"b{number:02}", per_second, sources) for number in range(1, count + 1))


NO_COORDINATOR = Coordinator(math.inf, math.inf, math.inf, math.inf)  # as if it were infinitely fast
