"""What may change while a node runs, and what is refused by table and key."""

import time
from pathlib import Path

import pytest

from control.node.house import HouseError, NodeHouse
from control.node.log_lines import LogBook
from control.node.record import ProcessState
from control.node.reload import LIVE, ReloadRefused, differences, other_differences, other_tables, reload
from engine.actors.ruling import READ_ANEW
from engine.config import Config
from tests.fakes.node_children import node_config, shell

BASE = '[node]\nname = "n1"\n'
SITE = '[[engine.site]]\nmx = "mx.x.test"\nconnections = 3\n'


def house_of(folder: Path, text: str = BASE, kinds: tuple[str, ...] = ("engine",)) -> NodeHouse:
    config, path = node_config(folder, text)
    made = [shell(name, "true") for name in kinds]
    return NodeHouse(config, path, made, LogBook(kinds), wall=time.time, environ={})


class Answering(NodeHouse):
    """A house whose engine answers."""

    answer: dict[str, object] | str = "nothing"

    async def ask_engine(self, request, seconds=1.0):
        self.asked = request
        if isinstance(self.answer, str):
            raise HouseError(self.answer)
        return self.answer


def test_the_live_keys_are_those_that_an_engine_reads_anew():
    assert frozenset(READ_ANEW) == LIVE["engine"]


def test_rules_are_no_difference_and_everything_else_is(tmp_path):
    before = node_config(tmp_path, BASE)[0]
    assert differences(before, before) == ()
    assert differences(before, node_config(tmp_path, BASE + SITE)[0]) == ()
    text = BASE + "[engine]\nsmtp_port = 26\n[limits]\nspool_map = '1 GB'\n"
    assert differences(before, node_config(tmp_path, text)[0]) == ("[engine] smtp_port", "[limits] spool_map")
    assert differences(Config(), Config()) == ()


def test_a_table_of_another_package_is_a_difference():
    assert other_differences({}, {}) == ()
    assert other_differences({"submission": {"workers": 1}}, {"submission": {"workers": 2}}) == (
        "[submission]",
    )


async def test_a_mistake_in_the_file_changes_nothing(tmp_path):
    house = house_of(tmp_path)
    house.config_path.write_text("[engine]\nsmtp_prot = 25\n")
    with pytest.raises(ReloadRefused, match=r"smtp_prot.*nothing was changed"):
        await reload(house, {})


async def test_what_wants_a_restart_is_named_and_nothing_changes(tmp_path):
    house = house_of(tmp_path)
    before = house.config
    house.config_path.write_text(BASE + "[engine]\nsmtp_port = 26\n[submission]\nworkers = 2\n" + SITE)
    with pytest.raises(ReloadRefused, match=r"\[engine\] smtp_port, \[submission\]: cannot change while"):
        await reload(house, other_tables(house) and {})
    assert house.config is before


async def test_without_an_engine_the_new_rules_hold_at_its_next_start(tmp_path):
    house = house_of(tmp_path)
    house.config_path.write_text(BASE + SITE)
    done = await reload(house, {})
    assert "next start" in done.done
    assert len(house.config.engine.site) == 1


async def test_a_running_engine_is_asked_and_its_refusal_is_told(tmp_path):
    house = house_of(tmp_path)
    house.__class__ = Answering
    assert isinstance(house, Answering)
    house.records["engine"].state = ProcessState.READY
    house.config_path.write_text(BASE + SITE)
    house.answer = "rule 1 makes no sense"
    with pytest.raises(ReloadRefused, match="the engine refused: rule 1 makes no sense"):
        await reload(house, {})
    assert house.config.engine.site == ()
    house.answer = {"done": "read anew: 1 rule", "warnings": ["odd"]}
    done = await reload(house, {})
    assert (done.done, done.warnings) == ("read anew: 1 rule", ("odd",))
    assert house.asked["command"] == "reload"
    assert len(house.config.engine.site) == 1
