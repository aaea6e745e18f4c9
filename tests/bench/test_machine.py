"""What a benchmark says of its machine is true."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import machine


def test_cores_are_those_that_may_be_used() -> None:
    assert machine.cores() == len(os.sched_getaffinity(0)) >= 1


def test_memory_is_private_and_mapped_apart() -> None:
    before = machine.memory_mb()
    ballast = mmap.mmap(-1, 30_000_000)  # pages of its own: what earlier tests freed is not used again
    ballast.write(bytes(30_000_000))
    grown = machine.memory_mb()
    assert grown["rss_mb"] - before["rss_mb"] > 25
    assert grown["rss_file_mb"] - before["rss_file_mb"] < 5
    ballast.close()


def test_memory_of_another_process_can_be_asked_for() -> None:
    assert machine.memory_mb(os.getpid())["rss_mb"] == pytest.approx(machine.memory_mb()["rss_mb"], abs=5)


def test_cpu_time_only_grows_with_work() -> None:
    before = machine.cpu_seconds()
    assert sum(n * n for n in range(200_000))
    assert machine.cpu_seconds() > before


def test_written_octets_never_shrink(tmp_path: Path) -> None:
    before = machine.written_octets()
    with (tmp_path / "file").open("wb") as file:
        file.write(os.urandom(1_000_000))
        file.flush()
        os.fsync(file.fileno())
    assert machine.written_octets() >= before


def test_versions_name_the_interpreter() -> None:
    assert machine.versions()["python"] == ".".join(map(str, sys.version_info[:3]))


def test_pinning_keeps_a_process_on_one_core() -> None:
    core = min(os.sched_getaffinity(0))
    program = f"from bench import machine; machine.pin({core}); machine.pin(10_000); print(machine.cores())"
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert told.stdout.strip() == b"1"


def test_the_cpu_time_of_a_process_grows_and_that_of_a_dead_one_is_nothing() -> None:
    before = machine.cpu_seconds_of(os.getpid())
    while machine.cpu_seconds_of(os.getpid()) == before:
        sum(range(100_000))
    assert machine.cpu_seconds_of(os.getpid()) == pytest.approx(machine.cpu_seconds(), abs=0.1)
    assert machine.cpu_seconds_of(2**22) == 0.0
