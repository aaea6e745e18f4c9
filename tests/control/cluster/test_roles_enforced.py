"""Roles against a real nats-server: each does its work, and the server refuses what is not its own."""

import base64
import json
import socket
from collections.abc import Iterator

import pytest
import trio

from bench.peers.nats import NatsServer
from bench.peers.place import missing
from control.cluster.nats_server import render_users, user_line
from control.cluster.registry import User
from control.cluster.roles import Grant, Role, streams_of, subjects_of, tables_of
from engine.bus.nats import NatsBus
from engine.bus.nats_frames import Frame, Row, new_id, pack_frame, pack_row
from engine.bus.nats_names import enc, stream_subject
from engine.bus.nkeys import new_seed, public_of, sign

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing("nats") is not None, reason=missing("nats") or ""),
]

SEEDS = {
    name: new_seed()
    for name in (
        "operator",
        "a",
        "a.agent",
        "a.submission-1",
        "b",
        "b.submission-1",
        "c.joiner",
        "landing-1",
        "stranger",
    )
}
USERS = [
    User(public_of(SEEDS["operator"]), "hub", "operator", Role.OPERATOR),
    User(public_of(SEEDS["a"]), "a", "engine", Role.BROADCASTER),
    User(public_of(SEEDS["a.agent"]), "a", "agent", Role.AGENT),
    User(public_of(SEEDS["a.submission-1"]), "a", "submission", Role.SUBMISSION),
    User(public_of(SEEDS["b"]), "b", "engine", Role.BROADCASTER),
    User(public_of(SEEDS["b.submission-1"]), "b", "submission", Role.SUBMISSION),
    User(public_of(SEEDS["c.joiner"]), "c", "joiner", Role.JOINER),
]
# What a web server will be: it writes its own events and suppressions, and asks.
LANDING = Grant(members=("landing-1",), writes=("events.landing-1", "suppressions"), asks=("control",))


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[NatsServer]:
    landing = user_line("landing-1", public_of(SEEDS["landing-1"]), "landing", subjects_of(LANDING))
    users = render_users(USERS).replace("  users = [\n", f"  users = [\n{landing}\n")
    with NatsServer(tmp_path_factory.mktemp("roles"), more=users) as running:
        trio.run(prepare, running)
        yield running


async def prepare(running: NatsServer) -> None:
    async with member(running, "operator") as bus:
        for node in ("a", "b"):
            await bus.prepare(streams_of(node), tables_of(node))
        await bus.prepare(["events.landing-1"], [])


class member:
    """A member of the bus, for the length of a block; fails when it takes too long."""

    def __init__(self, running: NatsServer, name: str) -> None:
        self.bus = NatsBus(
            [running.address], name, seed=SEEDS[name], housekeeping_seconds=0.05, trim_seconds=0.1
        )
        self.nursery = trio.open_nursery()

    async def __aenter__(self) -> NatsBus:
        nursery = await self.nursery.__aenter__()
        self.scope = nursery.cancel_scope
        self.scope.deadline = trio.current_time() + 20
        await nursery.start(self.bus.run)
        return self.bus

    async def __aexit__(self, *error) -> None:
        self.bus.close()
        await self.nursery.__aexit__(*error)
        assert not self.scope.cancelled_caught, "took too long: is something not allowed that should be?"


