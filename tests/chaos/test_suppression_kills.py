"""kill -9 in the middle of an import of suppressions: what was acknowledged stands, again does no harm.

Real processes, real LMDB with fsync. One is killed while it applies orders, one while it imports a file
into the store, and an engine while a file is imported over the bus.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from engine.mta.spool.suppressions import open_suppressions
from tests.contract.suppressions import HASHER
from tests.fakes.campaigns import Ran, command, emass
from tests.fakes.engine_process import started
from tests.fakes.suppression_writer import keys_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0
LINES = 150_000


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "tests.fakes.suppression_writer", str(tmp_path / "set"), "100000"]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(12)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
    store = open_suppressions(tmp_path / "set", HASHER, readonly=True)
    for number in map(int, said):
        assert all(store.standing(key) for key in keys_of(number))
    assert store.keys() >= len(said) * len(keys_of(0))
    store.environment.close()


async def test_an_import_that_was_killed_runs_again_and_is_whole(tmp_path: Path) -> None:
    write_list(tmp_path)
    (tmp_path / "data").mkdir()
    store = tmp_path / "data" / "suppressions" / "data.mdb"
    with subprocess.Popen(
        command("suppress", "import", "list.txt"), cwd=tmp_path, env=environment()
    ) as process:
        with trio.fail_after(PATIENCE_SECONDS):
            while not store.exists() or store.stat().st_blocks * 512 < 2_000_000:
                await trio.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    kept = exported(await emass("suppress", "export", "--hashes", folder=tmp_path))
    assert 0 < len(kept) < LINES, "it was to be killed in the middle"
    again = (await emass("suppress", "import", "list.txt", "--json", folder=tmp_path)).facts
    assert (again["keys"], again["added"]) == (LINES, LINES - len(kept))
    assert exported(await emass("suppress", "export", "--hashes", folder=tmp_path)) >= kept
    assert [path.name for path in (tmp_path / "data").iterdir() if path.name.startswith((".", "tmp"))] == []


async def test_an_engine_that_is_killed_during_an_import_applies_the_rest_when_it_is_back(
    tmp_path: Path,
) -> None:
    write_list(tmp_path)
    (tmp_path / "emass.toml").write_text('[node]\nname = "n1"\n')
    engine = await started(tmp_path)
    try:
        ran: list[Ran] = []

        async def import_list() -> None:
            ran.append(await emass("suppress", "import", "list.txt", "--json", folder=tmp_path))

        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(import_list)
                while not list((tmp_path / "data" / "bus").glob("cli-*/ready")):
                    await trio.sleep(0.01)
                await trio.sleep(0.3)
                engine.kill()
                await trio.to_thread.run_sync(engine.wait)
                engine = await started(tmp_path)
        assert ran[0].code == 0, ran[0].err
        assert ran[0].facts["through"] == "engine"
        assert len(exported(await emass("suppress", "export", "--hashes", folder=tmp_path))) == LINES
    finally:
        engine.terminate()
        await trio.to_thread.run_sync(engine.wait)


def write_list(folder: Path) -> None:
    (folder / "list.txt").write_text("".join(f"a{number}@d{number % 99}.test\n" for number in range(LINES)))


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def exported(ran: Ran) -> set[str]:
    assert ran.code == 0, ran.err
    return {line for line in ran.out.splitlines() if not line.startswith("#")}
