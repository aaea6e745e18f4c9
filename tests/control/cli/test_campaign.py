"""`emass campaign` against puppets on a local bus, by number and by the job's folder."""

import json
from pathlib import Path
from typing import Any

import click.testing
import pytest
import trio
import trio.testing

from control.cli import campaign as module
from control.cli.campaign import Named
from control.cli.csv_source import inspect_csv
from control.cli.errors import CliError, InputError
from control.cli.job import SendOptions, create_job, start_job
from control.job.campaign_state import Wanted, change_state
from engine.model.content import Content
from tests.fakes.broadcaster_puppet import STATUS_SECONDS
from tests.fakes.campaigns import PROMISED, adds_up
from tests.fakes.puppet_bus import PLACE, puppets_on

CONTENT = Content(
    campaign=7, name="n", from_address="a@x.example", subject="s", text="t", return_path_domain="x.example"
)


def run(*arguments: str) -> Any:
    return click.testing.CliRunner().invoke(module.command, arguments, standalone_mode=False)


def job_folder(folder: Path, **options: Any) -> str:
    (folder / "people.csv").write_text("email\nann@x.test\n")
    path = folder / "people.csv"
    job = create_job(SendOptions(csv=str(path), **options), inspect_csv(path), now=1.0, expire_after=60.0)
    start_job(folder / "job", job, CONTENT)
    return str(folder / "job")


async def test_status_adds_up_what_the_broadcasters_count(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with puppets_on(monkeypatch, module, ("a", "b", "c")) as (bus, puppets):
        puppets["a"].answers = {"accepted": 10, "delivered": 6, "bounced": 1, "was_ambiguous": 2}
        puppets["b"].answers = {"accepted": 5, "delivered": 5}
        puppets["c"].answers = {"error": "what?"}
        await change_state(bus, 7, Wanted.PAUSE, by="ann", reason="why", at=5.0)
        await trio.sleep(2 * STATUS_SECONDS)
        facts = await module._status(Named("7", PLACE, 7, None))
    assert [key for key in facts if key in PROMISED] == PROMISED
    assert adds_up(facts)
    assert (facts["accepted"], facts["delivered"], facts["deferred"], facts["was_ambiguous"]) == (
        15,
        11,
        3,
        2,
    )
    assert (facts["state"], facts["by"], facts["reason"], facts["unheard"]) == ("pause", "ann", "why", ["c"])
    assert facts["seconds"] > 0


def test_a_campaign_is_paused_resumed_and_cancelled_for_good(tmp_path: Path) -> None:
    (tmp_path / "bus").mkdir()
    bus = ("--bus", f"local:{tmp_path / 'bus'}")
    assert run("pause", "7", "--reason", "a wrong link", *bus).output == "campaign 7 is paused\n"
    told = json.loads(run("status", "7", "--json", *bus).output)
    assert (told["state"], told["reason"], told["accepted"]) == ("pause", "a wrong link", 0)
    assert run("resume", "7", *bus).output == "campaign 7 goes on\n"
    assert run("cancel", "7", "--yes", *bus).output == "campaign 7 is cancelled\n"
    again = run("resume", "7", *bus)
    assert isinstance(again.exception, CliError)
    assert "for good" in str(again.exception)
    assert "campaign 7: cancel by" in run("status", "7", *bus).output


def test_a_jobs_folder_names_campaign_and_bus(tmp_path: Path) -> None:
    (tmp_path / "bus").mkdir()
    folder = job_folder(tmp_path, bus=f"local:{tmp_path / 'bus'}", many=True)
    assert "is paused" in run("pause", folder).output
    assert json.loads(run("status", folder, "--json").output)["state"] == "pause"


def test_what_is_no_campaign_of_a_bus_is_named(tmp_path: Path) -> None:
    for text in ("x", "0", str(2**32)):
        with pytest.raises(InputError, match="neither a campaign's number nor a job's folder"):
            raise run("pause", text).exception
    folder = job_folder(tmp_path)
    assert "sends by itself" in str(run("pause", folder).exception)
