"""`emass queue show` over a finished, a stopped and a running data folder, and over none."""

import json
import signal
from pathlib import Path

import pytest
import trio

from bench.world.process import child_environment, world_process
from control.cli.__main__ import run
from tests.fakes.campaigns import SHY, STATES, Campaign, Ran, command, emass, village


@pytest.mark.slow
async def test_a_finished_folder_holds_counts_and_nothing_that_waits(tmp_path: Path) -> None:
    async with world_process(village()) as world:
        campaign = Campaign(tmp_path, world, ["a@village.test", "nobody@village.test"])
        assert (await campaign.send()).code == 0
    shown = await campaign.queue("--json")
    assert shown.code == 0, shown.err
    facts = shown.facts
    assert (facts["waiting"], facts["domains"], facts["envelopes"], facts["engine"]) == (0, [], [], None)
    (counts,) = facts["campaigns"].values()
    assert sum(counts[state] for state in STATES) == counts["accepted"] == 2
    assert (counts["delivered"], counts["bounced"]) == (1, 1)
    table = await campaign.queue()
    assert table.out.splitlines() == ["0 waiting", "No engine is running here."]


@pytest.mark.slow
async def test_a_stopped_folder_shows_what_waits_and_until_when(tmp_path: Path) -> None:
    async with world_process(village()) as world:
        campaign = Campaign(tmp_path, world, ["a@village.test", f"b@{SHY}", f"c@{SHY}"])
        campaign.environment["EMASS_ENGINE__RETRY__FIRST"] = "1 h"
        campaign.environment["EMASS_ENGINE__RETRY__MAX"] = "1 h"
        assert (await campaign.send("--until", "first-pass")).code == 0
    facts = (await campaign.queue("--json")).facts
    assert (facts["waiting"], facts["engine"]) == (2, None)
    (domain,) = facts["domains"]
    assert (domain["domain"], domain["deferred"]) == (SHY, 2)
    assert 40 * 60 < domain["next_attempt_seconds"] < 80 * 60
    assert {each["state"] for each in facts["envelopes"]} == {"deferred"}
    assert {each["attempts"] for each in facts["envelopes"]} == {1}

    table = (await campaign.queue()).out
    assert [line.split()[:3] for line in table.splitlines() if SHY in line] == [[SHY, "-", "2"]]
    envelopes = (await campaign.queue("--envelopes", "--state", "deferred")).out
    assert sum(SHY in line for line in envelopes.splitlines()) == 2
    assert (await campaign.queue("--json", "--domain", "village.test")).facts["waiting"] == 0
    assert (await campaign.queue("--json", "--state", "queued")).facts["waiting"] == 0


@pytest.mark.slow
async def test_a_running_engine_answers_for_itself_and_is_not_disturbed(tmp_path: Path) -> None:
    async with world_process(village(slow_seconds=0.1)) as world:
        campaign = Campaign(tmp_path, world, [f"reader{n}@village.test" for n in range(600)])
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(_send, campaign)
            facts: dict[str, object] = {}
            while not facts.get("engine"):
                shown = await campaign.queue("--json")
                facts = json.loads(shown.out) if shown.code == 0 else {}
            table = await campaign.queue()
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0
    engine = facts["engine"]
    assert isinstance(engine, dict)
    assert engine["connections"] >= 0
    assert "An engine is running" in table.out
    assert not list((tmp_path / "job" / "bus").glob("cli-*"))  # who asks leaves nothing behind


@pytest.mark.slow
async def test_a_running_engine_explains_itself_and_does_as_it_is_told(tmp_path: Path) -> None:
    async with world_process(village(slow_seconds=0.2)) as world:
        campaign = Campaign(tmp_path, world, [f"reader{n}@village.test" for n in range(3_000)])

        async def queue(*words: str) -> Ran:
            return await emass("queue", *words, "--data", "job", folder=tmp_path)

        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(_send, campaign)
            with trio.fail_after(30):
                while "What holds now" not in (explained := await queue("explain", "ann@village.test")).out:
                    await trio.sleep(0.1)
            facts = (await queue("explain", "village.test", "--json")).facts
            pinned = await queue("pin", "mx.village.test", "connections=1", "--reason", "a test")
            held = (await queue("explain", "village.test", "--json")).facts
            wrong = await queue("pin", "mx.vilage.test", "connections=1", "--reason", "a test")
            changes = (await queue("changes", "--path", "mx.village.test", "--json")).facts["changes"]
            replayed = (await queue("changes", "--path", "mx.village.test", "--replay", "--json")).facts
            shown = await queue("show")
            process.send_signal(signal.SIGINT)
        after = await queue("pin", "mx.village.test", "connections=1", "--reason", "a test")
    assert explained.code == 0, explained.err
    assert explained.out.startswith("ann@village.test -> mx.village.test -> mx.village.test\n")
    assert (facts["engine"], facts["hosts"], facts["known"]) == (True, ["mx.village.test"], True)
    assert (pinned.code, pinned.out) == (0, f"connections of {facts['path']} is pinned at 1\n")
    assert held["state"]["pinned"] == {"connections": 1.0}
    assert wrong.code == 1
    assert f"no path is called 'mx.vilage.test'; known are: {facts['path']}" in wrong.err
    assert "pinned: a test" in [one["reason"] for one in changes]  # its rate goes on growing meanwhile
    assert replayed["signals"] > 0
    assert "Forecast: " in shown.out
    assert (after.code, "no engine runs over job" in after.err) == (1, True)


async def _send(campaign: Campaign, task_status: trio.TaskStatus[trio.Process]) -> None:
    await trio.run_process(
        command("send", *campaign.options, *campaign.resolver, "--json"),
        cwd=campaign.folder,
        env=child_environment() | campaign.environment,
        capture_stdout=True,
        capture_stderr=True,
        task_status=task_status,
    )


@pytest.mark.parametrize("named", ["nowhere", "file", "."])
def test_a_folder_without_a_queue_is_one_clear_line(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert run(["queue", "show", "--data", named]) == 2
    assert capsys.readouterr().err == f"emass: {named}: holds no queue (name the data folder with --data)\n"


def test_a_damaged_store_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "data.mdb").write_bytes(b"no store at all" * 1000)
    assert run(["queue", "show", "--data", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "cannot open the spool store" in err


def test_a_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["queue"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Usage: emass queue")
    assert "\\n" not in err
