"""`emass send` for real: an engine in a process, a world in another, and what the user is told."""

import signal
from collections import Counter
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
import trio

from bench.world.process import child_environment, world_process
from bench.world.records import read_records
from control.cli.errors import CliError, InputError
from control.cli.run import conclude
from engine.app import EngineError
from engine.runtime.supervisor import SupervisorGaveUp
from tests.fakes.campaigns import PROMISED, SHY, Campaign, adds_up, command, village

GOOD = [f"reader{n}@village.test" for n in range(30)] + [f"reader{n}@green.village.test" for n in range(10)]
BOUNCING = ["nobody1@village.test", "nobody2@green.village.test", "any@silent.village.test"]


@pytest.mark.slow
async def test_a_campaign_is_delivered_and_its_report_adds_up(tmp_path: Path) -> None:
    record = tmp_path / "record"
    async with world_process(village(), record=record, keep_content=True) as world:
        campaign = Campaign(tmp_path, world, [*GOOD, *BOUNCING, "no address", "READER0@village.test"])
        ran = await campaign.send("--json")
    assert ran.code == 0, ran.err
    facts = ran.facts
    assert list(facts)[: len(PROMISED)] == PROMISED
    assert adds_up(facts)
    assert (facts["accepted"], facts["delivered"], facts["bounced"]) == (43, 40, 3)
    assert {d["domain"]: d["bounced"] for d in facts["domains"] if d["bounced"]} == {
        "village.test": 1,
        "green.village.test": 1,
        "silent.village.test": 1,
    }
    arrived = list(read_records(record))
    assert Counter(each.recipient for each in arrived) == Counter(GOOD)
    message = message_from_bytes(arrived[0].content or b"", policy=policy.default)
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert "https://go.village.example/u/" in message["List-Unsubscribe"]


@pytest.mark.slow
async def test_refused_lines_are_in_the_verdict_file_and_the_rest_goes_on(tmp_path: Path) -> None:
    async with world_process(village()) as world:
        campaign = Campaign(
            tmp_path, world, ["a@village.test", "no address", "A@VILLAGE.test", "b@village.test"]
        )
        ran = await campaign.send()
    assert ran.code == 0, ran.err
    assert "2 accepted: 2 delivered" in ran.out
    assert "2 lines of the list were refused, see job/refused.csv" in ran.out
    verdicts = (tmp_path / "job" / "refused.csv").read_text("utf-8-sig").splitlines()
    assert [line.split(",")[0] for line in verdicts] == ["line", "3", "4"]


@pytest.mark.slow
async def test_a_route_takes_everything_whatever_the_domain(tmp_path: Path) -> None:
    record = tmp_path / "record"
    async with world_process(village(), record=record) as world:
        campaign = Campaign(tmp_path, world, ["a@village.test", "b@green.village.test"])
        host = world.spec.addresses_of_hosts["mx.village.test"]
        campaign.resolver = ["--route", f"{host}:{world.smtp_port}"]
        ran = await campaign.send("--json")
    assert ran.code == 0, ran.err
    assert (ran.facts["accepted"], ran.facts["delivered"]) == (2, 2)
    assert len(list(read_records(record))) == 2


@pytest.mark.slow
async def test_the_first_pass_ends_with_what_waits_and_the_command_that_goes_on(tmp_path: Path) -> None:
    async with world_process(village()) as world:
        campaign = Campaign(tmp_path, world, ["a@village.test", f"b@{SHY}"])
        first = await campaign.send("--until", "first-pass", "--json")
        again = await campaign.resume("--until", "1 s")
    assert (first.code, again.code) == (0, 0), (first, again)
    assert (first.facts["delivered"], first.facts["deferred"]) == (1, 1)
    assert adds_up(first.facts)
    assert "1 messages wait; go on with: emass send --data job --resume" in first.err
    assert "2 accepted: 1 delivered, 1 deferred" in again.out
    assert "450 4.2.1 Come back tomorrow" in again.out


@pytest.mark.slow
async def test_after_ctrl_c_a_resumed_run_sends_the_rest_and_nobody_gets_it_twice(tmp_path: Path) -> None:
    record = tmp_path / "record"
    addresses = [f"reader{n}@village.test" for n in range(400)]
    async with world_process(village(slow_seconds=0.05), record=record) as world:
        campaign = Campaign(tmp_path, world, addresses)
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(_send, campaign)
            while not record.exists() or len(list(read_records(record))) < 40:
                await trio.sleep(0.02)
            process.send_signal(signal.SIGINT)
        assert process.returncode == 0
        assert len(list(read_records(record))) < 400
        ran = await campaign.resume("--json")
    assert ran.code == 0, ran.err
    assert (ran.facts["accepted"], ran.facts["delivered"], ran.facts["was_ambiguous"]) == (400, 400, 0)
    assert Counter(each.recipient for each in read_records(record)) == Counter(addresses)


async def _send(campaign: Campaign, task_status: trio.TaskStatus[trio.Process]) -> None:
    await trio.run_process(
        command("send", *campaign.options, *campaign.resolver),
        cwd=campaign.folder,
        env=child_environment() | campaign.environment,
        capture_stdout=True,
        capture_stderr=True,
        task_status=task_status,
    )


@pytest.mark.slow
async def test_a_second_run_over_the_same_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    async with world_process(village(slow_seconds=0.1)) as world:
        campaign = Campaign(tmp_path, world, [f"reader{n}@village.test" for n in range(200)])
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(_send, campaign)
            while not (tmp_path / "job" / "spool" / "data.mdb").exists():
                await trio.sleep(0.02)
            second = await campaign.resume()
            process.send_signal(signal.SIGTERM)
    assert second.code == 1
    assert "another process is writing here" in second.err
    assert second.err.count("\n") == 1


# --- errors of the engine become one line --------------------------------------------------------------


def gave_up() -> SupervisorGaveUp:
    error = SupervisorGaveUp("spooler crashed 6 times in 60 s")
    error.__cause__ = OSError("the disk is gone")
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (EngineError("keys/master.key: is readable by others"), "keys/master.key: is readable by others"),
        (InputError("--route x: no_address"), "--route x: no_address"),
        (ExceptionGroup("outer", [ExceptionGroup("inner", [CliError("it broke")])]), "it broke"),
        (gave_up(), "the engine gave up: spooler crashed 6 times in 60 s: the disk is gone; go on with: x"),
    ],
)
def test_what_the_engine_says_becomes_the_users_line(error: Exception, text: str) -> None:
    async def live() -> Any:
        raise error

    with pytest.raises(CliError) as raised:
        conclude(live, as_json=True, hint="go on with: x")
    assert str(raised.value) == text
