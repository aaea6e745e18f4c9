"""Other rules hold at once on every path, end by themselves, and are refused whole when anything is wrong."""

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.actors import operating
from engine.actors.memory import PathMemory
from engine.actors.operating import Author, Refused
from engine.actors.parts import ConfigFile, Parts
from engine.actors.ruling import SAID_MAX, Ruling
from engine.config.egress import SourceRule
from engine.config.load import load_config
from engine.config.units import CountRange
from engine.model.event import Adapted
from tests.fakes.engine_house import SOURCE, host_route, memory_parts

ANN = Author("ann", "they asked")
HOST = "aspmx.l.google.com"
TOML = """
[engine]
shaping = "mine.toml"
replies = "replies.toml"

[[engine.source]]
name = "out"

[[engine.provider]]
name = "lamp"
mx = ["lamp.test"]
"""
MINE = """
version = 1

[[site]]
provider = "lamp"
connections = "2..3"
rate = "10/s"
"""
REPLIES = """
version = "mine"

[[rule]]
id = "lamp-greylist"
category = "greylisted"
any = ["come back when it is dark"]
samples = ["450 come back when it is dark"]
"""


def with_path(parts: Parts, host: str = HOST, domain: str = "") -> PathMemory:
    key = f"out>{host}" + (f"/{domain}" if domain else "")
    return parts.path(key, host_route("192.0.2.1", 25, host), SOURCE, domain, trio.current_time())


def rules_noted(parts: Parts) -> list[Adapted]:
    return [noted.change for noted in parts.changes if noted.change.knob in ("override", "reload")]


def node(folder: Path, toml: str = TOML, mine: str = MINE, replies: str = REPLIES) -> Parts:
    """Parts of an engine that was started over these files."""
    write(folder, toml, mine, replies)
    parts = memory_parts()
    config = load_config(folder / "emass.toml", {})
    parts.config_file = ConfigFile(folder / "emass.toml", {}, config)
    parts.config = config
    return parts


def write(folder: Path, toml: str = TOML, mine: str = MINE, replies: str = REPLIES) -> None:
    (folder / "emass.toml").write_text(toml)
    (folder / "mine.toml").write_text(mine)
    (folder / "replies.toml").write_text(replies)


# --- overrides ------------------------------------------------------------------------------------------


async def test_an_override_holds_at_once_on_known_and_new_paths_and_until_its_time(
    autojump_clock: MockClock,
) -> None:
    parts = memory_parts(source=(SourceRule(name="out"),))
    ruling, known, other = Ruling(parts), with_path(parts), with_path(parts, "mx.x.test")
    before = known.shaping
    said = {"provider": "google", "connections": "1..1", "rate": "60/min", "provider_connections": "7"}
    said |= {"connection_rate": "1/s", "provider_rate": "2/s", "messages_per_connection": "9"}
    done, warnings = await ruling.override(said, 3_600, ANN)
    assert done.startswith("override 1 holds for 1 h: provider google: connections 1..1, rate 60/min, ")
    assert warnings == []
    for memory in (known, with_path(parts, "gmail-smtp-in.l.google.com")):
        assert memory.shaping.messages_per_connection == 9
        assert (memory.governor.connections, memory.governor.rate_per_second) == (1, 1.0)
        assert (memory.throttle.per_second, memory.opening.per_second) == (1.0, 1.0)
        assert memory.provider.slots.limit == 7
        assert memory.provider.throttle.per_second == 2.0
    assert other.governor.rate_per_second == 20.0
    explained = {row.key: row.layer for row in parts.shaping.explain("out", HOST, [HOST])}
    assert (explained["connections"], explained["rate"], explained["idle_timeout"]) == (
        "override",
        "override",
        "default",
    )
    assert not await ruling.end_over()
    await trio.sleep(3_600)
    assert await ruling.end_over()
    assert known.shaping == before
    assert known.provider.slots.limit == before.provider_connections
    assert known.opening.per_second is None
    assert known.governor.state()["connections_ceiling"] == before.connections.ceiling
    set_, ended = rules_noted(parts)
    assert (set_.provider, set_.author, ended.author) == ("google", "ann", "ann")
    assert set_.reason.endswith("(for 1 h): they asked")
    assert ended.reason.endswith("messages_per_connection 9: its time is over")


