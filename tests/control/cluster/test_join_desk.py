"""The desk's decisions, on a bus in memory; a whole join over a real one is in test_joining_live."""

import fcntl
import os
from contextlib import contextmanager

import msgspec
import pytest
import structlog
import trio
from msgspec.structs import replace

from control.cluster.founding import found_cluster, hub_values
from control.cluster.join_desk import MIRROR_SECONDS, Desk, mirror
from control.cluster.join_words import JoinRequest, decode_answer, encode_request
from control.cluster.nats_server import write_nats_config
from control.cluster.node_file import check_text, filled_default
from control.cluster.node_keys import make_keys, read_applicant
from control.cluster.node_seeds import drop_words
from control.cluster.registry import NodeRole, retired, with_code
from control.cluster.registry_file import changing, load_registry
from engine.bus.api import BusFull
from engine.bus.nkeys import new_seed, public_of, sign
from engine.config import HostPort
from engine.keyring import create_master_key
from engine.sealing import NODE_BOX, load_boxes, tokens_bound
from engine.token_ring import decode_ring, load_ring
from tests.fakes.memory_bus import MemoryBus

NOW = 1_700_000_000.0


class Hub:
    """A hub's folder with one code out, and its desk."""

    def __init__(self, folder) -> None:
        found_cluster(folder, "hub", ["127.0.0.1"], NOW)
        create_master_key(folder / "keys" / "master.key")
        plain = check_text(filled_default(hub_values("hub", HostPort.parse("127.0.0.1:4333"), ["127.0.0.1"])))
        self.data, self.keys = folder / "data", folder / "keys"
        self.config = replace(
            plain,
            node=replace(plain.node, data=str(self.data)),
            keys=replace(plain.keys, folder=str(self.keys)),
        )
        self.seed = new_seed()
        public = public_of(self.seed)
        changing(self.data, lambda before: with_code(before, "b", NodeRole.BROADCASTER, public, NOW, 3_600))
        self.now = NOW + 1
        self.bus = MemoryBus("hub.agent")
        self.desk = Desk(self.config, self.bus, lambda: self.now)

    def join(self, machine, *, at=None, seed=None):
        request = JoinRequest(machine, self.now if at is None else at)
        return decode_answer(self.desk.answer_join(encode_request(request, seed or self.seed)))

    def ask(self, **question):
        return msgspec.json.decode(self.desk.answer_node(msgspec.json.encode(question)))


@pytest.fixture
def hub(tmp_path):
    return Hub(tmp_path / "hub")


@pytest.fixture
def machine(tmp_path):
    return read_applicant(make_keys(tmp_path / "b", NodeRole.BROADCASTER), "b")


def test_a_machine_gets_what_it_needs_and_the_server_is_told(hub, machine, tmp_path):
    answer = hub.join(machine)
    assert answer.error == ""
    assert (answer.node, answer.role, answer.hub) == ("b", "broadcaster", "hub")
    assert answer.servers == ("127.0.0.1:4333",)
    assert answer.certificate == (hub.keys / "bus-ca.pem").read_bytes()
    opened = load_boxes(tmp_path / "b" / "keys" / NODE_BOX).open(answer.ring, tokens_bound("b"))
    assert decode_ring(opened, "x") == load_ring(hub.keys)
    assert machine.keys["engine"] in (hub.data / "nats" / "nats.conf").read_text()


def test_no_secret_of_the_hub_is_in_the_answer_in_the_clear(hub, machine):
    text = msgspec.json.encode(hub.join(machine))
    assert (hub.keys / "master.key").read_text().strip().encode() not in text
    assert load_ring(hub.keys).suppression.hex().encode() not in text


def test_the_same_question_again_gets_the_same_node(hub, machine):
    first, again = hub.join(machine), hub.join(machine)
    assert (again.error, again.node) == ("", first.node)


