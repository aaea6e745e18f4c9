"""`emass send` over a bus, up to the seam where the coordinator takes over."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from control.cli.__main__ import run
from control.cli.job import load_job
from engine.keyring import create_dkim_key


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMASS_CONFIG", raising=False)
    (tmp_path / "people.csv").write_text("email\na@example.org\n")
    (tmp_path / "letter.html").write_text("<p>Dear all</p>")
    create_dkim_key(tmp_path / "key.pem", "ed25519-sha256")
    return tmp_path


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands at the seam: what the coordinator would have been given."""
    given: list[dict[str, Any]] = []

    def run_many(**named: Any) -> int:
        given.append(named)
        return 0

    monkeypatch.setitem(sys.modules, "control.cli.run_many", SimpleNamespace(run_many=run_many))
    return given


def send(*more: str) -> int:
    options = ["--csv", "people.csv", "--from", "Ann <ann@news.example.org>", "--subject", "Hello"]
    options += ["--html", "letter.html", "--unsubscribe-host", "u.example.org", "--data", "job"]
    return run(["send", *options, *more])


def test_a_bus_and_weights_make_a_coordinator_and_resuming_knows_them(
    folder: Path, jobs: list[dict[str, Any]]
) -> None:
    signed = ("--dkim-key", "key.pem", "--dkim-selector", "s1")
    where = ("--bus", "10.0.0.1", "--bus-seed", "seed", "--broadcasters", "a=2,b")
    assert send(*where, *signed, "--addresses", "all.csv") == 0
    assert run(["send", "--data", "job", "--resume"]) == 0
    for each in jobs:
        assert each["shares"] == {"a": 2.0, "b": 1.0}
        assert each["place"].servers == ("10.0.0.1:4222",)
        assert each["place"].seed_file == str(folder / "seed")
        assert each["content"].dkim[0].key == "s1._domainkey.news.example.org"
    assert [each["addresses"] for each in jobs] == ["all.csv", ""]
    assert load_job(folder / "job")[0].options.many
    assert not (folder / "job" / "keys").exists(), "no engine runs here"


def test_a_folder_is_a_bus_wherever_the_job_is_resumed_from(folder: Path, jobs: list[dict[str, Any]]) -> None:
    assert send("--bus", "local:bus") == 0
    assert jobs[0]["place"].folder == str(folder / "bus")
    assert jobs[0]["shares"] == {}


def test_a_configuration_with_nats_makes_a_coordinator(folder: Path, jobs: list[dict[str, Any]]) -> None:
    (folder / "emass.toml").write_text('[bus]\nkind = "nats"\nservers = ["10.0.0.7:4222"]\n')
    assert send() == 0
    assert jobs[0]["place"].servers == ("10.0.0.7:4222",)
    assert jobs[0]["place"].seed_file == str(folder / "keys/bus/operator.seed")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--bus", "local:bus", "--route", "127.0.0.1:25"), "--route belongs into the emass.toml of each"),
        (("--bus", "local:bus", "--ehlo-name", "x.example"), "--ehlo-name belongs"),
        (("--bus", "local:"), "write local:DIR"),
        (("--bus", "a:b:c"), "--bus a:b:c"),
        (("--broadcasters", "a=0"), "a weight is above 0"),
    ],
)
def test_what_does_not_fit_is_named(
    folder: Path,
    jobs: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    said: str,
) -> None:
    assert send(*options) == 2
    assert said in capsys.readouterr().err
    assert jobs == []
    assert not (folder / "job").exists()
