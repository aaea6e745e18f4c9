"""`emass suppress` by hand: add, show, remove; without an engine, with one, and with nonsense."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio

from bench.world.process import world_process
from control.cli import suppress_store
from control.cli.__main__ import run
from engine.mta.policy.suppression_codec import decode_order
from tests.fakes.campaigns import Campaign, Ran, emass, village
from tests.fakes.engine_process import started


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMASS_CONFIG", raising=False)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert run(["suppress", *words]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def facts(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads(told(capsys, *words, "--json"))


def test_an_address_is_added_shown_in_every_spelling_and_taken_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert told(capsys, "add", "Ann@Example.net", "bob@x.test", "--note", "by phone") == "2 suppressed\n"
    assert told(capsys, "add", "ann@example.net", "--scope", "workspace:shop") == "1 suppressed\n"
    shown = told(capsys, "show", '"ann"@EXAMPLE.net')
    assert shown.count("address: manual, ") == 2
    assert ": by phone\n" in shown
    assert told(capsys, "show", "ann+1@example.net") == "It is not suppressed.\n"
    done = facts(capsys, "remove", "ann@example.net", "zoe@x.test", "--scope", "workspace:shop")
    assert (done["changed"], done["removed"], done["through"]) == (1, 0, "store")
    assert told(capsys, "remove", "ann@example.net", "zoe@x.test") == "1 taken back, 1 were not suppressed\n"
    assert facts(capsys, "show", "ann@example.net") == {"suppressed": False, "entries": []}


def test_domains_and_subscribers_have_scopes_and_reasons_too(capsys: pytest.CaptureFixture[str]) -> None:
    scope = ("--scope", "list:shop/news.example.org", "--reason", "unsubscribed")
    assert facts(capsys, "add", "--domain", "X.test", "--subscriber", "shop:17", *scope)["added"] == 2
    (entry,) = facts(capsys, "show", "ann@x.test")["entries"]
    assert (entry["of"], entry["scope"], entry["reason"]) == ("domain", scope[1], "unsubscribed")
    assert [one["of"] for one in facts(capsys, "show", "a@y.test", "--subscriber", "shop:17")["entries"]] == [
        "subscriber"
    ]
    assert facts(capsys, "show", "x.test")["suppressed"]


def test_a_hash_stands_for_its_address(capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "add", "ann@x.test")
    (line,) = told(capsys, "export", "--hashes").splitlines()[1:]
    assert facts(capsys, "show", line)["suppressed"]
    assert told(capsys, "remove", line) == "1 taken back\n"
    assert facts(capsys, "show", "ann@x.test")["suppressed"] is False


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["add"], "name addresses"),
        (["add", "ann@x.test", "--scope", "shop"], "--scope: 'shop' is no scope"),
        (["add", "ann@localhost"], "ann@localhost: domain has no dot"),
        (["add", "00ff"], "00ff: is no address hash"),
        (["add", "--domain", "nodot"], "--domain nodot: domain has no dot"),
        (["add", "--subscriber", "17"], "--subscriber 17: a subscriber has a workspace"),
        (["add", "--subscriber", "shop:x"], "write WORKSPACE:NUMBER"),
        (["add", *(f"a{number}@x.test" for number in range(1_001))], "emass suppress import"),
        (["show", "ann@x.test", "--data", "nowhere"], "nowhere: is no folder"),
    ],
)
def test_nonsense_is_one_clear_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in told(capsys, *words, code=2)


def test_a_store_of_another_master_key_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "add", "ann@x.test")
    (folder / "data" / "keys" / "master.key").unlink()
    assert "kept under another master key" in told(capsys, "add", "bob@x.test", code=1)
    assert "kept under another master key" in told(capsys, "show", "bob@x.test", code=1)


def test_the_key_of_a_configuration_is_used_where_there_is_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "emass.toml").write_text('[keys]\nfolder = "secrets"\n')
    told(capsys, "add", "ann@x.test")
    assert (folder / "secrets" / "master.key").exists()
    assert not (folder / "data" / "keys").exists()


def test_with_an_engine_the_order_goes_to_it_and_what_was_on_its_way_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requests: list[dict[str, Any]] = []

    def ask(folder: Path, within_seconds: float, **request: Any) -> dict[str, Any]:
        requests.append(request)
        return {"changed": 1, "were_on_their_way": 3, "still_on_their_way": 1}

    monkeypatch.setattr(suppress_store, "ask", ask)
    said = told(capsys, "add", "ann@x.test", "bob@x.test", "--reason", "complained")
    assert said.splitlines() == [
        "1 suppressed, 1 were already",
        "3 messages were on their way and are waited for",
        "1 of them have no answer from their receiver yet",
    ]
    order = decode_order(bytes.fromhex(requests[0]["asked"]["order"]))
    assert (requests[0]["command"], len(order.keys), order.adds) == ("suppress", 2, True)


@pytest.mark.parametrize("name", ["add", "remove", "show", "import", "export"])
def test_every_command_of_the_group_has_help_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"emass suppress {name}" in told(capsys, name, "--help").partition("Example:")[2]


@pytest.mark.slow
async def test_a_running_engine_obeys_and_keeps_it(folder: Path) -> None:
    (folder / "emass.toml").write_text('[node]\nname = "n1"\n')
    (folder / "list.txt").write_text("".join(f"a{number}@x.test\n" for number in range(500)))

    async def suppress(*words: str) -> Ran:
        return await emass("suppress", *words, folder=folder)

    engine: subprocess.Popen[bytes] = await started(folder)
    try:
        added = (await suppress("add", "ann@x.test", "--json")).facts
        assert (added["through"], added["added"], added["were_on_their_way"]) == ("engine", 1, 0)
        imported = (await suppress("import", "list.txt", "--json")).facts
        assert (imported["through"], imported["added"], imported["keys"]) == ("engine", 500, 500)
        assert (await suppress("show", "a7@x.test", "--json")).facts["suppressed"]
        assert (await suppress("remove", "a7@x.test")).out == "1 taken back\n"
        assert not list((folder / "data" / "bus").glob("cli-*"))
    finally:
        engine.terminate()
        await trio.to_thread.run_sync(engine.wait)
    assert (await suppress("show", "a8@x.test", "--json")).facts["suppressed"]
    assert not (await suppress("show", "a7@x.test", "--json")).facts["suppressed"]


@pytest.mark.slow
async def test_a_campaign_leaves_out_who_is_suppressed_and_counts_them(folder: Path) -> None:
    (folder / "job").mkdir()
    async with world_process(village()) as world:
        campaign = Campaign(folder, world, [f"reader{number}@village.test" for number in range(20)])
        for words in (["reader7@village.test"], ["Reader8@VILLAGE.test", "--reason", "unsubscribed"]):
            assert (await emass("suppress", "add", *words, "--data", "job", folder=folder)).code == 0
        sent = await campaign.send("--json")
    assert sent.code == 0, sent.err
    assert (sent.facts["accepted"], sent.facts["delivered"], sent.facts["suppressed"]) == (20, 18, 2)
