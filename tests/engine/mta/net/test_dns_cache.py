"""How long answers are kept, and which ones go first."""

import pytest
from dns.rdatatype import RdataType

from engine.mta.net.dns_cache import CacheLimits, DnsCache
from engine.mta.net.dns_message import Answer, AnswerKind, Question, failed

LIMITS = CacheLimits(entries_max=3, ttl_seconds_min=5, ttl_seconds_max=1_000, negative_ttl_seconds_max=100)


def question(number: int) -> Question:
    return Question(f"{number}.example", RdataType.MX)


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (Answer(AnswerKind.FOUND, 60), 60),
        (Answer(AnswerKind.FOUND, 0), 5),
        (Answer(AnswerKind.FOUND, 2**31), 1_000),
        (Answer(AnswerKind.NODATA, 60), 60),
        (Answer(AnswerKind.NODATA, 500), 100),
        (Answer(AnswerKind.NXDOMAIN, 500), 100),
        (Answer(AnswerKind.NXDOMAIN, 0), 5),
        (failed("silence", ttl_seconds=2), 2),
    ],
)
def test_an_answer_lives_as_its_zone_says_within_the_limits(answer: Answer, seconds: float) -> None:
    cache = DnsCache(LIMITS)
    assert cache.put(question(1), answer, now=10.0) == seconds
    assert cache.get(question(1), now=10.0 + seconds - 0.5) == (answer, 0.5)
    assert cache.get(question(1), now=10.0 + seconds) is None
    assert len(cache) == 0


def test_the_answer_not_asked_for_the_longest_makes_room() -> None:
    cache = DnsCache(LIMITS)
    for number in range(3):
        cache.put(question(number), Answer(AnswerKind.NODATA, 60), now=0.0)
    cache.get(question(0), now=1.0)
    cache.put(question(3), Answer(AnswerKind.NODATA, 60), now=2.0)
    assert [bool(cache.get(question(number), now=3.0)) for number in range(4)] == [True, False, True, True]
    assert repr(cache) == "<DnsCache 3/3 answers, 4 hits, 1 misses>"


def test_types_of_one_name_are_kept_apart() -> None:
    cache = DnsCache(LIMITS)
    cache.put(Question("a.example", RdataType.A), Answer(AnswerKind.NODATA, 60), now=0.0)
    assert cache.get(Question("a.example", RdataType.AAAA), now=0.0) is None
