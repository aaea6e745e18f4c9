"""The agent: a node's root process on the cluster's bus, which says how it is and does what it is asked.

Every other second the row `<node>/agent` of table `status` is written anew, with a count (*beat*); the
question `node.<name>` is answered: list, start, stop, restart, drain, logs. On the hub it is the desk as
well, and does the rounds of the key office. While the bus is away nothing is told and nothing asked; the log
says why, as far as a knock at the server's door can tell (a key that it does not know, another certificate),
and mail goes on.

Two nodes of one name are found out by the row: another life's, from another place, that goes on counting. The
one that started later refuses, and its node stops, naming both. Remote clocks decide nothing here but who of
two was earlier, on which both agree, since both compare the same two rows.

Touches: the house's processes, the bus. On crash: the row grows old, and it starts again.
"""

import os
import socket
from pathlib import Path
from typing import Any

import msgspec
import structlog
import trio
from msgspec import Struct

from control.cluster.authority import fingerprint
from control.cluster.connecting import ConnectError, open_bus, read_seed
from control.cluster.join_desk import Desk
from control.cluster.join_words import SKEW_WARN_SECONDS, skew_words
from control.cluster.key_rounds import key_rounds
from control.cluster.knock import Answer, Knock, knock
from control.cluster.registry_file import is_hub
from control.cluster.roles import DESK_SUBJECT
from control.node.house import DRAIN_SECONDS, HouseError, NodeHouse
from engine.bus.api import Bus, BusFull, NoAnswer, Question
from engine.config import Config, Runs
from engine.model.decoding import UNDECODABLE, decoded
from engine.observe.version import own_version
from engine.runtime.spec import Context, Start

STATUS_TABLE = "status"
FIRST_SECONDS = 3.0  # for a look whether another node has this name, before this one starts to say it has
WHO_SECONDS = 2.0
SKEW_EVERY_SECONDS = 60.0
SKEW_ASK_SECONDS = 1.0  # an answer that took longer says too little of the other clock
AWAY_SECONDS = 6.0  # away for longer: see why
QUESTIONS_MAX = 16
LOG_LINES_MAX = 1_000
ANSWER_OCTETS_MAX = 512 * 1024  # of log lines: an answer is one message of the bus
FAREWELL_SECONDS = 2.0

log = structlog.get_logger("agent")


class NodeRefused(Exception):
    """This node must not run; the message says why and what would help."""


class AgentStatus(Struct, frozen=True, kw_only=True):
    """The row, as JSON. Times are this node's wall seconds; `skew_seconds`: how far from the hub's."""

    node: str
    process: str = "agent"
    incarnation: str
    beat: int
    interval: float
    at: float
    started_at: float
    place: str
    pid: int
    version: str
    skew_seconds: float | None = None  # positive: ahead of the hub's
    stopped: bool = False
    processes: list[dict[str, Any]] = []


class Asked(Struct, frozen=True):
    """What somebody asks of a node. `seconds`: of a drain; `count`: lines of a log."""

    command: str = ""
    process: str = ""
    author: str = ""
    reason: str = ""
    seconds: float = DRAIN_SECONDS
    count: int = 100


class Told(Struct, frozen=True):
    """What of others' answers is looked at: who it is, and the hub's clock."""

    incarnation: str = ""
    place: str = ""
    at: float | None = None


_encode = msgspec.json.Encoder().encode


def agent(house: NodeHouse) -> Start:
    """The agent of a node whose bus is NATS."""

    async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        try:
            bus = open_bus(house.config, "agent")
        except ConnectError as error:
            raise NodeRefused(str(error)) from None
        async with trio.open_nursery() as nursery:
            await nursery.start(bus.run)
            keeper = Agent(house, bus)
            try:
                with trio.move_on_after(FIRST_SECONDS):
                    await keeper.look_for_another()
                task_status.started()
                await keeper.run(context.stop)
            finally:
                bus.close()

    return start


