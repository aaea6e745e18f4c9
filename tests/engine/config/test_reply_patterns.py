"""Regular expressions of rule files: what could blow up is refused, what is allowed stays fast."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.reply_patterns import PATTERN_MAX, TEXT_MAX, PatternError, check_pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+",
        "(a*)*b",
        "(a|ab)*c",
        "(?:a|a)+b",
        "(?:ab|cd)+e",
        "a*b*c",
        "(a{1,20}){1,20}",
        "(.*a){12}b",
        r"(?:[a-z]{0,30} ){5}x",
        r"(a)\1",
        "(?=a)b",
        "(?<=a)b",
        "(a)(?(1)b|c)",
        "x*",
        "",
        "(",
        "[",
        "a" * (PATTERN_MAX + 1),
        "a{5000}",
    ],
)
def test_a_pattern_that_could_blow_up_or_says_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "tss0[0-9]",
        r" ofr[0-9]{0,3}(?: [0-9]{3})? 41[68] ",
        r"[a-z]+ rate",
        "(?:ip|domain|url) (?:over|above) [0-9]{1,5}",
        r"\bspam\b",
    ],
)
def test_small_patterns_are_allowed(pattern: str) -> None:
    check_pattern(pattern)


def test_a_refusal_says_what_to_write_instead() -> None:
    with pytest.raises(PatternError) as refused:
        check_pattern("(a+)+")
    assert "{0,20}" in refused.value.hint


@given(st.text(alphabet="ab|()[]{}*+?.^$\\1,20-=<!:", max_size=30))
def test_whatever_is_allowed_ends_soon_on_hostile_texts(pattern: str) -> None:
    try:
        check_pattern(pattern)
    except PatternError:
        return
    started = time.process_time()
    for text in ("a" * TEXT_MAX, "ab" * (TEXT_MAX // 2), "a" * (TEXT_MAX - 1) + "!"):
        re.search(pattern, text)
    assert time.process_time() - started < 2.0
