"""`emass init`: what it writes, and that it never overwrites."""

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from control.cli import init
from control.cli.__main__ import run
from engine.config import Config, load_config
from engine.keyring import load_dkim_key, load_master_key


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("init") / "node"
    result = CliRunner().invoke(init.command, [str(folder), "--algorithm", "ed25519-sha256", "--json"])
    assert result.exit_code == 0, result.output
    return folder, json.loads(result.stdout)


def test_it_writes_a_configuration_that_loads_and_names_the_key(made: tuple[Path, dict[str, str]]) -> None:
    folder, facts = made
    config = load_config(folder / "emass.toml", {})
    assert config.engine == Config().engine
    assert config.keys.dkim[0].file == "default.pem"
    assert config.keys.folder == str(folder.resolve() / "keys")
    assert facts["config"] == str(folder / "emass.toml")


def test_keys_work_and_folders_are_private(made: tuple[Path, dict[str, str]]) -> None:
    folder, facts = made
    load_master_key(folder / "keys" / "master.key")
    assert load_dkim_key(Path(facts["dkim_key"])).record() == facts["dkim_record"]
    for name in ("data", "keys"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o700


@pytest.mark.parametrize("file", ["emass.toml", "keys/master.key", "keys/default.pem"])
def test_nothing_is_overwritten(tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert run(["init", str(tmp_path)]) == 2
    assert "exists already; nothing was written" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert sorted(tmp_path.rglob("*")) == before


def test_it_says_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", str(tmp_path), "--selector", "s1"]) == 0
    out = capsys.readouterr().out
    assert "s1._domainkey" in out
    assert "v=DKIM1; k=rsa; p=" in out
    assert f"emass config check --config {tmp_path / 'emass.toml'}" in out
    assert run(["config", "check", "--config", str(tmp_path / "emass.toml")]) == 0


def test_a_folder_that_cannot_be_made_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(["init", str(tmp_path / "file" / "node")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_hub_is_a_folder_that_a_cluster_starts_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = tmp_path / "hub"
    words = [
        "--cluster",
        "--listen",
        "0.0.0.0:4333",
        "--address",
        "hub.example",
        "--set",
        "engine.smtp_port=2525",
    ]
    assert run(["init", str(hub), *words]) == 0
    config = load_config(hub / "emass.toml", {})
    assert (config.node.name, config.engine.smtp_port) == ("hub", 2525)
    assert (str(config.bus.servers[0]), str(config.bus.listen)) == ("hub.example:4333", "0.0.0.0:4333")
    assert (hub / "data" / "cluster" / "registry.json").exists()
    assert "emass node add NAME" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["--cluster", "--listen", "0.0.0.0:4222"], "--address"),
        (["--cluster", "--listen", "here:0"], "--listen here"),
        (["--cluster", "--name", "a.b"], "no node's name"),
        (["--address", "hub.example"], "'--cluster'"),
        (["--set", "engine.smtp_prot=1"], "smtp_port"),
    ],
)
def test_what_a_hub_cannot_be_writes_nothing(
    tmp_path: Path, words: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", str(tmp_path / "hub"), *words]) == 2
    assert word in capsys.readouterr().err
    assert not (tmp_path / "hub").exists()
