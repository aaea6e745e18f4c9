"""`emass suppress export`: everything but addresses, and hashes that can be imported again."""

import json
from pathlib import Path

import pytest

from control.cli.__main__ import run
from control.cli.suppress_export import HASHES_TITLE
from engine.mta.spool import suppressions


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMASS_CONFIG", raising=False)
    return tmp_path


def lines(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert run(["suppress", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_everything_is_written_and_no_address(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppressions, "PAGE", 2)
    lines(capsys, "add", *(f"ann{number}@x.test" for number in range(5)), "--domain", "y.test")
    lines(capsys, "add", "--subscriber", "shop:17", "--scope", "list:shop/news.example.org")
    lines(capsys, "add", "ann1@x.test", "--scope", "workspace:shop")
    rows = [json.loads(line) for line in lines(capsys, "export")]
    assert [row["of"] for row in rows] == ["address"] * 6 + ["domain", "subscriber"]
    assert (rows[-1]["key"], rows[-1]["scope"]) == ("shop:17", "list:shop/news.example.org")
    assert "ann1" not in json.dumps(rows)
    assert len(lines(capsys, "export", "--scope", "workspace:shop")) == 1


def test_hashes_of_the_installation_can_be_imported_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines(capsys, "add", "ann@x.test", "bob@x.test")
    lines(capsys, "add", "zoe@x.test", "--scope", "workspace:shop")
    hashes = lines(capsys, "export", "--hashes")
    assert hashes[0].startswith(HASHES_TITLE)
    assert len(hashes) == 3
    (folder / "hashes.txt").write_text("\n".join(hashes))
    lines(capsys, "remove", "ann@x.test", "bob@x.test")
    assert json.loads(lines(capsys, "import", "hashes.txt", "--json")[0])["hashes"] == 2
    assert json.loads(lines(capsys, "show", "ann@x.test", "--json")[0])["suppressed"]


def test_where_nothing_is_suppressed_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, "export") == []
    assert len(lines(capsys, "export", "--hashes")) == 1