@pytest.mark.parametrize(("skew", "word"), [(301, "5 min ahead of"), (-1_200, "20 min behind")])
def test_a_clock_that_is_minutes_wrong_is_refused_and_the_code_is_not_used_up(hub, machine, skew, word):
    told = hub.join(machine, at=hub.now + skew)
    assert word in told.error
    assert "with the same code" in told.error
    assert hub.join(machine).error == ""


def test_a_clock_that_is_a_little_wrong_joins(hub, machine):
    assert hub.join(machine, at=hub.now + 200).error == ""


def test_each_refusal_is_one_clear_line(hub, machine, tmp_path):
    assert "knows no such join code" in hub.join(machine, seed=new_seed()).error
    assert decode_answer(hub.desk.answer_join(b"nonsense")).error
    hub.now = NOW + 4_000
    assert "expired" in hub.join(machine).error
    assert "b" not in load_registry(hub.data).nodes


def test_a_register_that_cannot_be_written_is_said(hub, machine, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("control.cluster.registry_file.replace_file", full)
    assert "No space left" in hub.join(machine).error


def test_the_hub_tells_its_time(hub):
    assert hub.ask(command="time") == {"at": hub.now}
    assert "does not know" in hub.ask(command="dance")["error"]
    assert "error" in msgspec.json.decode(hub.desk.answer_node(b"{"))


def seeds_of(folder):
    return {path.stem: path.read_text().strip() for path in (folder / "keys" / "bus").glob("*.seed")}


def test_a_node_replaces_its_key_with_its_agents_word(hub, machine, tmp_path):
    hub.join(machine)
    agent, fresh = seeds_of(tmp_path / "b")["agent"], public_of(new_seed())
    said = f"engine {fresh}"
    told = hub.ask(command="new-key", node="b", said=said, signature=sign(agent, said.encode()).hex())
    assert told["done"]
    assert load_registry(hub.data).nodes["b"].keys["engine"] == (machine.keys["engine"], fresh)
    newest = {"agent": machine.keys["agent"], "engine": fresh, "submission": machine.keys["submission"]}
    for keys, done in ((machine.keys, False), (newest, True)):  # who holds old ones shuts itself out
        said = drop_words("b", keys)
        signature = sign(agent, said.encode()).hex()
        told = hub.ask(command="drop-old-keys", node="b", said=said, signature=signature, newest=keys)
        assert (told.get("done", False), "not the newest" in told.get("error", "")) == (done, not done)
    assert load_registry(hub.data).nodes["b"].keys["engine"] == (fresh,)


def test_nobody_else_replaces_it(hub, machine, tmp_path):
    hub.join(machine)
    fresh = public_of(new_seed())
    said = f"engine {fresh}"
    stranger = sign(new_seed(), said.encode()).hex()
    assert "not signed" in hub.ask(command="new-key", node="b", said=said, signature=stranger)["error"]
    agent = seeds_of(tmp_path / "b")["agent"]
    signature = sign(agent, said.encode()).hex()
    assert "not signed" in hub.ask(command="new-key", node="hub", said=said, signature=signature)["error"]
    other = hub.ask(command="drop-old-keys", node="b", said=said, signature=signature)
    assert "does not say" in other["error"]  # one word is not taken for the other


async def test_questions_over_the_bus_are_answered_and_the_table_follows(hub, machine):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.desk.run)
        question = encode_request(JoinRequest(machine, hub.now), hub.seed)
        answer = decode_answer(await hub.bus.ask("join", question, 5))
        assert answer.node == "b"
        with trio.fail_after(5):
            while "b" not in hub.bus.tables.get("nodes", {}):
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert msgspec.json.decode(hub.bus.tables["nodes"]["b"])["role"] == "broadcaster"


async def test_a_retired_node_stays_in_the_table_as_retired(hub, machine):
    hub.join(machine)
    registry = changing(hub.data, lambda before: retired(before, "b", NOW + 9))
    await mirror(hub.bus, registry)
    assert msgspec.json.decode(hub.bus.tables["nodes"]["b"])["retired_at"] == NOW + 9


DEEP = b'{"command":' + b"[" * 100_000


