"""The least time that limits allow: each term by hand, and no sender on a model clock beats it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.world.manners import Manners, bounced, busy
from bench.world.optimum import allowed_per_second, bounds, optimum_seconds
from bench.world.sources import SourceAccount
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec

LIST = [f"r{number}@box.test" for number in range(100)]


def world(**manners):
    site = Site((Host("mx.box.test"),), {"box.test": 1})
    return WorldSpec(name="one", providers=(ProviderSpec("box", (site,), Manners(**manners)),))


@pytest.mark.parametrize(
    ("manners", "seconds"),
    [
        ({}, 0.0),
        ({"rate_per_minute": 60, "rate_burst": 10}, 90.0),
        ({"rate_per_minute": 60, "rate_window_seconds": 5.0}, 95.0),
        ({"connections_max": 4, "tarpit": {"content": 0.2, "banner": 9.0}}, 5.0),
        ({"connections_max": 4, "tarpit_per_connection": 0.1}, 10.0),
        ({"greylist_seconds": 30.0}, 30.0),
        ({"rate_per_minute": 60, "rate_burst": 10, "greylist_seconds": 30.0}, 190.0),
        ({"troubles": (busy(1.0, 7.0),), "greylist_seconds": 30.0}, 37.0),
        ({"rate_per_minute": 60, "rate_burst": 10, "troubles": (bounced(0.5),)}, 90.0),
    ],
)
def test_the_longest_term_binds(manners, seconds):
    assert optimum_seconds(world(**manners), LIST) == pytest.approx(seconds)


def test_a_recipient_without_a_provider_costs_nothing():
    spec = world(rate_per_minute=60, rate_burst=1)
    assert bounds(spec, ["a@elsewhere.test"]) == {}
    assert optimum_seconds(spec, []) == 0.0


def test_what_is_allowed_in_the_long_run():
    assert allowed_per_second(Manners()) == float("inf")
    assert allowed_per_second(Manners(rate_per_minute=120)) == 2.0
    assert allowed_per_second(Manners(rate_per_minute=130, rate_window_seconds=1.0)) == 2.0
    assert allowed_per_second(Manners(connections_max=5, tarpit={"content": 0.5})) == 10.0


@given(st.integers(1, 200), st.integers(1, 20), st.sampled_from([0.0, 0.5, 2.0]), st.floats(0.01, 0.5))
def test_no_sender_is_faster(messages, burst, window_seconds, step):
    spec = world(rate_per_minute=600, rate_burst=burst, rate_window_seconds=window_seconds)
    account = SourceAccount(spec.providers[0].manners)
    now, sent = 0.0, 0
    while sent < messages:
        if account.over_rate(now):
            now += step
        else:
            sent += 1
    assert now >= optimum_seconds(spec, LIST[:1] * messages) - 1e-6
