"""When a deferred envelope is tried again: a table, and what holds for every number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.tables import RetryTable
from engine.config.units import Duration
from engine.mta.policy.retry import EXPIRY_MARGIN_SECONDS, retry_at

NOW = 1_800_000_000.0
TABLE = RetryTable(first=Duration(300), factor=2.0, max=Duration(3600), jitter=0.2)
MIDDLE = 0.5  # dice that fall on no jitter


@pytest.mark.parametrize(
    ("attempt", "left", "chance", "blameless", "pause"),
    [
        (0, 9e9, MIDDLE, False, 300),
        (1, 9e9, MIDDLE, False, 600),
        (3, 9e9, MIDDLE, False, 2_400),
        (4, 9e9, MIDDLE, False, 3_600),  # the ceiling
        (255, 9e9, MIDDLE, False, 3_600),
        (0, 9e9, 0.0, False, 240),  # jitter, the earliest
        (0, 9e9, 1.0, False, 360),
        (5, 9e9, MIDDLE, True, 300),  # greylisting wants the same tuple soon, whatever the attempt
        (5, 9e9, 0.0, True, 240),
        (3, 2_000, MIDDLE, False, 1_999),  # the last try comes just before the expiry
        (3, 151.5, MIDDLE, False, 150.5),
        (3, 151.0, MIDDLE, False, None),  # less than half of the first interval is no try of its own
        (0, 0.0, MIDDLE, False, None),
        (0, -5.0, MIDDLE, False, None),
        (0, float("inf"), MIDDLE, False, 300),
    ],
)
def test_the_next_attempt(
    attempt: int, left: float, chance: float, blameless: bool, pause: float | None
) -> None:
    due = retry_at(TABLE, attempt, NOW, NOW + left, chance, blameless=blameless)
    assert due == (None if pause is None else pytest.approx(NOW + pause, abs=1e-3))


tables = st.builds(
    lambda first, more, factor, jitter: RetryTable(
        first=Duration(first),
        factor=factor,
        max=Duration(first + more),
        jitter=jitter,
        expire_after=Duration(1e9),
        expire_after_transactional=Duration(1e9),
    ),
    st.floats(1.0, 3_600.0),
    st.floats(0.0, 100_000.0),
    st.floats(1.0, 10.0),
    st.floats(0.0, 0.9),
)


@given(tables, st.integers(0, 255), st.floats(0.1, 1e6), st.floats(0.0, 1.0, exclude_max=True), st.booleans())
def test_it_lies_between_now_and_the_expiry_and_within_the_jitter(
    table: RetryTable, attempt: int, left: float, chance: float, blameless: bool
) -> None:
    expires_at = NOW + left
    due = retry_at(table, attempt, NOW, expires_at, chance, blameless=blameless)
    pause = min(table.first * table.factor ** (0 if blameless else min(attempt, 64)), table.max)
    slack = 1e-3  # a double holds wall seconds to a quarter of a microsecond
    if due is None:
        assert left <= max(pause * (1 - table.jitter), table.first / 2) + EXPIRY_MARGIN_SECONDS + slack
        return
    assert NOW < due < expires_at
    assert due - NOW <= pause * (1 + table.jitter) + slack
    brought_forward = expires_at - EXPIRY_MARGIN_SECONDS
    assert due - NOW >= pause * (1 - table.jitter) - slack or due == brought_forward


def test_a_delay_that_the_reply_names_is_kept_and_never_shortened() -> None:
    assert retry_at(TABLE, 5, NOW, NOW + 9e9, 0.0, after_seconds=600) == NOW + 600
    assert retry_at(TABLE, 0, NOW, NOW + 9e9, 1.0, after_seconds=600) == pytest.approx(NOW + 720)


def test_a_named_delay_beyond_the_expiry_brings_the_last_attempt_forward() -> None:
    assert retry_at(TABLE, 0, NOW, NOW + 2_000, MIDDLE, after_seconds=7_200) == NOW + 1_999
