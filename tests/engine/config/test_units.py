"""Texts with units: what they mean, what is refused, and that they print what they parse."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.units import (
    DURATION_SECONDS_MAX,
    CountRange,
    Duration,
    HostPort,
    Rate,
    RateRange,
    Size,
    UnitError,
    parse_unit,
)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Duration, "250 ms", 0.25),
        (Duration, "5s", 5),
        (Duration, " 15 min ", 900),
        (Duration, "1.5 h", 5400),
        (Duration, "72 h", 259_200),
        (Duration, "2 d", 172_800),
        (Duration, "0 s", 0),
        (Size, "20 MB", 20_000_000),
        (Size, "1.5 GB", 1_500_000_000),
        (Size, "20 MiB", 20_971_520),
        (Size, "7 B", 7),
        (Rate, "100/min", Rate(100, 60)),
        (Rate, "5 / s", Rate(5, 1)),
        (Rate, "10000/h", Rate(10_000, 3600)),
        (Rate, "1/d", Rate(1, 86_400)),
        (CountRange, 5, CountRange(1, 5)),
        (CountRange, "5", CountRange(1, 5)),
        (CountRange, "2..10", CountRange(2, 10)),
        (CountRange, " 3 .. 3 ", CountRange(3, 3)),
        (RateRange, "100/min", RateRange(Rate(10, 60), Rate(100, 60))),
        (RateRange, "5/min", RateRange(Rate(5, 600), Rate(5, 60))),
        (RateRange, "10/min..600/min", RateRange(Rate(10, 60), Rate(600, 60))),
        (RateRange, "1/min .. 1/s", RateRange(Rate(1, 60), Rate(1, 1))),
        (RateRange, Rate(20, 1), RateRange(Rate(2, 1), Rate(20, 1))),
        (HostPort, "127.0.0.1:53", "127.0.0.1:53"),
        (HostPort, "[::1]:5353", "[::1]:5353"),
        (HostPort, "dns.example.org:53", "dns.example.org:53"),
    ],
)
def test_texts_with_units_mean_what_they_say(kind: type, text: object, value: object) -> None:
    parsed = parse_unit(kind, text)
    assert parsed == value
    assert parse_unit(kind, parsed) == value  # what is parsed already passes


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Duration, "15"),
        (Duration, 15),
        (Duration, "15 minutes"),
        (Duration, "-1 s"),
        (Duration, "1 s 5 min"),
        (Duration, "400 d"),
        (Duration, "١ s"),
        (Size, "20"),
        (Size, 20),
        (Size, "20 mb"),
        (Size, "900 TB"),
        (Rate, "0/min"),
        (Rate, "1.5/s"),
        (Rate, "100/ms"),
        (Rate, "100"),
        (Rate, 100),
        (CountRange, 0),
        (CountRange, -1),
        (CountRange, True),
        (CountRange, 2.0),
        (CountRange, "0..5"),
        (CountRange, "5..2"),
        (CountRange, "2.."),
        (CountRange, "2...4"),
        (CountRange, "9999999999"),
        (RateRange, 5),
        (RateRange, "5"),
        (RateRange, "0/s..5/s"),
        (RateRange, "2/s..100/min"),
        (RateRange, "1/s..2/s..3/s"),
        (RateRange, "1/s.."),
        (HostPort, "127.0.0.1"),
        (HostPort, "::1:53"),
        (HostPort, "host:0"),
        (HostPort, "host:65536"),
        (HostPort, "a b:53"),
        (HostPort, 53),
    ],
)
def test_a_text_without_a_clear_unit_is_refused(kind: type, text: object) -> None:
    with pytest.raises(UnitError):
        parse_unit(kind, text)


@given(st.integers(0, int(DURATION_SECONDS_MAX * 1000)))
def test_a_duration_prints_a_text_that_parses_to_itself(milliseconds: int) -> None:
    value = Duration(milliseconds / 1000)
    assert Duration.parse(str(value)) == pytest.approx(value, abs=1e-6)


@given(st.integers(0, 2**47))
def test_a_size_prints_a_text_that_parses_to_itself(octets: int) -> None:
    assert Size.parse(str(Size(octets))) == octets


@given(st.integers(1, 10**9), st.sampled_from(["s", "min", "h", "d"]))
def test_a_rate_prints_a_text_that_parses_to_itself(count: int, unit: str) -> None:
    rate = Rate.parse(f"{count}/{unit}")
    assert str(rate) == f"{count}/{unit}"
    assert Rate.parse(str(rate)) == rate
    assert hash(Rate.parse(str(rate))) == hash(rate)


RATES = st.tuples(st.integers(1, 10**9), st.sampled_from(["s", "min", "h", "d"])).map(
    lambda pair: Rate.parse(f"{pair[0]}/{pair[1]}")
)


@given(st.integers(1, 10**9 - 1), st.integers(1, 10**9 - 1))
def test_a_range_of_counts_prints_a_text_that_parses_to_itself(one: int, other: int) -> None:
    value = CountRange(min(one, other), max(one, other))
    assert CountRange.parse(str(value)) == value
    assert hash(CountRange.parse(str(value))) == hash(value)


@given(RATES, RATES)
def test_a_range_of_rates_prints_a_text_that_parses_to_itself(one: Rate, other: Rate) -> None:
    floor, ceiling = sorted((one, other), key=lambda rate: rate.per_second)
    for value in (RateRange(floor, ceiling), RateRange.up_to(ceiling)):
        assert RateRange.parse(str(value)) == value
        assert value.floor.per_second <= value.ceiling.per_second


@given(st.text(alphabet="0123456789./smind ", max_size=20))
def test_any_text_is_a_range_or_a_unit_error(text: str) -> None:
    for kind in (CountRange, RateRange):
        with contextlib.suppress(UnitError):
            assert isinstance(parse_unit(kind, text), kind)


def test_a_range_is_a_fact_that_does_not_change_and_says_what_it_is() -> None:
    value = CountRange(2, 5)
    with pytest.raises(AttributeError):
        value.floor = 3
    assert repr(value) == "CountRange(2, 5)"
    assert value != 5


def test_a_rate_is_a_fact_that_does_not_change() -> None:
    with pytest.raises(AttributeError):
        Rate(1, 1).count = 2


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("127.0.0.1:25", True),
        ("[::1]:25", True),
        ("10.1.2.3:25", True),
        ("localhost:25", True),
        ("8.8.8.8:53", False),
        ("mx.example.org:25", False),
    ],
)
def test_only_loopback_and_private_addresses_count_as_private(text: str, private: bool) -> None:
    assert HostPort.parse(text).private is private


def test_a_port_may_have_a_default() -> None:
    assert HostPort.parse("127.0.0.1", 25).port == 25
    assert HostPort.parse("[::1]", 25) == "[::1]:25"
