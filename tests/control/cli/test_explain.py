"""An address explained: by the configuration where no engine runs, and in few lines for people."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.world.process import world_process
from control.cli import explain as command
from control.cli.__main__ import run
from control.cli.explain import show
from engine.config import Config
from engine.model.egress import MxHost
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.mx import Route
from tests.fakes.campaigns import emass, village

FACTS: dict[str, Any] = {
    "engine": True,
    "domain": "x.test",
    "hosts": ["mx1.x.test", "mx2.x.test", "mx3.x.test", "mx4.\x1bx.test"],
    "provider": "mx1.x.test+mx2.x.test",
    "path": "out>mx1.x.test+mx2.x.test",
    "values": [
        {"key": "connections", "value": "20", "layer": "default", "rule": ""},
        {"key": "rate", "value": "9/s", "layer": "emass.toml", "rule": "rule 1 (mx x.test)"},
        {"key": "burst", "value": "1 s", "layer": "default", "rule": ""},
    ],
    "connections": 2,
    "waiting": {"transactional": 0, "default": 0, "bulk": 340, "released": 5},
    "holds": [{"subject": "campaign", "value": "7", "seconds": 3_300.0, "reason": "554 \x1b[31mspam"}],
    "pins": [{"knob": "rate", "value": 2.0, "reason": "agreed", "author": "ann"}],
    "state": {
        "connections": 2,
        "connections_ceiling": 20,
        "rate_per_second": 2.0,
        "rate_ceiling": 9.0,
        "rate_phase": "at its estimate",
    },
    "provider_state": {
        "connections_limit": 10,
        "connections_taken": 4,
        "warm_up": "day 2",
        "breaker": "open",
        "breaker_why": "30 of the last 40",
    },
    "why": ["345 wait at 2/s"],
    "forecast": {"sentence": "345 messages to mx1.x.test+mx2.x.test: about 3 min"},
}


def shown(facts: dict[str, Any], **how: Any) -> str:
    stream = io.StringIO()
    show(facts, "ann@x.test", Console(file=stream, width=120), **how)
    return stream.getvalue()


def test_route_values_state_and_reasons_fit_a_screen_and_escape_strangers() -> None:
    text = shown(FACTS)
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[0] == "ann@x.test -> mx1.x.test, mx2.x.test, mx3.x.test and 1 more -> x.test"
    assert len(lines) < 30
    assert "\x1b" not in text
    for line in (
        "  connections: 2 open, 2 allowed now, 20 at most",
        "  rate: 2/s, 9/s at most (at its estimate)",
        "  x.test in all: 4 of 10 connections",
        "  warm-up: day 2",
        "  circuit breaker: 30 of the last 40",
        "  pinned: rate at 2/s by ann: agreed",
        "  held: campaign 7, 55 min more: 554 \\x1b[31mspam",
        "  waiting on this path: 340 bulk, 5 released",
        "  345 wait at 2/s",
        "Forecast: 345 messages to x.test: about 3 min",
        "... and 1 more at their defaults (--all)",
    ):
        assert line in lines
    assert "emass.toml, rule 1 (mx x.test)" in text
    assert "burst" in shown(FACTS, everything=True)
    assert "burst" not in text


def test_a_path_that_nothing_has_gone_over_has_no_state() -> None:
    quiet = FACTS | {"state": None, "provider_state": None, "pins": [], "holds": [], "forecast": None}
    assert "connections: " not in shown(quiet)


@pytest.fixture
def no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMASS_CONFIG", raising=False)
    return tmp_path


def look_up(found: Route | TransportFailure) -> Any:
    async def answer(domain: str, config: Config, static: str) -> Route | TransportFailure:
        return found

    return answer


def test_without_an_engine_the_configuration_explains_and_says_so(
    no_engine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = (MxHost("gmail-smtp-in.l.google.com", ("192.0.2.1",), 5, 25),)
    monkeypatch.setattr(command, "_look_up", look_up(Route("gmail-smtp-in.l.google.com", hosts, 300.0)))
    (no_engine / "emass.toml").write_text('[[engine.site]]\nprovider = "google"\nconnections = 7\n')
    assert run(["queue", "explain", "ann@gmail.com", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    values = {row["key"]: (row["value"], row["layer"]) for row in facts["values"]}
    assert (facts["engine"], facts["provider"]) == (False, "google")
    assert values["connections"] == ("7", "emass.toml")
    assert run(["queue", "explain", "gmail.com"]) == 0
    assert "No engine is running here: this is what the configuration says." in capsys.readouterr().out


def test_a_domain_without_a_route_is_one_line(
    no_engine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = TransportFailure(FailureKind.NO_SUCH_DOMAIN, Verb.RESOLVE, "the domain does not exist")
    monkeypatch.setattr(command, "_look_up", look_up(failure))
    assert run(["queue", "explain", "ann@gone.test"]) == 0
    assert capsys.readouterr().out == "ann@gone.test: there is no route: the domain does not exist\n"


@pytest.mark.parametrize("address", ["", "a@", "a@b c", "a@" + "x" * 300])
def test_what_is_no_address_is_one_clear_line(
    address: str, no_engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["queue", "explain", address]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
async def test_the_mx_is_looked_up_with_the_configured_resolver(tmp_path: Path) -> None:
    async with world_process(village()) as world:
        (tmp_path / "emass.toml").write_text(
            '[resolver]\nservers = ["{}:{}"]\nallow_private = true\n'.format(*world.resolver)
        )
        ran = await emass("queue", "explain", "ann@village.test", "--json", folder=tmp_path)
    assert ran.code == 0, ran.err
    assert (ran.facts["hosts"], ran.facts["engine"]) == (["mx.village.test"], False)