async def test_a_broadcaster_does_its_work(server):
    async with member(server, "operator") as operator, member(server, "a") as engine:
        await operator.publish("chunks.a", [b"chunk"])
        await operator.publish("chunks.a.single", [b"single"])
        await operator.publish("suppressions", [b"order"])
        await operator.put("campaigns", "7", b"run")
        await operator.put("retired", "z", b"epoch")
        await operator.put("dkim.a", "default", b"sealed")
        await operator.put("tokens.a", "ring", b"sealed ring")
        blob = await operator.put_blob(bytes(700_000))
        for stream, consumer in (
            ("chunks.a", "intake"),
            ("chunks.a.single", "intake"),
            ("suppressions", "suppressor.a"),
        ):
            subscription = engine.subscribe(stream, consumer)
            (entry,) = await subscription.receive(1)
            await subscription.acknowledge(entry)
        assert await engine.create("claims", "chunk-1", b"a epoch") is None
        assert await engine.create("claims", "chunk-1", b"a other") == b"a epoch"
        await engine.put("status", "a/engine", b"{}")
        await engine.put("status", "a/keys", b"{}")
        assert await engine.read("status", "a/engine") == b"{}"
        assert await engine.publish("events.a", [b"event"]) == 1
        assert await engine.pending("events.a", "report-1") == 1
        assert await engine.read_all("dkim.a") == {"default": b"sealed"}
        for table in ("campaigns", "retired", "dkim.a", "tokens.a"):
            async for _, value in engine.watch(table):
                assert value
                break
        assert await engine.read_blob(blob) == bytes(700_000)
        await engine.drop_blob(blob)
        assert await engine.read_blob(blob) is None
        report = operator.subscribe("events.a", "report-1")
        (event,) = await report.receive(1)
        await report.acknowledge(event)
        await answered(engine, operator, "engine.a")
        while await operator.pending("chunks.a", "intake"):
            await trio.sleep(0.02)


async def test_an_agent_does_its_work(server):
    async with member(server, "operator") as operator, member(server, "a.agent") as agent:
        await agent.put("status", "a/agent", b"{}")
        assert await agent.read("status", "a/agent") == b"{}"
        await answered(agent, operator, "node.a")
        await answered(operator, agent, "desk")


async def test_a_submission_worker_does_its_work(server):
    async with member(server, "a.submission-1") as worker:
        assert await worker.publish("chunks.a.single", [b"message"]) == 1
        assert await worker.pending("chunks.a.single", "intake") == 1
        blob = await worker.put_blob(b"a large one")
        assert await worker.read_blob(blob) == b"a large one"


async def test_who_holds_a_code_may_ask_to_join(server):
    async with member(server, "operator") as operator, member(server, "c.joiner") as joiner:
        await answered(operator, joiner, "join")


async def answered(server_bus: NatsBus, asker: NatsBus, subject: str) -> None:
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            for question in await server_bus.serve(subject).receive(1):
                await question.answer(b"to " + question.payload)

        nursery.start_soon(serve)
        assert await asker.ask(subject, b"you", 10) == b"to you"