async def test_what_moved_on_a_path_is_noted_for_it(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    memory = with_path(parts)
    await Ruling(parts).override({"provider": "google", "rate": "60/min"}, None, ANN)
    moved = [noted.change for noted in parts.changes if noted.change.path == memory.key]
    assert [(one.knob, one.after, one.reason) for one in moved] == [
        ("rate", 1.0, "override 1: down from 20/s to 1/s")
    ]


async def test_an_override_survives_a_restart(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    await Ruling(parts).override({"site": HOST, "connections": "1"}, None, ANN)
    again = Parts(
        config=parts.config,
        clock=parts.clock,
        spool=parts.spool,
        committer=None,
        space=None,
        bus=parts.bus,
        resolver=parts.resolver,
        sources=parts.sources,
        tokens=parts.tokens,
        dkim_keys=parts.dkim_keys,
        static_route=lambda: None,
    )
    assert with_path(again).governor.connections == 1
    assert (await Ruling(again).end(1, ANN)).startswith("override 1 holds no longer: site aspmx")
    assert with_path(again).shaping.connections.ceiling > 1


async def test_a_domain_with_an_override_has_a_path_of_its_own(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    ruling = Ruling(parts)
    await ruling.override({"domain": "slow.test", "rate": "1/s"}, None, ANN)
    assert parts.ruled_domains == {"slow.test"}
    own = with_path(parts, "mx.x.test", "slow.test")
    assert own.governor.rate_per_second == 1.0
    assert with_path(parts, "mx.x.test").governor.rate_per_second == 20.0
    await ruling.end(1, ANN)
    assert parts.ruled_domains == frozenset()
    assert own.shaping.rate is None


async def test_a_pin_stands_again_when_the_bounds_that_cut_it_are_gone(autojump_clock: MockClock) -> None:
    parts = memory_parts()
    ruling, memory = Ruling(parts), with_path(parts)
    await operating.pin(parts, memory.key, "connections", 5, None, ANN, trio.current_time())
    await ruling.override({"provider": "google", "connections": "2"}, None, ANN)
    assert memory.governor.connections == 2
    await ruling.end(1, ANN)
    assert memory.governor.connections == 5


@pytest.mark.parametrize(
    ("said", "seconds", "error"),
    [
        ({}, None, "it says nothing"),
        ({"provider": "google"}, None, "it says nothing"),
        ({"provider": " ", "connections": "2"}, None, "provider: is empty"),
        ({"conections": "2"}, None, 'override: conections: unknown key (did you mean "connections"?)'),
        ({"connections": "4..2"}, None, "override: connections: has a floor (4) above its ceiling (2)"),
        ({"rate": "fast"}, None, "override: rate: is no rate"),
        ({"pipelining": "perhaps"}, None, "override: pipelining: must be true or false"),
        ({"tls": "requird"}, None, 'did you mean "required"?'),
        ({"provider": "google", "site": "x", "rate": "1/s"}, None, "one rule matches by one key"),
        ({"workspace": "shop", "connections": "2"}, None, "is not for one workspace"),
        ({"site": "x" * SAID_MAX, "rate": "1/s"}, None, "site: is longer than 1,000 characters"),
        ({"provider": "gogle", "rate": "1/s"}, None, "no provider is called 'gogle'"),
        ({"source": "ip-9", "rate": "1/s"}, None, "no source is called 'ip-9'"),
        ({"connections": "9000"}, None, "above [engine] connections_max"),
        ({"rate": "1/s"}, 0, "longer than 0 s"),
        ({"rate": "1/s"}, float("nan"), "longer than 0 s"),
    ],
)
async def test_what_cannot_be_is_refused_and_the_running_rules_stay(
    said: dict[str, str], seconds: float | None, error: str, autojump_clock: MockClock
) -> None:
    parts = memory_parts()
    rules = parts.shaping
    with pytest.raises(Refused) as refused:
        await Ruling(parts).override(said, seconds, ANN)
    assert error in str(refused.value)
    assert len(str(refused.value)) < 800
    assert parts.shaping is rules
    assert parts.overrides.all() == []
    assert rules_noted(parts) == []


async def test_an_override_that_is_not_there_is_refused_with_those_that_are(
    autojump_clock: MockClock,
) -> None:
    ruling = Ruling(memory_parts())
    with pytest.raises(Refused, match="there is no override 7; nor another"):
        await ruling.end(7, ANN)
    await ruling.override({"rate": "1/s"}, None, ANN)
    with pytest.raises(Refused, match="there is no override 7; there are: 1"):
        await ruling.end(7, ANN)


# --- reading anew ---------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_reload_takes_over_what_concerns_receivers_and_names_the_rest(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    parts = node(tmp_path)
    ruling, memory = Ruling(parts), with_path(parts, "mx.lamp.test")
    assert memory.provider.name == "mx.lamp.test", "these parts were made without the files"
    memory.provider.slots.opened(memory.key, 0.0)
    await ruling.override({"provider": "google", "connections": "1"}, None, ANN)
    warm = '[[engine.warmup]]\nsource = "out"\nprovider = "lamp"\nper_day = [5, 10]\n'
    more = '[resolver]\nattempts = 5\n[[engine.share]]\nworkspace = "shop"\nweight = 3.0\n'
    write(tmp_path, TOML.replace("[engine]", "[engine]\nsmtp_port = 2525") + warm + more)
    told = await ruling.reload(ANN)
    assert told.restart == ("[engine] smtp_port", "[resolver] attempts")
    assert told.done.startswith("read anew: rules for receivers: ")
    assert ", 1 mine.toml, 0 emass.toml, 1 override; rules for replies: " in told.done
    assert memory.provider.name == "lamp"
    assert memory.provider.slots.taken == 1
    assert memory.shaping.connections == CountRange(2, 3)
    assert memory.governor.rate_per_second == 10.0
    assert memory.provider.warmup is not None
    assert memory.provider.warmup.plan.per_day == (5, 10)
    assert parts.shaping.flow("shop", 0, "").weight_workspace == 3.0
    assert parts.config.engine.smtp_port == 25
    assert with_path(parts).governor.connections == 1, "overrides stand"
    verdict = parts.judge.text("450 come back when it is dark")
    assert verdict.rule == "lamp-greylist"
    assert rules_noted(parts)[-1].reason == f"{told.done}: they asked"
    write(tmp_path, TOML, MINE.replace("10/s", "4/s"))
    assert (await ruling.reload(ANN)).restart == ()
    assert memory.governor.rate_per_second == 4.0
    assert memory.provider.warmup is None


@pytest.mark.slow
async def test_a_changed_warm_up_plan_goes_on_where_the_old_one_was(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    plan = '[[engine.warmup]]\nsource = "out"\nprovider = "lamp"\nper_day = [{}]\n'
    parts = node(tmp_path, TOML + plan.format(50))
    ruling = Ruling(parts)
    await ruling.reload(ANN)
    memory = with_path(parts, "mx.lamp.test")
    assert memory.provider.warmup is not None
    await memory.provider.warmup.reserve()
    assert memory.provider.warmup.take(8) == 8
    kept = memory.provider.warmup
    await ruling.reload(ANN)
    assert memory.provider.warmup is kept, "the same plan, the same account"
    write(tmp_path, TOML + plan.format(20))
    await ruling.reload(ANN)
    assert memory.provider.warmup is not kept
    assert memory.provider.warmup.room <= 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({"mine": "version = 1\n[[site]\n"}, "mine.toml: is not TOML"),
        (
            {"mine": MINE.replace("rate", "rates")},
            'mine.toml: [site[0]] rates: unknown key (did you mean "rate"?)',
        ),
        ({"mine": MINE.replace("2..3", "3..2")}, "mine.toml: [site[0]] connections: has a floor (3) above"),
        ({"mine": MINE.replace("lamp", "lamb")}, "no provider is called 'lamb' (did you mean"),
        (
            {"toml": TOML + '[[engine.site]]\nrate = "10/s..1/s"\n'},
            "emass.toml: [engine.site[0]] rate: has a floor",
        ),
        ({"toml": TOML + "[[engine.site]]\nconections = 4\n"}, "conections: unknown key"),
        ({"toml": TOML + "[engin]\n"}, "engin: unknown table"),
        ({"toml": TOML.replace("mine.toml", "gone.toml")}, "gone.toml: does not exist"),
        (
            {
                "toml": TOML.replace("[engine]", "[engine]\nconnections_max = 9000")
                + "[[engine.site]]\nconnections = 8000\n"
            },
            "emass.toml: [engine] site: connections of a site exceed connections_max (restart for what else",
        ),
        ({"replies": REPLIES.replace("any =", "some =")}, "replies.toml: "),
        (
            {"replies": REPLIES.replace('any = ["come back when it is dark"]', "pattern = '(a+)+$'")},
            "replies.toml: [rule lamp-greylist] pattern: ",
        ),
        (
            {"replies": REPLIES.replace('samples = ["450 come', 'samples = ["450 go')},
            "replies.toml: [rule lamp-greylist]: ",
        ),
    ],
)
async def test_files_that_cannot_be_are_refused_with_file_table_and_key_and_the_running_rules_stay(
    files: dict[str, Any], error: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    parts = node(tmp_path)
    rules, config, judge = parts.shaping, parts.config, parts.judge
    write(tmp_path, **files)
    with pytest.raises(Refused) as refused:
        await Ruling(parts).reload(ANN)
    assert error in str(refused.value)
    assert str(refused.value).endswith("the running rules stay")
    assert (parts.shaping is rules, parts.config is config, parts.judge is judge) == (True, True, True)
    assert rules_noted(parts) == []


async def test_an_engine_without_a_file_has_nothing_to_read_anew(autojump_clock: MockClock) -> None:
    with pytest.raises(Refused, match="without a configuration file"):
        await Ruling(memory_parts()).reload(ANN)
