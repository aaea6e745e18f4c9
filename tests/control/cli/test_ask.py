"""Asking: no engine is said at once, a refusal is the engine's own words, a job has its configuration."""

from pathlib import Path
from typing import Any

import pytest

from control.cli import ask as asking
from control.cli.__main__ import run
from control.cli.ask import check_folder, config_of, order
from control.cli.csv_source import inspect_csv
from control.cli.errors import CliError, InputError
from control.cli.job import SendOptions, create_job, start_job
from engine.config import HostPort
from tests.fakes.engine_house import letter, signed


def a_queue(folder: Path) -> Path:
    (folder / "spool").mkdir()
    (folder / "spool" / "data.mdb").touch()
    return folder


def test_a_folder_without_a_queue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no queue"):
        check_folder(str(tmp_path))
    assert check_folder(str(a_queue(tmp_path))) == tmp_path


def test_without_an_engine_an_act_is_refused_at_once(tmp_path: Path) -> None:
    a_queue(tmp_path)
    (tmp_path / "bus" / "node-1").mkdir(parents=True)
    (tmp_path / "spool" / "writer.lock").touch()
    assert asking.ask(tmp_path, command="show") is None
    with pytest.raises(CliError, match="no engine runs over"):
        order(tmp_path, command="reset")
    assert not list((tmp_path / "bus").glob("cli-*"))


def test_a_refusal_is_the_engine_s_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    async def answer(folder: Path, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        asked.append(request)
        return {"error": "no path is called '\x1b[31mx'"}

    monkeypatch.setattr(asking, "ask_engine", answer)
    with pytest.raises(CliError, match="no path is called"):
        order(tmp_path, command="pin", seconds=3.0)
    assert asked == [{"command": "pin", "seconds": 3.0}]


def test_a_job_s_folder_has_its_configuration_and_needs_no_key_to_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("email,name\na@x.test,Ann\n")
    options = SendOptions(csv=str(tmp_path / "people.csv"), resolver="127.0.0.1:5353", route="127.0.0.1:2525")
    job = create_job(options, inspect_csv(tmp_path / "people.csv"), now=0.0, expire_after=60.0)
    start_job(tmp_path / "job", job, signed())
    config, route = config_of(tmp_path / "job", None)
    assert (config.resolver.servers, route) == ((HostPort.parse("127.0.0.1:5353"),), "127.0.0.1:2525")
    named = tmp_path / "other.toml"
    named.write_text('[node]\nname = "other"\n')
    config, route = config_of(tmp_path / "job", str(named))
    assert (config.node.name, route) == ("other", "")
    assert letter().dkim == ()


@pytest.mark.parametrize("name", ["explain", "changes", "pin", "unpin", "reset", "lift", "show"])
def test_every_command_of_the_group_has_help_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["queue", name, "--help"]) == 0
    told = capsys.readouterr().out
    assert f"emass queue {name}" in told.partition("Example:")[2]
    assert "--json" in told
