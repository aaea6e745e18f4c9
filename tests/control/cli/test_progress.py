"""Progress: the arithmetic, and what a terminal and a log file see of it."""

import io

import pytest

from control.cli.progress import (
    LINE_SECONDS,
    Meter,
    Progress,
    Snapshot,
    count_sent,
    describe,
    describe_seconds,
)
from engine.mta.spool.api import StateCounts


def snapshot(delivered: int, to_send: int = 1_000, **more: int) -> Snapshot:
    return Snapshot(StateCounts(accepted=to_send, delivered=delivered, **more), to_send, retrying=3)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    meter = Meter()
    assert (meter.rate, meter.seconds_left(10)) == (0.0, None)
    for second in range(100):
        meter.add(second, 10 * second if second < 50 else 500 + 100 * (second - 50))
    assert meter.rate == 100
    assert meter.seconds_left(500) == 5
    assert meter.seconds_left(0) == 0


def test_a_stalled_campaign_has_no_time_left_to_tell() -> None:
    meter = Meter()
    meter.add(0, 5)
    meter.add(5, 5)
    meter.add(5, 5)
    assert meter.seconds_left(5) is None


def test_a_line_tells_sent_rate_deferred_bounced_and_time_left() -> None:
    meter = Meter()
    meter.add(0, 0)
    meter.add(2, 500)
    assert (
        describe(snapshot(480, bounced=20), meter)
        == "500 of 1,000 sent, 250/s, 3 deferred, 20 bounced, 0:02 left"
    )
    held = Snapshot(StateCounts(accepted=2, ambiguous=2), 2, note="reading x.csv, 40 %")
    assert "2 ambiguous" in describe(held, meter)
    assert describe(held, meter).endswith("reading x.csv, 40 %")


def test_a_forecast_stands_in_the_place_of_the_time_left() -> None:
    meter = Meter()
    meter.add(0, 0)
    meter.add(2, 500)
    told = Snapshot(StateCounts(accepted=1_000, delivered=500), 1_000, forecast="done in about 2 s")
    assert describe(told, meter) == "500 of 1,000 sent, 250/s, 0 deferred, 0 bounced, done in about 2 s"


def test_held_and_parked_envelopes_count_as_over() -> None:
    assert count_sent(StateCounts(accepted=9, delivered=1, ambiguous=2, quarantined=3)) == 6


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (7.4, "0:07"), (754, "12:34"), (18_067, "5:01:07")]
)
def test_seconds_read_as_a_clock(seconds: float, text: str) -> None:
    assert describe_seconds(seconds) == text


def test_without_a_terminal_there_is_a_line_every_few_seconds() -> None:
    stream = io.StringIO()
    with Progress(stream, terminal=False) as progress:
        for tenth in range(1, 161):
            progress.show(snapshot(tenth), tenth / 10)
    assert len(stream.getvalue().splitlines()) == int(16 / LINE_SECONDS)
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_sees_a_bar_after_the_first_second_only() -> None:
    stream = io.StringIO()
    with Progress(stream, terminal=True) as progress:
        progress.show(snapshot(1), 50.0)
        progress.show(snapshot(2), 50.9)
        assert stream.getvalue() == ""
        progress.show(snapshot(500), 51.5)
        assert "500 of 1,000 sent" in stream.getvalue()