class Agent:
    """One incarnation."""

    def __init__(self, house: NodeHouse, bus: Bus) -> None:
        self._house = house
        self._bus = bus
        self._key = f"{house.name}/agent"
        self._place = f"{socket.gethostname()}:{house.data}"
        self._interval = float(house.config.bus.status_every)
        self._beats = 0
        self._skew: float | None = None
        self._other: tuple[str, int] | None = None  # another life's row, as last seen

    def __repr__(self) -> str:
        return f"<Agent of {self._house.name}, beat {self._beats}>"

    async def run(self, stop: trio.Event) -> None:
        """Until the stop."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beat_for_life)
            nursery.start_soon(self._serve)
            nursery.start_soon(self._watch_the_door)
            if is_hub(self._house.data):
                nursery.start_soon(Desk(self._house.config, self._bus, self._house.wall).run)
                nursery.start_soon(key_rounds, self._house.config, self._bus)
                self._skew = 0.0
            else:
                nursery.start_soon(self._measure_skew)
            await stop.wait()
            nursery.cancel_scope.cancel()
        with trio.move_on_after(FAREWELL_SECONDS):
            try:
                await self._bus.put(STATUS_TABLE, self._key, _encode(self.status(stopped=True)))
            except BusFull as error:
                log.warning("that this node stops could not be told", why=str(error))

    def status(self, *, stopped: bool = False) -> AgentStatus:
        """How the node is just now."""
        house = self._house
        return AgentStatus(
            node=house.name,
            incarnation=house.incarnation,
            beat=self._beats,
            interval=self._interval,
            at=house.wall(),
            started_at=house.started_at,
            place=self._place,
            pid=os.getpid(),
            version=own_version(),
            skew_seconds=self._skew,
            stopped=stopped,
            processes=process_rows(house),
        )

    # --- the row -------------------------------------------------------------------------------------------

    async def _beat_for_life(self) -> None:
        while True:
            self._beats += 1
            await self._see_row()
            try:
                await self._bus.put(STATUS_TABLE, self._key, _encode(self.status()))
            except BusFull as error:
                log.warning("the status could not be written", why=str(error))
            await trio.sleep(self._interval)

    async def _see_row(self) -> None:
        """Raises NodeRefused when a node of this name that started earlier goes on counting."""
        row = await self._row()
        if row is None or row.incarnation == self._house.incarnation or row.stopped:
            return
        seen, self._other = self._other, (row.incarnation, row.beat)
        if seen is None or seen[0] != row.incarnation or seen[1] == row.beat:
            return
        mine = (self._house.started_at, self._house.incarnation)
        if mine > (row.started_at, row.incarnation):
            raise self._refusal(row.place, row.incarnation)
        log.error(
            "another node has this name; it started later and has to stop",
            node=row.node,
            here=self._place,
            there=row.place,
        )

    async def look_for_another(self) -> None:
        """Ask whoever has this name, if somebody has told so. Raises NodeRefused."""
        row = await self._row()
        if (
            row is None or row.stopped or row.place == self._place
        ):  # one place, one root: the folder is locked
            return
        question = msgspec.json.encode({"command": "who"})
        try:
            answer = await self._bus.ask(f"node.{self._house.name}", question, WHO_SECONDS)
            told = msgspec.json.decode(answer, type=Told)
        except (NoAnswer, *UNDECODABLE):
            return
        if told.incarnation != self._house.incarnation:
            raise self._refusal(told.place, told.incarnation)

    async def _row(self) -> AgentStatus | None:
        return decoded(await self._bus.read(STATUS_TABLE, self._key), AgentStatus)

    def _refusal(self, place: str, incarnation: str) -> NodeRefused:
        house = self._house
        return NodeRefused(
            f"a node called {house.name} runs already, at {place} (incarnation {incarnation}); this one is at"
            f" {self._place} (incarnation {house.incarnation}) and stops. If its folder was copied, join with"
            " a new name from an empty folder; if it was moved, stop the other one first"
        )

    # --- questions -----------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        questions = self._bus.serve(f"node.{self._house.name}")
        limit = trio.CapacityLimiter(QUESTIONS_MAX)
        async with trio.open_nursery() as nursery:
            while True:
                for question in await questions.receive(QUESTIONS_MAX):
                    nursery.start_soon(self._answer, question, limit)

    async def _answer(self, question: Question, limit: trio.CapacityLimiter) -> None:
        async with limit:
            try:
                told = await self.act(msgspec.json.decode(question.payload, type=Asked))
            except (HouseError, *UNDECODABLE) as error:
                told = {"error": str(error)}
            await question.answer(msgspec.json.encode({"node": self._house.name, **told}))

    async def act(self, asked: Asked) -> dict[str, Any]:
        """Do what is asked; the answer. Raises HouseError."""
        house = self._house
        command, process = asked.command, asked.process
        if command not in ("who", "list", "logs"):
            log.info("asked from the hub", command=command, process=process, by=asked.author)
        match command:
            case "who":
                return {"incarnation": house.incarnation, "place": self._place}
            case "list":
                return msgspec.to_builtins(self.status())  # type: ignore[no-any-return]
            case "logs":
                count = min(max(1, asked.count), LOG_LINES_MAX)
                return {"lines": last_lines(house.logs(process, count))}
            case "drain":
                return await house.drain(asked.reason or "no reason said", asked.author, asked.seconds)
            case "start" | "stop" | "restart":
                names = [process] if process else [each.name for each in house.processes()]
                return {"done": await self._move(command, names)}
            case _:
                raise HouseError("this node does not know that question: is it of an older version?")

    async def _move(self, command: str, names: list[str]) -> str:
        house = self._house
        bus = Runs.BUS.value
        if bus in names:
            if names == [bus]:
                raise HouseError("the bus carries this question: `emass stop` on the hub stops it")
            names = [name for name in names if name != bus]
        for name in names if command != "stop" else reversed(names):
            await {"start": house.start, "stop": house.stop, "restart": house.restart}[command](name)
        done = {"start": "started", "stop": "stopped", "restart": "restarted"}[command]
        return f"{', '.join(names) or 'nothing'} {done}"

    # --- the hub's clock, and the door --------------------------------------------------------------------

    async def _measure_skew(self) -> None:
        while True:
            try:
                begun = self._house.wall()
                answer = await self._bus.ask(DESK_SUBJECT, b'{"command":"time"}', SKEW_ASK_SECONDS)
                hub = msgspec.json.decode(answer, type=Told).at
            except (NoAnswer, *UNDECODABLE):
                hub = None
            if hub is None:
                await trio.sleep(self._interval)
                continue
            skew = (begun + self._house.wall()) / 2 - hub
            if abs(skew) > SKEW_WARN_SECONDS and abs(self._skew or 0.0) <= SKEW_WARN_SECONDS:
                log.warning(
                    "this machine's clock is wrong: set it (NTP)", clock=f"{skew_words(skew)} the hub's"
                )
            self._skew = skew
            await trio.sleep(SKEW_EVERY_SECONDS)

    async def _watch_the_door(self) -> None:
        """Say why the bus is away, once for each reason."""
        said = ""
        away_seconds = 0.0
        while True:
            await trio.sleep(self._interval)
            if self._bus.online:
                said, away_seconds = "", 0.0
                continue
            away_seconds += self._interval
            if away_seconds < AWAY_SECONDS:
                continue
            away_seconds = 0.0
            why = await trio.to_thread.run_sync(why_away, self._house.config, abandon_on_cancel=True)
            if why and why != said and not self._bus.online:
                said = why
                log.error("the bus cannot be used", why=why)


def why_away(config: Config) -> str:
    """What a knock at each server's door says; nothing when one lets us in. Blocks for seconds."""
    if not (config.bus.seeds and config.bus.ca_file):
        return ""
    try:
        seed = read_seed(config, "agent")
        digest = fingerprint(Path(config.keys.folder) / config.bus.ca_file)
    except Exception as error:  # whatever is wrong with the files, it is the answer
        return str(error)
    assert seed is not None
    reasons = []
    for server in config.bus.servers:
        came = knock(server.host, server.port, seed, digest)
        if came.answer is Answer.LET_IN:
            return ""
        reasons.append(f"{server}: {door_words(came)}")
    return "; ".join(reasons)


