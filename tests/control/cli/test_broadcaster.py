"""`emass broadcaster` against puppets on a local bus."""

from pathlib import Path
from typing import Any

import click.testing
import pytest
import trio
import trio.testing

from control.cli import broadcaster as module
from control.cli.errors import CliError, InputError
from control.job.roster import INTERVAL_SECONDS_MAX
from tests.fakes.broadcaster_puppet import STATUS_SECONDS
from tests.fakes.puppet_bus import PLACE, puppets_on


async def test_the_list_says_who_sends_and_who_is_not_there(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with puppets_on(monkeypatch, module, ("a", "b", "c", "d")) as (_, puppets):
        puppets["a"].extra = {"queued": 12, "rate": 3.456, "version": "1.0"}
        puppets["b"].extra = {"draining": True}
        puppets["c"].extra = {"closures": {"disk": "the disk is full"}}
        await trio.sleep(3 * STATUS_SECONDS)
        puppets["d"].kill()
        rows = {row["broadcaster"]: row for row in await module._list(PLACE)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "a": "sends",
        "b": "drains",
        "c": "takes no work",
        "d": "not there",
    }
    assert (rows["a"]["queued"], rows["a"]["rate"], rows["a"]["version"]) == (12, 3.5, "1.0")
    assert rows["c"]["closures"] == {"disk": "the disk is full"}


async def test_only_one_that_is_gone_is_retired_under_its_epoch(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with puppets_on(monkeypatch, module, ("a", "b")) as (bus, puppets):
        await trio.sleep(2 * STATUS_SECONDS)
        with pytest.raises(CliError, match="a lives: `emass broadcaster drain a`"):
            await module._look_at(PLACE, "a")
        with pytest.raises(InputError, match=r"no broadcaster of that name .*known: a, b"):
            await module._look_at(PLACE, "z")
        puppets["b"].kill()
        status = await module._look_at(PLACE, "b")
        await module._retire(PLACE, "b", status.epoch)
        assert await bus.read("retired", "b") == b"e1"
        rows = {row["broadcaster"]: row for row in await module._list(PLACE)}
    assert (rows["b"]["state"], rows["b"]["retired"], rows["a"]["retired"]) == ("retired", True, False)


async def test_one_whose_rows_come_once_a_minute_is_not_retired_alive(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with puppets_on(monkeypatch, module, ("a",)) as (_, puppets):
        puppets["a"].status_seconds = INTERVAL_SECONDS_MAX
        await trio.sleep(2 * STATUS_SECONDS)
        with pytest.raises(CliError, match="a lives"):
            await module._look_at(PLACE, "a")


async def test_a_drain_is_asked_of_the_engine(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with puppets_on(monkeypatch, module, ("a",)) as (_, puppets):
        puppets["a"].answers = {"done": "drains"}
        assert await module._ask(PLACE, "a", {"command": "drain"}) == {"done": "drains"}
        puppets["a"].answers = {"error": "it stops already"}
        with pytest.raises(CliError, match="a: it stops already"):
            await module._ask(PLACE, "a", {"command": "drain"})
        with pytest.raises(CliError, match="b does not answer"):
            await module._ask(PLACE, "b", {"command": "drain"})
        assert puppets["a"].asked[0] == {"command": "drain"}
        puppets["a"].answers = [1]  # type: ignore[assignment]
        with pytest.raises(CliError, match="a answers something else"):
            await module._ask(PLACE, "a", {"command": "drain"})


def run(*arguments: str) -> Any:
    return click.testing.CliRunner().invoke(module.command, arguments, standalone_mode=False)


async def test_an_answer_that_does_not_decode_is_one_line(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with puppets_on(monkeypatch, module, ()) as (bus, _), trio.open_nursery() as nursery:

        async def answer() -> None:
            questions = bus.serve("engine.a")
            for octets in (b"\xff", b"[" * 100_000):
                for question in await questions.receive(1):
                    await question.answer(octets)

        nursery.start_soon(answer)
        for _ in range(2):
            with pytest.raises(CliError, match="a answers something else"):
                await module._ask(PLACE, "a", {"command": "drain"})


def test_foreign_text_moves_no_cursor_and_is_no_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"broadcaster": "a", "state": "sends", "queued": 1, "rate": 2.0, "version": "[/x]\x1b[2J"}
    row |= {"closures": {"disk": "[/y]\x1b[2J"}}
    monkeypatch.setattr(module, "run_on_bus", lambda work: [row])
    listed = run("list", "--bus", "192.0.2.1")
    assert listed.exception is None
    told = listed.output + capsys.readouterr().out
    assert "\x1b" not in told
    assert "[/x]\\x1b[2J" in told
    assert "a: [/y]\\x1b[2J" in told


def test_the_commands_say_what_they_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bus").mkdir()
    bus = ("--bus", f"local:{tmp_path / 'bus'}")
    listed = run("list", *bus)
    assert (listed.exception, listed.return_value) == (None, 0)
    assert run("list", "--json", *bus).output == "[]\n"
    gone = run("retire", "b", *bus)
    assert "known: none" in str(gone.exception)
    assert "--within soon" in str(run("drain", "b", "--within", "soon", "--reason", "x", *bus).exception)
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.1)
    assert "b does not answer" in str(run("drain", "b", "--reason", "x", *bus).exception)
