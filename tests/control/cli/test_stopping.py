"""Stopping mail: what is sent to the engine, what is printed, what is refused; and a real engine, killed."""

import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from bench.world.process import child_environment, world_process
from control.cli import stopping
from control.cli.__main__ import run
from tests.fakes.campaigns import SHY, Campaign, Ran, command, emass, village

STOP = {
    "number": 3,
    "kind": "suspend",
    "scope": "campaign",
    "value": "7\x1b[2J",
    "until": None,
    "found": 0,
    "swept": False,
    "target": "",
    "reason": "the link is wrong",
    "author": "ann",
}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "data.mdb").touch()
    monkeypatch.chdir(tmp_path)
    requests: list[dict[str, Any]] = []

    def order(folder: Path, **request: Any) -> dict[str, Any]:
        requests.append(request)
        if request["command"] == "stops":
            done = STOP | {"kind": "cancel", "swept": True, "found": 1_234, "until": time.time() + 7_200}
            other = STOP | {"kind": "reroute", "target": "relay-b", "scope": "all", "value": ""}
            return {"stops": [STOP, done, other], "hidden": 0, "draining": {"until": time.time() + 90}}
        return {"done": "it is done\x1b[2J", "warnings": ["odd"], "left": 5, "seconds_left": 9.0}

    monkeypatch.setattr(stopping, "order", order)
    monkeypatch.setattr(stopping, "author", lambda: "ann")
    return requests


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        (
            ["suspend", "--campaign", "7", "--for", "2 h"],
            {"command": "suspend", "subject": "campaign", "subject_value": "7", "seconds": 7_200.0},
        ),
        (
            ["suspend", "--all"],
            {"command": "suspend", "subject": "all", "subject_value": "", "seconds": None},
        ),
        (
            ["resume", "--workspace", "shop"],
            {"command": "resume", "subject": "workspace", "subject_value": "shop"},
        ),
        (["resume", "--drain"], {"command": "resume", "asked": {"drain": True}}),
        (
            ["cancel", "--site", "mx.x.test"],
            {"command": "cancel", "subject": "site", "subject_value": "mx.x.test"},
        ),
        (
            ["retry", "--domain", "x.test"],
            {
                "command": "retry",
                "subject": "domain",
                "subject_value": "x.test",
                "asked": {"states": ["deferred"], "assume": ""},
            },
        ),
        (
            ["retry", "--all", "--state", "ambiguous", "--state", "quarantined", "--assume", "failed"],
            {
                "command": "retry",
                "subject": "all",
                "subject_value": "",
                "asked": {"states": ["ambiguous", "quarantined"], "assume": "failed"},
            },
        ),
        (
            ["reroute", "--source", "out", "--to", "relay-b"],
            {
                "command": "reroute",
                "subject": "source",
                "subject_value": "out",
                "seconds": None,
                "asked": {"to": "relay-b"},
            },
        ),
    ],
)
def test_an_act_is_one_request_with_author_and_reason(
    words: list[str],
    request_: dict[str, Any],
    asked: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["queue", *words, "--reason", "agreed", "--data", "."]) == 0
    assert asked == [request_ | {"author": "ann", "reason": "agreed"}]
    assert capsys.readouterr().out == "it is done\\x1b[2J\nodd\n"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["suspend"], "say which mail"),
        (["suspend", "--campaign", "7", "--domain", "x.test"], "say which mail"),
        (["suspend", "--all", "--site", "x"], "say which mail"),
        (["suspend", "--all", "--for", "ever"], "ever: is no duration"),
        (["resume", "--drain", "--all"], "'--drain' goes alone"),
        (["retry", "--all", "--assume", "failed"], "'--assume' needs '--state"),
        (["retry", "--all", "--state", "gone"], "--state"),
        (["reroute", "--all"], "--to"),
        (["drain", "--within", "soon"], "soon: is no duration"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_engine_is_asked(
    words: list[str], error: str, asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["queue", *words, "--reason", "agreed", "--data", "."]) == 2
    assert error in capsys.readouterr().err
    assert asked == []


def test_no_act_without_a_reason(asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["queue", "suspend", "--all", "--data", "."]) == 2
    assert "--reason" in capsys.readouterr().err


def test_what_stands_is_a_table_with_reasons(
    asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert run(["queue", "stops", "--data", "."]) == 0
    out = capsys.readouterr().out
    for text in ("being drained, for 90 s more", "cancel (done)", "1,234", "2.0 h", "reroute to relay-b"):
        assert text in out
    assert "  3: the link is wrong\n" in out
    assert "\x1b[2J" not in out


def test_a_drain_shows_what_is_left_until_the_engine_is_gone(
    asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [{"left": 3, "draining": True, "seconds_left": 5.0}, None]
    monkeypatch.setattr(stopping, "ask", lambda folder, **request: told.pop(0))
    monkeypatch.setattr(stopping, "LOOK_SECONDS", 0.0)
    assert run(["queue", "drain", "--reason", "new kernel", "--data", "."]) == 0
    assert asked[0] == {"command": "drain", "seconds": 600.0, "reason": "new kernel", "author": "ann"}
    assert capsys.readouterr().out.splitlines() == ["it is done\\x1b[2J", "the engine has stopped"]


def test_a_drain_that_somebody_ended_is_said(
    asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"left": 3, "draining": False, "seconds_left": None}
    monkeypatch.setattr(stopping, "ask", lambda folder, **request: told)
    monkeypatch.setattr(stopping, "LOOK_SECONDS", 0.0)
    assert run(["queue", "drain", "--reason", "new kernel", "--data", "."]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "resumed: the engine goes on"


# --- a real engine -----------------------------------------------------------------------------------------


class Job:
    """`emass send` in a process, and its queue in an operator's hands."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign

    async def queue(self, *words: str) -> Ran:
        return await emass("queue", *words, "--data", "job", folder=self.campaign.folder)

    async def act(self, *words: str) -> Ran:
        return await self.queue(*words, "--reason", "a test")

    async def counts(self) -> tuple[str, dict[str, int]]:
        facts = (await self.queue("show", "--json")).facts
        ((number, counts),) = facts["campaigns"].items()
        return number, counts

    @asynccontextmanager
    async def sending(self, *words: str) -> AsyncIterator[trio.Process]:
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(self._run, words)
            with trio.fail_after(30):
                while (await self.queue("stops")).code:
                    await trio.sleep(0.1)
            yield process

    async def _run(self, words: tuple[str, ...], task_status: trio.TaskStatus[trio.Process]) -> None:
        await trio.run_process(
            command("send", *words, "--json"),
            cwd=self.campaign.folder,
            env=child_environment() | self.campaign.environment,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            task_status=task_status,
        )


RESUME = ("--data", "job", "--resume")


@pytest.mark.slow
async def test_a_suspension_holds_after_kill_nine_and_a_resume_lets_it_go_on(tmp_path: Path) -> None:
    async with world_process(village(slow_seconds=0.2)) as world:
        campaign = Campaign(tmp_path, world, [f"reader{n}@village.test" for n in range(400)])
        job = Job(campaign)
        async with job.sending(*campaign.options, *campaign.resolver) as process:
            with trio.fail_after(30):
                while not (told := (await job.queue("show", "--json")).facts["campaigns"]):
                    await trio.sleep(0.05)
            (number,) = told
            suspended = await job.act("suspend", "--campaign", number)
            process.send_signal(signal.SIGKILL)
        assert suspended.code == 0, suspended.err
        async with job.sending(*RESUME) as process:
            await trio.sleep(2)
            _, before = await job.counts()
            await trio.sleep(2)
            _, after = await job.counts()
            listed = (await job.queue("stops", "--json")).facts["stops"]
            resumed = await job.act("resume", "--campaign", number)
            await process.wait()
        _, counts = await job.counts()
    assert before["accepted"] == 400
    assert before["delivered"] == after["delivered"] < 400
    assert [(one["kind"], one["value"]) for one in listed] == [("suspend", number)]
    assert resumed.code == 0, resumed.err
    assert process.returncode == 0
    assert counts["delivered"] == 400


@pytest.mark.slow
async def test_a_cancel_that_is_killed_comes_to_its_end_and_a_retry_hurries(tmp_path: Path) -> None:
    async with world_process(village(slow_seconds=0.2)) as world:
        people = [f"reader{n}@village.test" for n in range(2_000)]
        campaign = Campaign(tmp_path, world, [*people, f"b@{SHY}"])
        campaign.environment["EMASS_ENGINE__RETRY__FIRST"] = "1 h"
        campaign.environment["EMASS_ENGINE__RETRY__MAX"] = "1 h"
        job = Job(campaign)
        async with job.sending(*campaign.options, *campaign.resolver) as process:
            with trio.fail_after(30):
                while (await job.queue("show", "--json", "--state", "deferred")).facts["waiting"] < 1:
                    await trio.sleep(0.1)
            cancelled = await job.act("cancel", "--domain", "village.test")
            process.send_signal(signal.SIGKILL)
        assert cancelled.code == 0, cancelled.err
        async with job.sending(*RESUME) as process:
            with trio.fail_after(30):
                while (await job.queue("stops", "--json")).facts["stops"]:
                    await trio.sleep(0.2)
            listed = (await job.queue("list", "--domain", SHY, "--json")).facts["envelopes"]
            ident = str(listed[0]["id"])
            retried = await job.act("retry", "--domain", SHY)
            with trio.fail_after(20):
                while (inspected := (await job.queue("inspect", ident, "--message", "--json")).facts)[
                    "attempts"
                ] < 2:
                    await trio.sleep(0.2)
            gone = await job.act("cancel", "--all")
            await process.wait()
        _, counts = await job.counts()
    assert (retried.code, gone.code) == (0, 0)
    assert inspected["recipient"] == f"b@{SHY}"
    assert "\r\nSubject: Reader 2000, the well\r\n" in inspected["message"]
    assert [event["event"] for event in inspected["events"]] == ["deferred", "deferred"]
    assert counts["cancelled"] + counts["delivered"] == counts["accepted"] == 2_001
    assert counts["cancelled"] > 1_000
    assert process.returncode == 0


@pytest.mark.slow
async def test_a_drain_sends_what_is_queued_and_stops_the_engine(tmp_path: Path) -> None:
    async with world_process(village()) as world:
        people = [f"reader{n}@village.test" for n in range(300)]
        campaign = Campaign(tmp_path, world, [*people, f"b@{SHY}"])
        campaign.environment["EMASS_ENGINE__RETRY__FIRST"] = "1 h"
        campaign.environment["EMASS_ENGINE__RETRY__MAX"] = "1 h"
        job = Job(campaign)
        async with job.sending(*campaign.options, *campaign.resolver) as process:
            drained = await job.act("drain", "--within", "1 min", "--json")
            await process.wait()
        _, counts = await job.counts()
    assert drained.code == 0, drained.err
    assert json.loads(drained.out.splitlines()[-1]) == {"drained": True}
    assert counts["delivered"] + counts["deferred"] == counts["accepted"]
    assert counts["deferred"] <= 1
