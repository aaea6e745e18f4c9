"""`bench suppression`, tiny: every figure is there and possible."""

from argparse import Namespace
from pathlib import Path

import pytest

from bench import suppression


@pytest.mark.slow
def test_a_tiny_run_tells_every_figure(tmp_path: Path) -> None:
    facts = suppression.run(Namespace(entries=3_000, lookups=1_000, folder=tmp_path))
    assert facts["entries"] == 3_000
    for name in ("import_seconds", "entries_per_second", "disk_octets", "cores", "mapped_mb"):
        assert facts[name] > 0, name
    for name in ("first", "hit", "miss", "miss_with_subscriber"):
        assert 0 < facts[f"lookup_us_{name}"] < 1_000
    assert facts["private_mb"] < 50
    assert list(tmp_path.iterdir()) == []


def test_addresses_are_all_different() -> None:
    assert len({suppression.address(number) for number in range(3_000)}) == 3_000
