"""`emass send` up to the seam where the engine takes over: options, checks, dry run, resuming."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from control.cli.__main__ import run
from control.cli.job import load_job
from control.cli.people import Person
from control.cli.until import Until
from engine.keyring import create_dkim_key, load_master_key
from engine.model.content import DkimAlgorithm, MessageClass


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMASS_CONFIG", raising=False)
    (tmp_path / "people.csv").write_text(
        "E-Mail;First Name;City\na@example.org;Ann;Rome\nbad;x;y\nb@example.org;Bo;\n"
    )
    (tmp_path / "letter.html").write_text("<p>Dear {{ first_name }}</p>")
    create_dkim_key(tmp_path / "key.pem", "ed25519-sha256")
    return tmp_path


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands at the seam: what the engine would have been given."""
    given: list[dict[str, Any]] = []

    def run_job(**named: Any) -> int:
        given.append(named)
        return 0

    monkeypatch.setitem(sys.modules, "control.cli.run", SimpleNamespace(run_job=run_job))
    return given


def send(*more: str, **replaced: str | None) -> int:
    options: dict[str, str | None] = {
        "csv": "people.csv",
        "from": "Ann <ann@news.example.org>",
        "subject": "Hello {{ first_name }}",
        "html": "letter.html",
        "unsubscribe-host": "u.example.org",
        "data": "job",
    } | {name.replace("_", "-"): value for name, value in replaced.items()}
    arguments = [
        part for name, value in options.items() if value is not None for part in (f"--{name}", value)
    ]
    return run(["send", *arguments, *more])


def test_a_checked_job_is_handed_to_the_engine(folder: Path, jobs: list[dict[str, Any]]) -> None:
    assert send("--until", "90 s", dkim_key="key.pem", dkim_selector="s1") == 0
    job = jobs[0]
    content = job["content"]
    assert content.fields == ("first_name",)
    assert (content.from_name, content.from_address) == ("Ann", "ann@news.example.org")
    assert content.return_path_domain == content.sending_domain == "news.example.org"
    assert content.list_id == "people.news.example.org"
    assert content.list_help == "mailto:ann@news.example.org?subject=help"
    assert content.dkim[0].algorithm is DkimAlgorithm.ED25519_SHA256
    assert content.campaign == job["job"].campaign
    assert job["until"] == Until(seconds=90.0)
    assert [p.row for p in job["people"] if isinstance(p, Person)] == [("Ann",), ("Bo",)]
    config = job["config"]
    assert config.node.data == str(folder / "job")
    assert config.keys.dkim[0].file == str(folder / "key.pem")
    load_master_key(Path(config.keys.folder) / config.keys.master)
    assert load_job(folder / "job") == (job["job"], content)


def test_resuming_hands_over_the_same_job(folder: Path, jobs: list[dict[str, Any]]) -> None:
    assert send("--source", "127.0.0.9", "--resolver", "127.0.0.1:5353") == 0
    (folder / "letter.html").write_text("<p>{{ edited</p>")
    assert run(["send", "--data", "job", "--resume", "--until", "finished"]) == 0
    first, second = jobs
    for name in ("job", "content", "config"):
        assert first[name] == second[name]
    assert second["until"] == Until(seconds=None)
    assert second["config"].engine.source[0].address == "127.0.0.9"
    assert second["config"].resolver.servers[0].port == 5353
    assert second["config"].resolver.allow_private


def test_the_data_folder_has_a_name_of_its_own_by_default(folder: Path, jobs: list[dict[str, Any]]) -> None:
    assert send(data=None) == 0
    assert jobs[0]["folder"].name.startswith("emass-people-")


