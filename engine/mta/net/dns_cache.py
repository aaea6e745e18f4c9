"""Answers kept for as long as their zones allow, in bounded memory.

Decides how long each kind of answer lives (its TTL, held between a floor and a ceiling; negative
ones by RFC 2308 with a ceiling of their own; failures for seconds) and which one goes when the
cache is full (the one not asked for the longest). Pure: `now` is an argument, in monotonic
seconds. On a crash it is lost and fills again.
"""

from collections import OrderedDict

from msgspec import Struct

from engine.mta.net.dns_message import Answer, AnswerKind, Question


class CacheLimits(Struct, frozen=True):
    """How many answers and how long. Defaults as in unbound, with a floor against zones of TTL 0."""

    entries_max: int = 100_000  # about 0.5 kB each
    ttl_seconds_min: float = 5.0
    ttl_seconds_max: float = 86_400.0
    negative_ttl_seconds_max: float = 3_600.0  # RFC 2308 5 suggests one to three hours


class DnsCache:
    """Least recently used answers by question."""

    def __init__(self, limits: CacheLimits) -> None:
        assert limits.entries_max > 0
        self._limits = limits
        self._entries: OrderedDict[Question, tuple[Answer, float]] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def get(self, question: Question, now: float) -> tuple[Answer, float] | None:
        """The answer and the seconds it stays true, or None when there is none or it is too old."""
        entry = self._entries.get(question)
        if entry is None:
            self.misses += 1
            return None
        answer, expires = entry
        if expires <= now:
            del self._entries[question]
            self.misses += 1
            return None
        self._entries.move_to_end(question)
        self.hits += 1
        return answer, expires - now

    def put(self, question: Question, answer: Answer, now: float) -> float:
        """Keep an answer; returns for how many seconds."""
        lifetime = self._lifetime_seconds(answer)
        self._entries[question] = (answer, now + lifetime)
        self._entries.move_to_end(question)
        while len(self._entries) > self._limits.entries_max:
            self._entries.popitem(last=False)
        return lifetime

    def _lifetime_seconds(self, answer: Answer) -> float:
        if answer.kind is AnswerKind.FAILED:
            return answer.ttl_seconds
        ceiling = self._limits.ttl_seconds_max
        if answer.kind is not AnswerKind.FOUND:
            ceiling = min(ceiling, self._limits.negative_ttl_seconds_max)
        return min(max(answer.ttl_seconds, self._limits.ttl_seconds_min), ceiling)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return (
            f"<DnsCache {len(self):,}/{self._limits.entries_max:,} answers, "
            f"{self.hits:,} hits, {self.misses:,} misses>"
        )
