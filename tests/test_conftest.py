"""The report of skips does what `conftest` promises; shown on a small run of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SKIPPING = """
import pytest

def test_passes():
    pass

@pytest.mark.parametrize("n", range(2))
def test_wants_a_peer(n):
    pytest.skip("peer missing: nosuchd; cure: install it")

@pytest.mark.skip(reason="corpora absent: x; cure: fetch them")
def test_wants_corpora():
    pass
"""


def run(folder: Path, *, ci: str) -> subprocess.CompletedProcess[str]:
    test = folder / "test_skipping.py"
    test.write_text(SKIPPING)
    environment = os.environ | {"CI": ci, "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-q",
        "--rootdir",
        str(folder),
        str(test),
    ]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.slow
def test_the_last_lines_name_each_skip_once_with_its_cure(tmp_path: Path) -> None:
    done = run(tmp_path, ci="")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-2:] == [
        "skipped 1: corpora absent: x -- cure: fetch them",
        "skipped 2: peer missing: nosuchd -- cure: install it",
    ]


@pytest.mark.slow
def test_in_ci_a_missing_peer_fails_and_missing_corpora_do_not(tmp_path: Path) -> None:
    done = run(tmp_path, ci="true")
    assert done.returncode == 1, done.stdout
    assert "2 failed, 1 passed, 1 skipped" in done.stdout
    assert done.stdout.splitlines()[-1] == "skipped 1: corpora absent: x -- cure: fetch them"