@pytest.mark.parametrize(
    "payload",
    [
        DEEP,
        b'{"x":' * 100_000,
        b'{"command":[1]}',
        b'{"command":"new-key","node":5}',
        b"[]",
        b"\xff",
        b'"\xff"',
    ],
)
def test_a_strange_question_is_answered_with_what_is_wrong(hub, payload):
    assert msgspec.json.decode(hub.desk.answer_node(payload))["error"]
    assert decode_answer(hub.desk.answer_join(payload)).error


def test_a_strange_request_within_a_signed_question_is_answered_too(hub):
    for request in (DEEP[:10_000], b"\xff"):
        question = {"code": public_of(hub.seed), "request": request, "signature": sign(hub.seed, request)}
        assert "does not decode" in decode_answer(hub.desk.answer_join(msgspec.json.encode(question))).error


@contextmanager
def running_server(hub, monkeypatch):
    """What a server was told to read, each time that it was told."""
    told = []

    def reload(data):
        told.append((data / "nats" / "nats.conf").read_text())
        return True

    monkeypatch.setattr("control.cluster.join_desk.reload_nats", reload)
    yield told


async def test_who_was_shut_out_stays_out_although_the_command_that_did_it_was_killed(
    hub, machine, monkeypatch, autojump_clock
):
    hub.join(machine)
    file = hub.data / "nats" / "nats.conf"
    before = file.read_text()
    with running_server(hub, monkeypatch) as told:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.desk.run)
            await trio.sleep(1)
            assert told == [before]
            # Killed before the file was written:
            changing(hub.data, lambda registry: retired(registry, "b", NOW + 9))
            await trio.sleep(MIRROR_SECONDS + 1)
            assert machine.keys["engine"] not in file.read_text()
            assert told == [before, file.read_text()]

            # Killed before the server was told, which is not seen in the file:
            def add(registry):
                return with_code(registry, "c", NodeRole.BROADCASTER, public_of(new_seed()), NOW, 3_600)

            changing(hub.data, add, then=lambda after: write_nats_config(hub.config, after, hub.now))
            await trio.sleep(MIRROR_SECONDS + 1)
            assert told[2:] == [file.read_text()]
            await trio.sleep(5 * MIRROR_SECONDS)
            assert len(told) == 3, "a server that knows all is left alone"
            nursery.cancel_scope.cancel()


async def test_a_full_bus_and_a_full_disk_are_lines_in_the_log_and_the_desk_goes_on(
    hub, machine, monkeypatch, autojump_clock
):
    def full(*_):
        raise OSError(28, "No space left on device")

    async def put(*_):
        await trio.lowlevel.checkpoint()
        raise BusFull("table nodes: no room")

    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            with monkeypatch.context() as patch:
                patch.setattr(hub.bus, "put", put)
                nursery.start_soon(hub.desk.run)
                await trio.sleep(1)
            assert "hub" not in hub.bus.tables.get("nodes", {})
            with monkeypatch.context() as patch:
                patch.setattr("control.cluster.join_desk.write_nats_config", full)
                await trio.sleep(MIRROR_SECONDS)
            await trio.sleep(MIRROR_SECONDS)
            assert "hub" in hub.bus.tables["nodes"]
            assert hub.ask(command="time") == {"at": hub.now}
            nursery.cancel_scope.cancel()
    assert [entry["event"] for entry in logs] == [
        "the bus could not be told who belongs to the cluster",
        "the nats-server's configuration cannot be written",
    ]


async def test_a_command_that_was_stopped_in_the_middle_holds_up_nobody(hub, autojump_clock):
    lock = os.open(hub.data / "cluster" / "registry.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.desk.run)
            await trio.sleep(1)
            assert "hub" not in hub.bus.tables.get("nodes", {})
            os.close(lock)
            await trio.sleep(MIRROR_SECONDS)
            assert "hub" in hub.bus.tables["nodes"]
            nursery.cancel_scope.cancel()
    assert [entry["log_level"] for entry in logs] == ["warning"]
