"""The figures of a run: counts of the receivers beside what their limits allowed."""

import io

import pytest
from rich.console import Console

from bench.world.manners import Manners
from bench.world.optimum import bounds
from bench.world.provider import Provider
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec
from bench.world_report import FIRMS, panels, provider_rows, summary, tables
from bench.world_watch import Watch


def provider(name, **manners):
    site = Site((Host(f"mx.{name}.test"),), {f"{name}.test": 1})
    return ProviderSpec(name, (site,), Manners(**manners))


SPEC = WorldSpec(
    name="three",
    providers=(
        provider("alpha", rate_per_minute=60, rate_burst=1, connections_max=3),
        provider("firm00", rate_per_minute=120, rate_burst=1),
        provider("firm01"),
        provider("nobody"),
    ),
)
LIST = ["a@alpha.test"] * 11 + ["a@firm00.test"] * 5 + ["a@firm01.test"] * 2


def counts(**told):
    names = ("attempts", "rate_refusals", "connections_refused", "blocks", "blocked_refusals", "accepted")
    return {**dict.fromkeys((*names, "connections", "connections_peak", "protocol_errors"), 0), **told}


STATISTICS = {
    "totals": counts(attempts=40, rate_refusals=4, blocks=1, connections=9),
    "providers": {
        "alpha": counts(attempts=30, rate_refusals=3, accepted=10, connections_peak=4),
        "firm00": counts(attempts=8, rate_refusals=1, accepted=5, connections_peak=2),
        "firm01": counts(attempts=2, accepted=2, connections_peak=5),
        "nobody": counts(),
    },
}


@pytest.fixture
def watch():
    watch = Watch({}, began=1_000.0)
    watch.finished = 18
    watch.outcomes.update(delivered=17, bounced=1)
    watch.finish_seconds.update(alpha=12.5, firm00=3.0, firm01=8.0)
    return watch


def test_the_ratio_is_against_the_slowest_provider(watch):
    facts = summary(bounds(SPEC, LIST), STATISTICS, watch, 12.5, 0.009)
    assert (facts["messages"], facts["optimum_seconds"], facts["ratio"]) == (18, 10.0, 1.25)
    assert (facts["rate_refused_share"], facts["blocks"], facts["cpu_us_per_message"]) == (0.1, 1, 500.0)


def test_small_sites_stand_together_and_who_got_no_mail_is_left_out(watch):
    rows = provider_rows(SPEC, bounds(SPEC, LIST), STATISTICS, watch)
    assert rows.keys() == {"alpha", FIRMS}
    assert rows["alpha"]["limit_per_second"] == 1.0
    assert rows["alpha"]["achieved_per_second"] == 0.8
    firms = rows[FIRMS]
    assert (firms["messages"], firms["attempts"], firms["limit_per_second"]) == (7, 10, None)
    assert (firms["finish_seconds"], firms["connections_peak"]) == (8.0, 5)


def test_people_see_both_runs_side_by_side(watch):
    allowed = bounds(SPEC, LIST)
    facts = summary(allowed, STATISTICS, watch, 12.5, 0.009)
    facts["world_cpu_us_per_message"] = 20.0
    facts["providers"] = provider_rows(SPEC, allowed, STATISTICS, watch)
    console = Console(file=io.StringIO(), width=120)
    for table in tables({"adaptive": facts, "fixed": facts}):
        console.print(table)
    told = console.file.getvalue()
    assert "adaptive" in told
    assert "providers, fixed" in told
    assert "10.00%" in told


def test_panels_share_the_clock_of_the_run(watch):
    def line(begin, accepted):
        return {"begin": begin, "accepted": accepted, "refused": [0] * len(accepted)}

    timeline = {
        "at": 1_010.0,  # ten seconds after the run began, when the receivers' clock said 60
        "now": 60.0,
        "providers": {
            "alpha": line(52, [7, 8]),
            "firm00": line(50, [1]),
            "firm01": line(49, [2, 3, 4]),
            "nobody": line(-1, []),
        },
    }
    alpha, nobody, firms = panels(SPEC, timeline, watch)
    assert (alpha.title, list(alpha.accepted), alpha.limit) == ("alpha", [0, 0, 7, 8], 1.0)
    assert (list(nobody.accepted), nobody.limit) == ([], None)
    assert list(firms.accepted) == [2 + 3 + 1, 4]


def test_the_report_knows_the_counts_that_a_provider_tells():
    assert Provider("alpha", Manners()).statistics().keys() >= STATISTICS["providers"]["alpha"].keys()
