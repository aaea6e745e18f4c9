"""`emass tls`: what is listed, which files are written, and to whom reports would go."""

import gzip
import json
import time
from email import message_from_bytes
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from control.cli import tls
from control.cli.__main__ import run
from engine.bus.local import LocalBus
from engine.model.tls import PolicyKind
from engine.model.tls_result import (
    TLS_RESULTS_TABLE,
    DomainResults,
    PolicyResults,
    TlsFailure,
    TlsResult,
    row_key,
)
from engine.mta.net.dns_message import Answer, AnswerKind
from engine.mta.net.resolver import Resolver

DAY = "2026-03-01"
FAILURE = TlsFailure(TlsResult.EXPIRED, "mx.a.test\x1b[2J", reason="expired")
ROWS = (
    DomainResults(DAY, "a.test", (PolicyResults(PolicyKind.STS, "a.test", (), (), 1_500, 1, (FAILURE,)),)),
    DomainResults(DAY, "b.test", (PolicyResults(PolicyKind.DANE, "mx.b.test", ("3 1 1 00",), (), 7),)),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with counts, a configuration, and DNS of two domains."""
    (tmp_path / "data" / "spool").mkdir(parents=True)
    (tmp_path / "data" / "spool" / "data.mdb").touch()
    (tmp_path / "emass.toml").write_text('[tls]\norganization = "Example"\ncontact = "tls@sender.test"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMASS_CONFIG", raising=False)
    put(tmp_path / "data", *ROWS)
    texts = {
        "_smtp._tls.a.test": (b"v=TLSRPTv1; rua=mailto:r@a.test,https://a.test/r",),
        "_smtp._tls.b.test": (),
    }

    async def ask(self: Resolver, name: str, rdtype: object) -> tuple[Answer, float]:
        if name not in texts:
            return Answer(AnswerKind.FAILED), 0.0
        return Answer(AnswerKind.FOUND, texts=texts[name]), 60.0

    monkeypatch.setattr(Resolver, "ask", ask)
    return tmp_path


def put(data: Path, *rows: DomainResults) -> None:

    async def write() -> None:
        bus = LocalBus(data / "bus", "node-1")
        async with trio.open_nursery() as nursery:
            await nursery.start(bus.run)
            for row in rows:
                await bus.put(
                    TLS_RESULTS_TABLE, row_key(row.day, "node-1", row.domain), msgspec.json.encode(row)
                )
            bus.close()
        bus.close_files()

    trio.run(write)


def test_sessions_are_listed_with_the_most_frequent_failure(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert run(["tls", "show", "--day", DAY]) == 0
    out = capsys.readouterr().out
    first, second = [line for line in out.splitlines() if ".test" in line]
    assert first.split() == [
        "a.test",
        "sts",
        "1,500",
        "1",
        "certificate-expired",
        r"mx.a.test\x1b[2J",
        "expired",
    ]
    assert second.split() == ["b.test", "tlsa", "7", "0"]
    assert not list((folder / "data" / "bus").glob("cli-*"))


def test_today_is_shown_as_json_when_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder / "data", DomainResults(tls.utc_day(time.time()), "c.test", ()))
    assert run(["tls", "show", "--json"]) == 0
    assert [each["domain"] for each in json.loads(capsys.readouterr().out)["domains"]] == ["c.test"]
    assert run(["tls", "show", "--json", "--day", DAY, "--domain", "B.test"]) == 0
    assert [each["domain"] for each in json.loads(capsys.readouterr().out)["domains"]] == ["b.test"]


def test_nothing_counted_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tls", "show", "--day", "2020-01-01"]) == 0
    assert "No TLS session" in capsys.readouterr().out


def test_a_running_engine_writes_what_it_has_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(tls, "ask", lambda folder, **request: asked.append(request))
    run(["tls", "show"])
    assert asked == [{"command": "tls"}]


def test_reports_are_printed_one_in_a_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tls", "report", "--day", DAY, "--dns"]) == 0
    out, err = capsys.readouterr()
    reports = [json.loads(line) for line in out.splitlines()]
    assert [each["policies"][0]["policy"]["policy-domain"] for each in reports] == ["a.test", "mx.b.test"]
    assert reports[0]["organization-name"] == "Example"
    assert err.splitlines() == ["a.test: mailto:r@a.test, https://a.test/r", "b.test: wants no reports"]


def test_reports_are_files_and_messages_for_those_who_want_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(folder / "data", DomainResults(DAY, "c.test", ()))
    assert run(["tls", "report", "--day", DAY, "--out", "reports", "--mail"]) == 0
    names = sorted(path.name for path in (folder / "reports").iterdir())
    stem = "sender.test!{}.test!1772323200!1772409599"
    assert names == sorted(
        [*(f"{stem.format(letter)}.json.gz" for letter in "abc"), f"{stem.format('a')}.eml"]
    )
    told = gzip.decompress((folder / "reports" / f"{stem.format('b')}.json.gz").read_bytes())
    assert json.loads(told)["contact-info"] == "tls@sender.test"
    mail = message_from_bytes((folder / "reports" / f"{stem.format('a')}.eml").read_bytes())
    assert mail["To"] == "r@a.test"
    out = capsys.readouterr().out
    assert "DNS did not tell" in out
    assert "3 reports in reports, 1 of them as messages" in out


def test_without_a_contact_there_is_no_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "emass.toml").write_text("")
    assert run(["tls", "report", "--day", DAY]) == 2
    assert '[tls] contact: a report needs an address; write contact = "' in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["show", "--day", "soon"], ["report", "--mail"], ["show", "--data", "nowhere"]]
)
def test_what_makes_no_sense_is_refused(folder: Path, words: list[str]) -> None:
    assert run(["tls", *words]) == 2


def test_a_row_that_does_not_decode_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def spoil() -> None:
        bus = LocalBus(folder / "data" / "bus", "node-1")
        async with trio.open_nursery() as nursery:
            await nursery.start(bus.run)
            await bus.put(TLS_RESULTS_TABLE, row_key(DAY, "node-1", "a.test"), b"nonsense")
            bus.close()
        bus.close_files()

    trio.run(spoil)
    assert run(["tls", "show", "--day", DAY]) == 1
    assert "2026-03-01 node-1 a.test: does not decode" in capsys.readouterr().err
