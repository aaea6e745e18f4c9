"""Where messages spend their time: the life of one in so many, cut into stages that add up.

Every N-th spool id (`[metrics] sample`) is followed: the actors that hold it tell when it passed from one
to the next, and each stage is the difference of two neighbouring moments, so that the stages are the whole
from its acceptance to the commit of its end, with nothing left over. The last thousand are kept for people,
sums by stage for a monitor. In memory only: a restart forgets them, and what is under way then is followed
from where it is met again. Others lose a comparison for it.

| stage | from | to |
|---|---|---|
| deferred | its acceptance | its latest attempt may begin (0 on the first) |
| dns | | looking up its destination, as far as it waited for that |
| fairness | it may go | the scheduler releases it to its path; less `dns` |
| throttle | it is at its path | a connection has room for it: rate, window, rests; less `connect` and `tls` |
| connect | | dialling, banner and EHLO of that connection, as far as it waited for that |
| tls | | the TLS handshake in there |
| commit | its lease is ordered | the lease is durable |
| compose | | composing, signing, and waiting for its turn on the wire |
| remote | its first octet may go | the answer to its last is there |
| settle | the answer | what became of it is durable |
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import inf

import trio
from msgspec import Struct

from engine.model.disposition import Disposition, Outcome
from engine.model.envelope import Envelope
from engine.observe.metrics import Buckets, Histogram
from engine.runtime.clock import Clock

STAGES = (
    "deferred",
    "dns",
    "fairness",
    "throttle",
    "connect",
    "tls",
    "commit",
    "compose",
    "remote",
    "settle",
)
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 3_600.0, 86_400.0)
KEPT = 1_000
UNDER_WAY_MAX = 10_000  # the oldest are forgotten: their end is not told, or lies far ahead
LOOKED_UP_MAX = 10_000
NOT_YET = -inf
_BACK = frozenset({Outcome.DEFERRED, Outcome.RETURNED, Outcome.AMBIGUOUS})


class Timeline(Struct, frozen=True):
    """One finished message. `stages` are seconds by the names of STAGES; they add up to `seconds`."""

    spool_id: int
    campaign: int
    domain: str
    outcome: str
    attempts: int
    at: float  # wall seconds of its end
    seconds: float
    stages: tuple[float, ...]


class _Line:
    """One message under way: the moments it passed (monotonic seconds)."""

    __slots__ = ("answered", "dialled", "due", "envelope", "granted", "offered", "ordered", "submitted")

    def __init__(self, offered: float) -> None:
        self.offered = offered
        self.ordered = self.granted = self.submitted = self.answered = NOT_YET
        self.due = NOT_YET  # of a retry: from then on it could go again
        self.dialled = (0.0, 0.0, 0.0)  # of its connection: begin and end of the dial, seconds of TLS in it
        self.envelope: Envelope | None = None


class Timelines:
    """All of one engine. `every` 0 = nobody is followed."""

    def __init__(self, clock: Clock, every: int) -> None:
        self.every = every
        self._clock = clock
        self._lines: OrderedDict[int, _Line] = OrderedDict()
        self._looked_up: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._finished: deque[Timeline] = deque(maxlen=KEPT)
        self._histograms = {stage: Histogram(BOUNDS) for stage in STAGES}

    def __repr__(self) -> str:
        return f"<Timelines of one in {self.every}: {len(self._lines)} under way>"

    # --- what the actors tell ----------------------------------------------------------------------------

    def looked_up(self, destination: str, began: float) -> None:
        """A look-up that began then has ended."""
        if not self.every:
            return
        self._looked_up[destination] = (began, trio.current_time())
        self._looked_up.move_to_end(destination)
        if len(self._looked_up) > LOOKED_UP_MAX:
            self._looked_up.popitem(last=False)

    def offered(self, ids: Iterable[int]) -> None:
        """The scheduler releases these to their path."""
        every = self.every
        if not every:
            return
        for spool_id in [spool_id for spool_id in ids if not spool_id % every]:
            line = self._lines.get(spool_id)
            if line is None:
                self._lines[spool_id] = line = _Line(trio.current_time())
                if len(self._lines) > UNDER_WAY_MAX:
                    self._lines.popitem(last=False)
            elif line.ordered >= line.offered:  # else it came back from a path that had to rest
                line.offered = trio.current_time()
                line.due = min(line.due, line.offered)  # an operator had it go before that

    def ordered(self, ids: Iterable[int]) -> None:
        """A connection gets these: their leases are ordered."""
        every = self.every
        if not every:
            return
        for spool_id in [spool_id for spool_id in ids if not spool_id % every]:
            if (line := self._lines.get(spool_id)) is not None:
                line.ordered = trio.current_time()

    def granted(self, envelopes: Iterable[Envelope]) -> None:
        """Their lease is durable."""
        every = self.every
        if not every:
            return
        for envelope in [each for each in envelopes if not each.spool_id % every]:
            if (line := self._lines.get(envelope.spool_id)) is not None:
                line.granted = trio.current_time()
                line.envelope = envelope
                if line.ordered < line.offered:  # by a path that has no connection: it only gives an answer
                    line.ordered = line.granted
                if envelope.attempt and line.due == NOT_YET:  # it was tried before we met it
                    line.due = line.offered

    def submitted(self, spool_id: int, dialled: tuple[float, float, float]) -> None:
        """The protocol has it. `dialled`: begin and end of its connection's dial, seconds of TLS in it."""
        if self.every and not spool_id % self.every and (line := self._lines.get(spool_id)) is not None:
            line.submitted = trio.current_time()
            line.dialled = dialled

    def answered(self, spool_id: int) -> None:
        """The peer has said what becomes of it, or has gone."""
        if self.every and not spool_id % self.every and (line := self._lines.get(spool_id)) is not None:
            line.answered = trio.current_time()

    def settled(self, batches: Iterable[tuple[int, Sequence[Disposition]]]) -> None:
        """What became of these is durable."""
        every = self.every
        if not every:
            return
        for _, dispositions in batches:
            for disposition in [each for each in dispositions if not each.spool_id % every]:
                self._settled(disposition)

    # --- cutting -----------------------------------------------------------------------------------------

    def _settled(self, disposition: Disposition) -> None:
        line = self._lines.get(disposition.spool_id)
        if line is None or line.envelope is None:
            return
        now = trio.current_time()
        if disposition.outcome in _BACK:
            wait = disposition.due - self._clock.now() if disposition.due else 0.0
            line.due = now + max(0.0, wait)
            return
        del self._lines[disposition.spool_id]
        envelope = line.envelope
        accepted = now - max(0.0, self._clock.now() - envelope.accepted_at)  # a clock may be set back
        stages = self._cut(line, accepted, now)
        for stage, seconds in zip(STAGES, stages, strict=True):
            self._histograms[stage].add(seconds)
        self._finished.append(
            Timeline(
                disposition.spool_id,
                envelope.campaign,
                envelope.domain,
                disposition.outcome.value,
                envelope.attempt + 1,
                self._clock.now(),
                now - accepted,
                stages,
            )
        )

    def _cut(self, line: _Line, accepted: float, now: float) -> tuple[float, ...]:
        """The stages. A moment that was not told, or lies before the one before it, is that one: no stage
        is below 0, and together they are the whole."""
        marks = [accepted]
        leased = (line.offered, line.ordered, line.granted)
        for moment in (line.due, *leased, line.submitted, line.answered, now):
            marks.append(min(now, max(marks[-1], moment)))
        deferred, queued, at_path, commit, compose, remote, settle = (
            later - earlier for earlier, later in pairwise(marks)
        )
        assert line.envelope is not None, "it was leased"
        began, ended = self._looked_up.get(line.envelope.domain, (0.0, 0.0))
        dns = _overlap(began, ended, marks[1], marks[2])
        began, ended, tls_seconds = line.dialled
        dialling = _overlap(began, ended, marks[2], marks[3])
        tls = min(tls_seconds, dialling)
        return (
            deferred,
            dns,
            queued - dns,
            at_path - dialling,
            dialling - tls,
            tls,
            commit,
            compose,
            remote,
            settle,
        )

    # --- for those who look ------------------------------------------------------------------------------

    def finished(self, spool_id: int = 0, domain: str = "", limit: int = KEPT) -> list[Timeline]:
        """The last ones, oldest first; of one id or domain only."""
        found = [
            each
            for each in self._finished
            if (not spool_id or each.spool_id == spool_id) and (not domain or each.domain == domain)
        ]
        return found[-limit:]

    def histograms(self) -> dict[str, Buckets]:
        """Seconds by stage, of all that were followed since the start."""
        return {stage: histogram.buckets() for stage, histogram in self._histograms.items()}


def _overlap(began: float, ended: float, start: float, end: float) -> float:
    return max(0.0, min(ended, end) - max(began, start))