def door_words(came: Knock) -> str:
    """What an operator should know and do."""
    match came.answer:
        case Answer.REFUSED:
            return (
                "the server does not know this node's key: the node was retired, or these keys are of another"
                " cluster; `emass node list` on the hub shows who is in; to come in (again), make a code"
                " there with `emass node add` and join from an empty folder"
            )
        case Answer.OTHER_CERTIFICATE:
            return (
                "the server shows another certificate than this node was given when it joined: it is another"
                " hub, or got a new certificate, which then has to be copied here"
            )
        case Answer.NO_BUS:
            return f"{came.detail}: is [bus] servers right?"
        case _:
            return f"cannot be reached ({came.detail}); this node goes on sending what it has"


def process_rows(house: NodeHouse) -> list[dict[str, Any]]:
    """The processes as the row tells them."""
    return [
        {
            "name": each.name,
            "state": each.state.value,
            "pid": each.pid,
            "since": each.since,
            "restarts": each.restarts,
            "last_exit": each.last_exit,
            "last_error": each.last_error,
        }
        for each in house.processes()
    ]


def last_lines(lines: list[str]) -> list[str]:
    """As many of the last lines as one answer takes."""
    kept, octets = 0, 0
    for line in reversed(lines):
        octets += len(line.encode()) + 8
        if octets > ANSWER_OCTETS_MAX:
            break
        kept += 1
    return lines[len(lines) - kept :]
