"""What every test shares: hypothesis profiles, the corpora folder, real peers, and the report of skips.

A skip's reason reads `what is missing; cure: what to do`. The very last lines of a run name each
reason once, with its cure and how many tests it cost. Where CI=true a reason that begins with
`peer missing` is a failure: there the servers can be had, so their absence hides untested code.
"""

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from bench.peers import missing

PEER_MISSING = "peer missing"

# A deadline would fail tests when the machine is busy, which says nothing about the code.
_QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile(
    "default", max_examples=50, deadline=None, derandomize=True, suppress_health_check=_QUIET
)
# `make check` is for every few minutes; `make test` looks at more examples of the same properties.
settings.register_profile(
    "quick", max_examples=10, deadline=None, derandomize=True, suppress_health_check=_QUIET
)
settings.register_profile("long", max_examples=2_000, deadline=None, suppress_health_check=_QUIET)
settings.register_profile("soak", max_examples=50_000, deadline=None, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

_skips: pytest.StashKey[Counter[str]] = pytest.StashKey()


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of real bounces, replies and zones, where it lies beside the repository."""
    folder = Path(__file__).parents[2] / "shared" / "corpora"
    if not folder.is_dir():
        pytest.skip(f"corpora absent: {folder}; cure: put the corpora folder there")
    return folder


@pytest.fixture(scope="session")
def require_peer() -> Callable[[str], None]:
    """Call it with a peer's name to skip the test when that server cannot run here."""

    def require(name: str) -> None:
        reason = missing(name)
        if reason is not None:
            pytest.skip(reason)

    return require


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_skips] = Counter()


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why something was skipped, without pytest's own prefix; a marker's reason comes the same way."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _judge(report: Any, config: pytest.Config) -> None:
    """Count a skip, or turn it into a failure where the server should have been there."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = _reason(report)
    if os.environ.get("CI") == "true" and reason.startswith(PEER_MISSING):
        report.outcome = "failed"
        report.longrepr = f"{reason} (CI=true: a missing peer is a failure)"
    else:
        config.stash[_skips][reason] += 1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _judge(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _judge(report, collector.config)
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print the skips below pytest's own last line, where a person looks first."""
    skips = config.stash.get(_skips, Counter())
    for reason, count in sorted(skips.items()):
        what, _, cure = reason.partition("; cure: ")
        print(f"skipped {count}: {what} -- cure: {cure or 'none known'}")


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """Commands configure logs for their whole process; the next test must not inherit that."""
    yield
    structlog.reset_defaults()
