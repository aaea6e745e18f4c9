"""Overrides and reloads: what is sent to the engine, what is printed, what is refused; and a real engine."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from control.cli import overrides
from control.cli.__main__ import run
from tests.fakes.campaigns import emass

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 30.0
LISTED = {
    "number": 3,
    "match": "provider google\x1b[2J",
    "values": {"connections": "2..4", "rate": "100/min"},
    "until": None,
    "reason": "they asked",
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
        if request["command"] == "overrides":
            return {"overrides": [LISTED, LISTED | {"until": time.time() + 7_200}]}
        return {"done": "it is done\x1b[2J", "warnings": ["odd"], "restart": ["[engine] smtp_port"]}

    monkeypatch.setattr(overrides, "order", order)
    monkeypatch.setattr(overrides, "author", lambda: "ann")
    return requests


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        (
            ["override", "provider=google", "connections=2..4", "--for", "2 h"],
            {
                "command": "override",
                "said": {"provider": "google", "connections": "2..4"},
                "seconds": 7_200.0,
            },
        ),
        (
            ["override", "workspace=shop", "rate = 5000/h"],
            {"command": "override", "said": {"workspace": "shop", "rate": "5000/h"}, "seconds": None},
        ),
        (["override", "--remove", "3"], {"command": "end-override", "number": 3}),
        (["reload"], {"command": "reload"}),
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
    assert capsys.readouterr().out == "it is done\\x1b[2J\nodd\nneeds a restart: [engine] smtp_port\n"


def test_a_reload_needs_no_reason(asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["queue", "reload", "--data", ".", "--json"]) == 0
    assert asked[0]["reason"] == overrides.REASON_OF_RELOAD
    assert capsys.readouterr().out.startswith('{"done": "it is done')


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "say what holds, or '--remove ID'"),
        (["rate=1/s", "--remove", "3"], "say what holds, or '--remove ID'"),
        (["--remove", "3", "--for", "2 h"], "'--for' says nothing"),
        (["--remove", "0"], "--remove"),
        (["google"], "google: write KEY=VALUE"),
        (["provider=", "rate=1/s"], "provider=: write KEY=VALUE"),
        (["rate=1/s", "rate=2/s"], "rate is said twice"),
        (["rate=1/s", "--for", "ever"], "--for ever: is no duration"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_engine_is_asked(
    words: list[str], error: str, asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["queue", "override", *words, "--reason", "agreed", "--data", "."]) == 2
    assert error in capsys.readouterr().err
    assert asked == []


def test_overrides_are_a_table_with_reasons(
    asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert run(["queue", "overrides", "--data", "."]) == 0
    out = capsys.readouterr().out
    assert "connections 2..4, rate 100/min" in out
    assert "no end" in out
    assert "2.0 h" in out
    assert "  3: they asked\n" in out
    assert "\x1b[2J" not in out


def test_that_nothing_is_overridden_is_said(
    asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overrides, "order", lambda folder, **request: {"overrides": []})
    assert run(["queue", "overrides", "--data", "."]) == 0
    assert capsys.readouterr().out == "Nothing is overridden: the rules of the files hold.\n"
    assert run(["queue", "overrides", "--data", ".", "--json"]) == 0
    assert capsys.readouterr().out == '{"overrides": []}\n'


@pytest.mark.slow
async def test_a_running_engine_takes_overrides_keeps_them_and_reads_its_files_anew(tmp_path: Path) -> None:
    config = tmp_path / "emass.toml"
    mine = tmp_path / "mine.toml"
    config.write_text('[node]\nname = "n1"\n[engine]\nshaping = "mine.toml"\n')
    mine.write_text("version = 1\n")

    async def queue(*words: str) -> Any:
        return await emass("queue", *words, "--data", "data", "--json", folder=tmp_path)

    async def started() -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-m", "engine", str(config)], cwd=ROOT, stderr=subprocess.DEVNULL
        )
        with trio.fail_after(START_SECONDS):
            while (await queue("overrides")).code != 0:
                await trio.sleep(0.1)
        return process

    process = await started()
    try:
        reason = ("--reason", "they asked")
        done = await queue("override", "provider=google", "connections=2..4", "--for", "2 h", *reason)
        assert done.code == 0, done.err
        refused = await queue("override", "provider=gogle", "connections=2..4", *reason)
        assert (refused.code, "no provider is called 'gogle'" in refused.err) == (1, True)
        mine.write_text('version = 1\n[[site]]\nprovider = "google"\nrate = "9/s..1/s"\n')
        refused = await queue("reload")
        assert refused.code == 1
        assert "mine.toml: [site[0]] rate: has a floor (9/s) above its ceiling (1/s)" in refused.err
        mine.write_text('version = 1\n[[site]]\nprovider = "google"\nrate = "1/s..9/s"\n')
        read = await queue("reload")
        assert read.code == 0, read.err
        assert ", 1 mine.toml, 1 override" in read.facts["done"]
        changes = (await queue("changes")).facts["changes"]
        assert [(one["knob"], one["reason"].rpartition(": ")[2]) for one in changes] == [
            ("override", "they asked"),
            ("reload", overrides.REASON_OF_RELOAD),
        ]
    finally:
        process.terminate()
        await trio.to_thread.run_sync(process.wait)
    process = await started()
    try:
        (kept,) = (await queue("overrides")).facts["overrides"]
        assert (kept["number"], kept["match"], kept["reason"]) == (1, "provider google", "they asked")
        assert (await queue("override", "--remove", "1", "--reason", "well again")).code == 0
        assert (await queue("overrides")).facts == {"overrides": []}
    finally:
        process.terminate()
        await trio.to_thread.run_sync(process.wait)
