"""A coordinated run from list to report, over puppets: what is shown, written and said."""

import csv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from control.cli import run_many as module
from control.cli.cluster_bus import BusPlace
from control.cli.csv_source import inspect_csv
from control.cli.errors import CliError
from control.cli.job import SendOptions, create_job, load_job, start_job
from control.cli.people import People
from control.cli.report import find_mistakes, report_facts
from control.cli.run_many import ManyRun
from control.cli.until import Until
from control.job.campaign_state import Wanted, change_state
from control.job.ledger import FILE, Ledger
from engine.model.content import Content
from tests.fakes.broadcaster_puppet import Puppet
from tests.fakes.memory_bus import MemoryBus

pytestmark = pytest.mark.slow  # real sockets, processes or password hashes: a second in all

PLACE = BusPlace(servers=("192.0.2.1:4222",))
CONTENT = Content(
    campaign=7, name="n", from_address="a@x.example", subject="s", text="t", return_path_domain="x.example"
)


class Setting:
    """A job in a folder, a bus in memory, and puppets on it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, people: int, *names: str) -> None:
        self.bus = MemoryBus("operator")
        self.folder = folder / "job"
        self.puppets = {name: Puppet(self.bus, name) for name in names}
        path = folder / "people.csv"
        path.write_text("email\nnobody\n" + "".join(f"p{number}@x.test\n" for number in range(people)))
        job = create_job(SendOptions(csv=str(path)), inspect_csv(path), now=1.0, expire_after=60.0)
        start_job(self.folder, job, replace(CONTENT, campaign=job.campaign))

        @asynccontextmanager
        async def opened(
            place: BusPlace, member: str = "", *, online_seconds: float | None = 0.0
        ) -> AsyncIterator[MemoryBus]:
            assert (place, member, online_seconds) == (PLACE, f"operator-{job.id}", None)
            yield self.bus

        monkeypatch.setattr(module, "on_bus", opened)

    def run(self, until: Until | None = None, **more: str) -> ManyRun:
        job, content = load_job(self.folder)
        people = People(inspect_csv(Path(job.options.csv)), content.fields)
        return ManyRun(self.folder, job, content, people, PLACE, {}, until or Until(), **more)

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            for puppet in self.puppets.values():
                nursery.start_soon(puppet.run)
            yield
            nursery.cancel_scope.cancel()


async def test_a_run_ends_with_a_report_that_adds_up_and_every_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    setting = Setting(tmp_path, monkeypatch, 3_000, "a", "b")
    setting.puppets["a"].answers = {"accepted": 1, "delivered": 1}
    async with setting.alive():
        run = setting.run(addresses=str(tmp_path / "all.csv"))
        report = await run.live()
    assert (run.finished, run.reading) == (True, False)
    assert find_mistakes(report) == []
    facts = report_facts(report)
    assert (facts["accepted"], facts["delivered"], facts["refused"]) == (3_000, 3_000, 1)
    shares = {each["broadcaster"]: each for each in facts["broadcasters"]}
    assert sum(each["accepted"] for each in shares.values()) == 3_000
    assert (shares["a"]["differs"], shares["b"]["differs"]) == (True, False)
    assert any("a counts" in warning for warning in facts["warnings"])
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["address"] for row in rows] == [f"p{number}@x.test" for number in range(3_000)]
    assert {row["state"] for row in rows} == {"delivered"}


async def test_a_run_whose_time_is_up_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    setting = Setting(tmp_path, monkeypatch, 5_000, "a")
    async with setting.alive():
        run = setting.run(Until(seconds=5.0))
        first = await run.live()
        assert (run.finished, find_mistakes(first)) == (False, [])
        assert 0 < first.counts.delivered < 5_000
        again = setting.run()
        report = await again.live()
    assert again.finished
    assert report.counts.delivered == 5_000
    assert sum(setting.puppets["a"].sent.values()) == 5_000


async def test_a_first_pass_ends_when_each_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    setting = Setting(tmp_path, monkeypatch, 500, "a")
    async with setting.alive():
        report = await setting.run(Until(first_pass=True, seconds=None)).live()
    assert report.counts.delivered == 500


async def test_a_cancelled_campaign_is_finished_and_says_who(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    setting = Setting(tmp_path, monkeypatch, 2_000, "a")
    campaign = load_job(setting.folder)[0].campaign
    await change_state(setting.bus, campaign, Wanted.CANCEL, by="eve", reason="the wrong list", at=1.0)
    async with setting.alive():
        run = setting.run()
        report = await run.live()
    assert (run.finished, run.reading, report.counts.accepted) == (True, False, 0)
    assert report.warnings == ("the campaign was cancelled by eve: the wrong list",)


async def test_a_job_has_one_coordinator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    setting = Setting(tmp_path, monkeypatch, 10, "a")
    ledger = Ledger(setting.folder / FILE, load_job(setting.folder)[0].id)
    with pytest.raises(CliError, match="another `emass send` coordinates this job"):
        await setting.run().live()
    ledger.close()


async def test_a_ledger_that_does_not_fit_the_list_stops_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    setting = Setting(tmp_path, monkeypatch, 10, "a")
    ledger = Ledger(setting.folder / FILE, load_job(setting.folder)[0].id)
    ledger.cut(1, 5_000, 4_000)
    ledger.close()
    with pytest.raises(CliError, match="has not the 4000 people"):
        await setting.run().live()


async def test_what_holds_it_up_is_noted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    setting = Setting(tmp_path, monkeypatch, 500, "a")
    run = setting.run(Until(seconds=20.0))
    await run.live()
    assert "no broadcaster is there and takes work" in capsys.readouterr().err
    setting.puppets["a"].per_second = 10
    async with trio.open_nursery() as nursery:
        nursery.start_soon(setting.puppets["a"].run)
        await setting.run(Until(seconds=10.0)).live()
        setting.puppets["a"].kill()
    await setting.run(Until(seconds=30.0)).live()
    assert "waits for a with" in capsys.readouterr().err
    setting.bus.online = False
    await setting.run(Until(seconds=6.0)).live()
    assert "192.0.2.1:4222 does not answer" in capsys.readouterr().err
