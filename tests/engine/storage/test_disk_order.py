"""The order on the disk: what was acknowledged survives a power cut at any moment, torn writes included.

kill -9 keeps the page cache, so it proves nothing about syncs. Here a process that accepts, leases and
settles is recorded with strace; then files are built from the recording as a power cut may leave them,
and each is opened and asked for everything that had been acknowledged by then. A lease is acknowledged
before its first octet can reach the wire, so the same proof covers "durable before the wire".
"""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from tests.fakes.disk_log import DiskLog, read_log, record
from tests.fakes.power_cut import Known, check
from tests.fakes.spool_house import quick_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("strace") is None, reason="peer missing: strace; cure: apt-get install strace"
    ),
]
CHUNKS = 20
CUTS_PER_SEED = 50


@dataclass
class History:
    log: DiskLog
    keys: bytes


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    folder = tmp_path_factory.mktemp("recorded")
    program = [sys.executable, "-m", "tests.fakes.spool_writer", str(folder), "7", str(CHUNKS)]
    record(program, folder / "strace.log")
    log = read_log(folder / "strace.log", folder / "spool" / "data.mdb")
    (folder / "strace.log").unlink()
    return History(log, (folder / "rows.keys").read_bytes())


@pytest.fixture
def place() -> Iterator[Path]:
    with quick_folder() as folder:
        yield folder


def known_at(log: DiskLog, cut: int) -> Known:
    known = Known()
    for said in log.said:
        if said.at < cut:
            known.take(said.text)
    return known


def test_the_recording_is_complete_and_holds_nothing_unexpected(history: History) -> None:
    known = known_at(history.log, history.log.length)
    assert len(known.chunks) == CHUNKS
    assert len(known.accepted) > 100
    assert set(known.asked.values()) == {"delivered", "deferred", "returned", "bounced", "ambiguous"}
    assert len(history.log.syncs) > CHUNKS
    assert history.log.surprises == []


def test_the_folder_knows_the_new_file_before_anything_is_acknowledged(history: History) -> None:
    first = history.log.said[0].at
    assert any(sync.ended < first for sync in history.log.folder_syncs)


def test_a_commit_syncs_its_pages_before_it_writes_its_meta_page_and_syncs_that(history: History) -> None:
    log = history.log
    metas = [write for write in log.writes if write.dsync]
    assert len(metas) > CHUNKS
    assert {write.offset // 4096 for write in metas} == {0, 1}
    for meta in metas:
        pages = [write for write in log.writes if not write.dsync and write.began < meta.began]
        assert pages
        assert all(log.durable(page, meta.began) for page in pages)


def test_what_is_acknowledged_is_durable_at_that_moment(history: History, place: Path) -> None:
    """At each acknowledgement the durable writes alone hold what it says."""
    for number, said in enumerate(history.log.said):
        if "settling" not in json.loads(said.text):
            octets = history.log.after_power_cut(said.at, None)
            known = known_at(history.log, said.at + 1)
            trio.run(check, octets, history.keys, known, place / str(number))


@pytest.mark.parametrize("seed", range(4))
def test_any_power_cut_leaves_a_store_that_recovers(history: History, place: Path, seed: int) -> None:
    chance = random.Random(seed)
    first = history.log.said[0].at
    for number in range(CUTS_PER_SEED):
        cut = chance.randrange(first + 1, history.log.length + 1)
        octets = history.log.after_power_cut(cut, chance)
        trio.run(check, octets, history.keys, known_at(history.log, cut), place / str(number))


def test_without_its_syncs_the_same_program_would_lose_mail(history: History, place: Path) -> None:
    """The proof has teeth: with the syncs taken out of the recording it fails.

    In a process of its own, since LMDB may take it down when pages are missing that its meta page names.
    """
    log = replace(history.log, syncs=[])
    (place / "data.mdb").write_bytes(log.after_power_cut(log.length, None))
    (place / "rows.keys").write_bytes(history.keys)
    (place / "said").write_text("\n".join(said.text for said in log.said))
    program = [sys.executable, "-m", "tests.fakes.power_cut", str(place)]
    assert subprocess.run(program, capture_output=True, timeout=60, check=False).returncode != 0
    (place / "data.mdb").write_bytes(history.log.after_power_cut(log.length, None))
    assert subprocess.run(program, capture_output=True, timeout=60, check=False).returncode == 0
