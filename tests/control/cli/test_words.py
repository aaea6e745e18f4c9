"""Rates, times and sites in words."""

import pytest

from control.cli.words import rate_words, seconds_words, site_words


@pytest.mark.parametrize(
    ("rate", "words"),
    [(None, "unlimited"), (1_040.0, "1,040/s"), (20.0, "20/s"), (1.6667, "1.67/s"), (0.1, "6/min")],
)
def test_rates(rate: float | None, words: str) -> None:
    assert rate_words(rate) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "1 s"), (45, "45 s"), (720, "12 min"), (9_000, "2.5 h"), (302_400, "3.5 d")],
)
def test_times(seconds: float, words: str) -> None:
    assert seconds_words(seconds) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("at mx1.lamp.test+mx2.lamp.test: rate", "at lamp.test: rate"),
        ("mx.a.test+mx.b.test+mx.c.test", "mx.a.test (+2)"),
        ("mx.a.test", "mx.a.test"),
        ("1 + 1 messages", "1 + 1 messages"),
        ("a.lamp.test+mx2.lam~0123456789abcdef", "a.lamp.test (+1)"),
    ],
)
def test_sites_of_several_hosts_are_shortened(text: str, words: str) -> None:
    assert site_words(text) == words