FORBIDDEN = [
    ("a", "PUB", f"emass.s.{enc('events.b')}.a", "events of another"),
    ("a", "PUB", f"emass.s.{enc('events.b')}.b", "events of another in its name"),
    ("a", "PUB", f"emass.s.{enc('events.a')}.b", "its own events in another's name"),
    ("a", "PUB", f"emass.s.{enc('chunks.b')}.a", "chunks"),
    ("a", "PUB", f"emass.s.{enc('chunks.a')}.operator", "chunks to itself as an operator"),
    ("a", "PUB", "emass.s.suppressions.a", "suppressions"),
    ("a", "PUB", "emass.t.campaigns.7", "a campaign's state"),
    ("a", "PUB", "emass.t.retired.b", "the retirement of another"),
    ("a", "PUB", "emass.t.nodes.a", "who belongs to the cluster"),
    ("a", "PUB", "emass.t.status.b.engine", "the state of another"),
    ("a", "PUB", f"emass.t.{enc('dkim.a')}.default", "its own keys"),
    ("a", "PUB", "emass.t.config.bus", "the bus's name"),
    ("a", "PUB", f"emass.t.cursors.intake.{enc('chunks.b')}.=", "how far another has come"),
    ("a", "PUB", f"$JS.API.STREAM.MSG.GET.t-{enc('dkim.b')}", "reading another's keys"),
    ("a", "PUB", f"$JS.API.DIRECT.GET.t-{enc('dkim.b')}", "reading another's keys, directly"),
    (
        "a",
        "PUB",
        f"$JS.API.DIRECT.GET.t-{enc('dkim.b')}.emass.t.{enc('dkim.b')}.default",
        "the same, by subject",
    ),
    ("a", "PUB", f"$JS.API.CONSUMER.CREATE.t-{enc('dkim.b')}", "following another's keys"),
    (
        "a",
        "PUB",
        f"$JS.API.CONSUMER.CREATE.t-{enc('dkim.b')}.x.emass.t.{enc('dkim.b')}.default",
        "the same, by name",
    ),
    ("a", "PUB", f"$JS.API.CONSUMER.DURABLE.CREATE.t-{enc('dkim.b')}.x", "the same, durably"),
    ("a", "PUB", "$JS.API.STREAM.MSG.GET.t-dkim", "reading the office's copies of keys"),
    ("a", "PUB", f"$JS.API.CONSUMER.CREATE.t-{enc('tokens.b')}", "following another's token keys"),
    ("a", "PUB", f"$JS.API.CONSUMER.CREATE.s-{enc('chunks.b')}", "reading another's chunks"),
    ("a", "PUB", f"$JS.API.STREAM.PURGE.s-{enc('chunks.b')}", "dropping another's chunks"),
    ("a", "PUB", f"$JS.API.CONSUMER.CREATE.s-{enc('events.a')}", "following what it writes"),
    ("a", "PUB", "$JS.API.CONSUMER.CREATE.t-claims", "following what it writes"),
    ("a", "PUB", "$JS.API.STREAM.CREATE.s-mine", "making a stream"),
    ("a", "PUB", f"$JS.API.STREAM.UPDATE.s-{enc('events.a')}", "changing a stream"),
    ("a", "PUB", f"$JS.API.STREAM.DELETE.s-{enc('events.a')}", "removing a stream"),
    ("a", "PUB", "emass.q.join", "asking to join"),
    ("a", "PUB", f"emass.q.{enc('node.b')}", "giving orders to a node"),
    ("a", "SUB", "emass.i.b.>", "hearing another's answers"),
    ("a", "SUB", "emass.s.>", "hearing what others publish"),
    ("a", "SUB", f"emass.q.{enc('node.a')}", "answering for its agent"),
    ("a", "SUB", "emass.q.join", "answering for the desk"),
    ("a.agent", "PUB", f"emass.s.{enc('events.a')}.a", "events"),
    ("a.agent", "PUB", "emass.t.status.a.engine", "the state of its engine"),
    ("a.agent", "PUB", "emass.t.claims.x", "claims"),
    ("a.agent", "PUB", f"emass.q.{enc('node.b')}", "giving orders to another node"),
    ("a.agent", "SUB", "emass.q.desk", "answering for the desk"),
    ("a.submission-1", "PUB", f"emass.s.{enc('chunks.a')}.a=2Esubmission-1", "bulk chunks"),
    ("a.submission-1", "PUB", f"emass.s.{enc('chunks.b.single')}.a=2Esubmission-1", "mail through another"),
    (
        "a.submission-1",
        "PUB",
        f"$JS.API.CONSUMER.CREATE.s-{enc('chunks.a.single')}",
        "reading others' messages",
    ),
    ("landing-1", "PUB", f"emass.s.{enc('chunks.a')}.landing-1", "chunks"),
    ("landing-1", "PUB", f"emass.s.{enc('events.a')}.landing-1", "events of a broadcaster"),
    ("landing-1", "PUB", "emass.s.suppressions.operator", "suppressions in another's name"),
    ("landing-1", "PUB", "emass.t.campaigns.7", "a campaign's state"),
    ("c.joiner", "PUB", "emass.q.desk", "asking as a node"),
    ("c.joiner", "PUB", "$JS.API.INFO", "anything of JetStream"),
    ("c.joiner", "PUB", f"emass.s.{enc('events.c')}.c", "events"),
    ("c.joiner", "SUB", "emass.i.>", "hearing others' answers"),
]


@pytest.mark.parametrize(("who", "verb", "subject", "what"), FORBIDDEN)
def test_what_is_not_its_own_is_refused_by_the_server(server, who, verb, subject, what):
    with Raw(server, SEEDS[who]) as raw:
        told = raw.tries(verb, subject)
    assert told.startswith(b"-ERR 'Permissions Violation"), f"{who} was allowed {what}"


def test_a_stranger_is_not_let_in(server):
    with Raw(server, SEEDS["stranger"]) as raw:
        assert raw.hello.startswith(b"-ERR 'Authorization Violation'")