def test_transactional_mail_needs_no_unsubscribe_host(folder: Path, jobs: list[dict[str, Any]]) -> None:
    assert send("--transactional", unsubscribe_host=None) == 0
    content = jobs[0]["content"]
    assert content.message_class is MessageClass.TRANSACTIONAL
    assert (content.unsubscribe_host, content.list_id) == ("", "")
    assert jobs[0]["job"].expires_at - jobs[0]["job"].created == 24 * 3600


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("--route", "127.0.0.1:2525", 0),
        ("--route", "10.0.0.7", 0),
        ("--route", "mx.example.org:25", 2),
        ("--route", "8.8.8.8:25", 2),
        ("--resolver", "127.0.0.1:5353", 0),
        ("--resolver", "127.0.0.1:53", 2),
        ("--resolver", "9.9.9.9:5353", 2),
    ],
)
def test_marketing_mail_without_unsubscribe_goes_to_private_receivers_only(
    folder: Path,
    jobs: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    code: int,
) -> None:
    assert send(option, value, unsubscribe_host=None) == code
    if code:
        assert "--unsubscribe-host is missing" in capsys.readouterr().err
        assert not jobs
    else:
        assert jobs[0]["job"].options.private_only


@pytest.mark.parametrize(
    ("replaced", "problem"),
    [
        ({"csv": "none.csv"}, "none.csv: does not exist"),
        ({"csv": "letter.html"}, "letter.html line 1: no column of addresses"),
        ({"html": "none.html"}, "none.html: does not exist"),
        ({"from": "ann"}, "--from ann: address has no @"),
        ({"subject": "{{ frist_name }}"}, "--subject line 1: no column fills the placeholder 'frist_name'"),
        ({"subject": "{% if"}, "--subject"),
        ({"dkim_key": "key.pem"}, "belong together"),
        ({"dkim_key": "letter.html", "dkim_selector": "s"}, "letter.html"),
        ({"dkim_key": "none.pem", "dkim_selector": "s"}, "none.pem: cannot read the key"),
        ({"source": "x"}, "--source x: is no IP address"),
        ({"route": "a:b:c"}, "--route a:b:c"),
        ({"resolver": "127.0.0.1:99999"}, "--resolver"),
        ({"until": "soon"}, "--until soon"),
        ({"return_path_domain": "x"}, "--return-path-domain x"),
        ({"unsubscribe_host": "https://x.example"}, "--unsubscribe-host"),
        ({"list_id": "no dots here"}, "--list-id"),
        ({"address_column": "Mail"}, "no column is called 'Mail'"),
        ({"config": "none.toml"}, "none.toml: does not exist"),
        ({"reply_to": "x"}, "--reply-to x"),
    ],
)
def test_every_mistake_is_found_before_anything_is_made(
    folder: Path,
    jobs: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    replaced: dict[str, str],
    problem: str,
) -> None:
    assert send(**replaced) == 2
    err = capsys.readouterr().err
    assert problem in err
    assert err.startswith("emass: ")
    assert "Traceback" not in err
    assert not jobs
    assert not (folder / "job").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--resume"], "needs '--data DIR'"),
        (["--resume", "--data", "job", "--html", "letter.html"], "leave their options away"),
        (["--resume", "--data", "nowhere"], "holds no job to resume"),
    ],
)
def test_wrong_resuming_is_explained(
    folder: Path, arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["send", *arguments]) == 2
    assert problem in capsys.readouterr().err


def test_a_changed_list_is_not_resumed(
    folder: Path, jobs: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert send() == 0
    assert send() == 2
    assert "holds a job already" in capsys.readouterr().err
    with (folder / "people.csv").open("a") as file:
        file.write("c@example.org;C;\n")
    assert run(["send", "--data", "job", "--resume"]) == 2
    assert "has changed since this job began" in capsys.readouterr().err
    assert len(jobs) == 1


def test_a_dry_run_counts_shows_one_message_and_makes_no_job(
    folder: Path, jobs: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert send("--dry-run", dkim_key="key.pem", dkim_selector="s1") == 0
    out = capsys.readouterr().out
    assert "2 messages would be sent; 1 lines are refused, see people-refused.csv" in out
    assert "Forecast: 2 messages in all: about " in out
    assert "Subject: Hello Ann" in out
    assert "Dear Ann" in out
    assert "3,bad,address has no @" in (folder / "people-refused.csv").read_text()
    assert send("--dry-run", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["would_send"], facts["refused"], facts["fields"]) == (2, 1, ["first_name"])
    assert 0 <= facts["forecast_seconds"]["low"] <= facts["forecast_seconds"]["high"]
    assert not jobs
    assert not (folder / "job").exists()
