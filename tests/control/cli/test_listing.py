"""Envelopes of a data folder one by one: listed in pages, opened with the keys, and without them told so."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from control.cli import listing
from control.cli.__main__ import run
from engine.keyring import RowKeyring, create_master_key, load_master_key
from engine.model.disposition import DelayReason, Disposition, Outcome
from engine.mta.spool.lmdb import LmdbSpool
from engine.mta.spool.tables import open_spool_environment
from engine.storage import Committer
from tests.fakes.engine_house import chunks, letter

NOW = 1_800_000_000.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five envelopes: deferred, held, quarantined, and two that are queued."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "keys").mkdir(mode=0o700)
    create_master_key(tmp_path / "keys" / "master.key")
    trio.run(fill, tmp_path)
    return tmp_path


async def fill(folder: Path) -> None:
    environment = open_spool_environment(folder / "spool", map_octets=64 * 1024**2)
    committer = Committer(environment, group_seconds=0.0)
    keyring = RowKeyring(folder / "rows.keys", load_master_key(folder / "keys" / "master.key"))
    async with trio.open_nursery() as nursery:
        await nursery.start(committer.run)
        spool = LmdbSpool(environment, committer, keyring, producer="node")
        await spool.put_content(letter(7), NOW)
        people = [f"a{number}@d{number % 2}.test" for number in range(5)]
        for chunk in chunks(people, campaign=7):
            await spool.accept(chunk, NOW)
        ((lease,),) = await spool.lease([[1, 2, 3]], NOW)
        ends = [
            Disposition(1, 0, Outcome.DEFERRED, reply="451 4.2.1 <rcpt>: later\x1b[2J", due=NOW + 300),
            Disposition(2, 0, Outcome.AMBIGUOUS, reason=DelayReason.AMBIGUOUS_HELD),
            Disposition(3, 0, Outcome.QUARANTINED),
        ]
        await spool.settle([(lease.id, ends)], NOW)
        committer.close()
    environment.close()


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert run(["queue", *words, "--data", ".", "--json"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


@pytest.mark.parametrize(
    ("words", "ids", "following"),
    [
        ([], [1, 2, 3, 4, 5], None),
        (["--limit", "2"], [1, 2], 2),
        (["--after", "2", "--limit", "3"], [3, 4, 5], None),
        (["--domain", "d1.test"], [2, 4], None),
        (["--state", "quarantined"], [3], None),
        (["--state", "queued", "--limit", "1"], [4], 4),
        (["--campaign", "8"], [], None),
    ],
)
def test_envelopes_are_listed_in_order_and_in_pages(
    words: list[str],
    ids: list[int],
    following: int | None,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "PAGE", 2)
    facts = told(capsys, "list", *words)
    assert [item["id"] for item in facts["envelopes"]] == ids
    assert facts["next_after"] == following


def test_a_list_is_a_table_for_people(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["queue", "list", "--limit", "2", "--data", "."]) == 0
    out = capsys.readouterr().out
    assert [line.split()[:4] for line in out.splitlines() if "d0.test" in line] == [
        ["d0.test", "1", "7", "deferred"]
    ]
    assert "--after 2" in out
    assert run(["queue", "list", "--campaign", "8", "--data", "."]) == 0
    assert capsys.readouterr().out == "There is none.\n"


def test_ambiguous_ones_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = told(capsys, "show", "--ambiguous")
    assert [(item["id"], item["state"]) for item in facts["envelopes"]] == [(2, "ambiguous")]


def test_an_envelope_is_opened_with_the_keys(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = told(capsys, "inspect", "1", "--message")
    assert (facts["recipient"], facts["row"]) == ("a0@d0.test", {"name": "Reader 0"})
    assert (facts["state"], facts["attempts"], facts["campaign"]) == ("deferred", 1, 7)
    assert [event["event"] for event in facts["events"]] == ["deferred"]
    head, _, body = facts["message"].partition("\r\n\r\n")
    assert "Subject: Dear Reader 0" in head
    assert "DKIM-Signature" not in head
    assert "Reader 0" in body
    assert "message" not in told(capsys, "inspect", "1")


def test_people_read_it_without_harm(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["queue", "inspect", "1", "--message", "--data", "."]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Envelope 1: deferred\n")
    assert "\x1b" not in out
    for text in ("a0@d0.test", "name: Reader 0", "deferred (attempt 0): 451 4.2.1", "Dear Reader 0,"):
        assert text in out
    assert run(["queue", "inspect", "2", "--data", "."]) == 0
    assert "it was ambiguous: it may have arrived" in capsys.readouterr().out


def test_without_the_keys_it_stays_sealed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "keys" / "master.key").rename(folder / "elsewhere.key")
    facts = told(capsys, "inspect", "1")
    assert "recipient" not in facts
    assert "master.key" in facts["sealed"]
    assert run(["queue", "inspect", "1", "--data", "."]) == 0
    assert "address and row are sealed: " in capsys.readouterr().out


def test_one_that_nothing_tells_of_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["queue", "inspect", "99", "--data", "."]) == 1
    assert capsys.readouterr().err == "emass: there is no envelope 99, and no event tells of it\n"


def test_on_a_cluster_it_says_where_the_history_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "emass.toml").write_text('[bus]\nkind = "nats"\nservers = ["127.0.0.1:4222"]\n')
    where = "what was published is on the cluster's bus, and in the report of its job"
    assert run(["queue", "inspect", "99", "--data", "."]) == 1
    assert (
        capsys.readouterr().err == f"emass: there is no envelope 99, and no event tells of it here: {where}\n"
    )
    assert told(capsys, "inspect", "4")["history"] == where
    assert run(["queue", "inspect", "4", "--data", "."]) == 0
    assert f"no event tells of it here: {where}" in capsys.readouterr().out