def test_the_probe_sees_what_is_allowed(server):
    """Else the refusals above would prove nothing."""
    with Raw(server, SEEDS["a"]) as raw:
        assert raw.hello == b"PONG"
        assert raw.tries("PUB", f"emass.s.{enc('events.a')}.a") == b"PONG"
        assert raw.tries("SUB", "emass.i.a.>") == b"PONG"


class Raw:
    """The protocol by hand: what a program would send that does not keep to our bus."""

    def __init__(self, running: NatsServer, seed: str) -> None:
        self.socket = socket.create_connection(running.address, timeout=10)
        self.lines = self.socket.makefile("rb")
        nonce = json.loads(self.lines.readline().partition(b" ")[2])["nonce"].encode()
        signature = base64.urlsafe_b64encode(sign(seed, nonce)).rstrip(b"=").decode()
        hello = {"nkey": public_of(seed), "sig": signature, "verbose": False, "protocol": 1, "headers": True}
        self.hello = self._say(b"CONNECT " + json.dumps(hello).encode())

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_) -> None:
        self.lines.close()
        self.socket.close()

    def tries(self, verb: str, subject: str) -> bytes:
        """What the server says to it: PONG when nothing."""
        line = f"PUB {subject} 2\r\n{{}}" if verb == "PUB" else f"SUB {subject} 1"
        return self._say(line.encode())

    def _say(self, line: bytes) -> bytes:
        self.socket.sendall(line + b"\r\nPING\r\n")
        while (told := self.lines.readline().strip()) and not told.startswith((b"-ERR", b"PONG")):
            pass
        return told


async def test_an_answer_that_was_sent_into_a_table_counts_as_no_row(server):
    """A server sends its answers wherever a request says: the one thing that permissions do not prevent."""
    async with member(server, "operator") as operator, member(server, "a") as engine:
        watch = operator.watch("campaigns")
        await operator.put("campaigns", "77", b"pause")
        engine.link.send("$JS.API.STREAM.INFO.t-campaigns", b"", "emass.t.campaigns.78")
        while (await operator._jetstream.look(operator._tables.spec("campaigns"))).state.last_seq < 2:
            await trio.sleep(0.01)
        await trio.sleep(0.2)
        await operator.put("campaigns", "79", b"run")
        seen = {}
        async for key, value in watch:
            seen[key] = value
            if key == "79":
                break
        assert (seen["77"], seen["79"], "78" in seen) == (b"pause", b"run", False)
        assert await operator.read("campaigns", "78") is None
        assert "78" not in await operator.read_all("campaigns")
        assert await operator.create("campaigns", "78", b"run") is None


@pytest.mark.parametrize("way", ["push", "pull"])
async def test_who_has_all_keys_of_a_node_forges_no_row_and_no_entry(server, way):
    """One of its processes writes octets of its choosing, the other has them sent where it may not write."""
    stream = streams_of("b")[1]
    async with (
        member(server, "operator") as operator,
        member(server, "b") as engine,
        member(server, "b.submission-1") as worker,
    ):
        spec = worker._streams.spec(stream)
        events = operator.subscribe("events.a", f"report-{way}")
        targets = {
            f"emass.t.retired.{way}": pack_row(Row(new_id(), "operator", b"epoch")),
            f"emass.s.{enc('events.a')}.a": pack_frame(Frame(new_id(), 1 << 40, (b"forged",))),
        }
        for target, octets in targets.items():
            await worker._jetstream.publish(spec, stream_subject(stream, "b.submission-1"), octets)
            config = {"deliver_policy": "last", "ack_policy": "none"}
            if way == "push":
                config["deliver_subject"] = target
            made = await engine._jetstream.make_consumer(spec, config)
            if way == "pull":
                engine._jetstream.pull(spec, made.name, target, {"batch": 1})
        await trio.sleep(0.3)
        await operator.put("retired", "z", b"epoch")
        assert await operator.read("retired", way) is None
        assert set(await operator.read_all("retired")) == {"z"}
        async for key, _ in operator.watch("retired"):
            assert key == "z"
            break
        await operator.publish("events.a", [b"true"])
        seen = []
        while b"true" not in seen:
            seen += [entry.payload for entry in await events.receive(10)]
        assert b"forged" not in seen
