"""The few requests to JetStream that the bus makes, each repeated until it is answered.

JSON over NATS, as JetStream's reference has it (`$JS.API.*`), because nats-py's own layer hides the answers
that matter here: why something was refused, and which sequence a subject stands at. A request that got no
answer is made again for as long as the caller waits; every one of them may happen twice without harm, or
says so. Reads go to the stream's leader, never to a replica that lags behind.

On trouble: `Refused` with JetStream's own number for what it will not do; what passes by itself (no leader,
no answer, a cluster that is too small just now) is waited for. A stream that is not there and that this
member may not make is waited for as well.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import structlog
import trio
from msgspec import Struct

from engine.bus.nats_link import REQUEST_SECONDS, Away, Link
from engine.model.decoding import UNDECODABLE

RETRY_SECONDS_MIN = 0.02
RETRY_SECONDS_MAX = 1.0
ANSWER_SECONDS_MIN = 1.0  # the first time; a request that a dying leader took is soon made again

STREAM_NOT_FOUND = 10059
NO_MESSAGE = 10037
WRONG_LAST_SEQUENCE = 10071
STORE_FAILED = 10077  # with why: "maximum bytes exceeded", or the disk
STREAM_EXISTS = 10058
RESOURCES_EXCEEDED = (10023, 10047, 10028)  # the server's, of storage, of the account
# Unavailable, no leader, too few servers just now, JetStream still starting (10039, 10076).
PASSES = frozenset({10008, 10009, 10004, 10005, 10074, 10039, 10076})

EXPECTED_LAST = "Nats-Expected-Last-Subject-Sequence"
MESSAGE_ID = "Nats-Msg-Id"

log = structlog.get_logger("bus")

T = TypeVar("T")


class Refused(Exception):
    """JetStream will not. `number` is its own."""

    def __init__(self, number: int, code: int, why: str) -> None:
        super().__init__(why)
        self.number = number
        self.code = code

    @property
    def full(self) -> bool:
        """Whether there is no room: the stream's cap, the server's store, or the disk."""
        return self.number in (STORE_FAILED, *RESOURCES_EXCEEDED)


class _Error(Struct, frozen=True):
    code: int = 0
    err_code: int = 0
    description: str = ""


class State(Struct, frozen=True):
    """What a stream holds."""

    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0


class _Config(Struct, frozen=True):
    max_bytes: int = -1


class StreamInfo(Struct, frozen=True):
    """A stream as it stands.

    When it was made is not looked at: servers of a cluster differ in it once two members made it at a time.
    """

    config: _Config = _Config()
    state: State = State()
    error: _Error | None = None


class Message(Struct, frozen=True):
    """One message that a stream keeps."""

    subject: str
    seq: int
    data: bytes = b""


class _MessageReply(Struct, frozen=True):
    message: Message | None = None
    error: _Error | None = None


class _Ack(Struct, frozen=True):
    seq: int = 0
    error: _Error | None = None


class ConsumerInfo(Struct, frozen=True):
    """A consumer, just made."""

    name: str = ""
    num_pending: int = 0
    error: _Error | None = None


class _Done(Struct, frozen=True):
    error: _Error | None = None


class StreamSpec(Struct, frozen=True):
    """A stream as it is to be made; one that is there is used as it is."""

    name: str
    subjects: str
    max_bytes: int = -1
    max_age_seconds: float = 0.0
    one_per_subject: bool = False

    def config(self, replicas: int) -> dict[str, Any]:
        return {
            "name": self.name,
            "subjects": [self.subjects],
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "max_bytes": self.max_bytes,
            "max_age": int(self.max_age_seconds * 1e9),
            "max_msgs_per_subject": 1 if self.one_per_subject else -1,
            "num_replicas": replicas,
            "duplicate_window": int(min(30.0, self.max_age_seconds or 30.0) * 1e9),
            "allow_direct": True,
        }


class JetStream:
    """JetStream through one link."""

    def __init__(self, link: Link, *, replicas: int = 1) -> None:
        self.link = link
        self._replicas = replicas
        self._made: dict[str, int] = {}  # stream -> generation of the link in which it was seen
        self._solid: dict[str, int] = {}  # likewise, in which it was seen to hold something

    def __repr__(self) -> str:
        return f"<JetStream over {self.link!r}>"

    # --- streams -----------------------------------------------------------------------------------------

    async def ensure(self, spec: StreamSpec) -> None:
        """Make the stream, or see that it is there; waits for as long as it takes."""
        if self._made.get(spec.name) != self.link.generation:
            await self.info(spec)

    def forget(self, spec: StreamSpec) -> None:
        """It may be gone: look again before the next use."""
        self._made.pop(spec.name, None)

    async def info(self, spec: StreamSpec) -> StreamInfo:
        """The stream as it stands; made if it is not there."""
        while True:
            there = await self.look(spec)
            if there is not None:
                self._made[spec.name] = self.link.generation
                return there
            await self._make(spec)

    async def look(self, spec: StreamSpec) -> StreamInfo | None:
        """The stream as it stands; None when it is not there."""
        try:
            return await self._call(f"STREAM.INFO.{spec.name}", None, StreamInfo)
        except Refused as refused:
            if refused.number != STREAM_NOT_FOUND:
                raise
            return None

    async def _make(self, spec: StreamSpec) -> None:
        config = spec.config(self._replicas)
        try:
            await self._call(f"STREAM.CREATE.{spec.name}", config, StreamInfo, attempts=1)
            log.info("a stream was made", stream=spec.name, replicas=self._replicas)
        except Away:  # another makes it just now, or we may not: look again
            log.info("a stream is waited for", stream=spec.name)
            await trio.sleep(RETRY_SECONDS_MAX)
        except Refused as refused:
            if refused.number != STREAM_EXISTS:
                log.warning("a stream cannot be made yet", stream=spec.name, why=str(refused))
                await trio.sleep(RETRY_SECONDS_MAX)

    async def purge(self, spec: StreamSpec, before: int, subjects: str = "") -> bool:
        """Drop messages with a sequence below `before` (0 = all), of those subjects if any are named.

        Asked once; whether it was done. Who may not do it, or has no connection, leaves it.
        """
        request: dict[str, Any] = {}
        if before:
            request["seq"] = before
        if subjects:
            request["filter"] = subjects
        try:
            await self._call(f"STREAM.PURGE.{spec.name}", request, _Done, attempts=1)
        except (Away, Refused):
            return False
        return True

    # --- messages ----------------------------------------------------------------------------------------

    async def publish(
        self, spec: StreamSpec, subject: str, data: bytes, headers: Mapping[str, str] | None = None
    ) -> int:
        """Keep a message; returns its sequence. Raises Refused. May be kept twice if headers allow it."""
        pause_seconds, answer_seconds = RETRY_SECONDS_MIN, ANSWER_SECONDS_MIN
        while True:
            await self.ensure(spec)
            try:
                answer = await self.link.request(subject, data, headers, answer_seconds)
                ack = msgspec.json.decode(answer.data, type=_Ack)
                _raise(ack.error)
                self._solid[spec.name] = self.link.generation
                return ack.seq
            except (Away, *UNDECODABLE):
                self.forget(spec)
                answer_seconds = min(2 * answer_seconds, REQUEST_SECONDS)
            except Refused as refused:
                if refused.number not in PASSES:
                    raise
            pause_seconds = await self._pause(pause_seconds)

    async def last(self, spec: StreamSpec, subject: str) -> Message | None:
        """The last message of a subject (or of subjects); None when there is none, or no stream."""
        return await self._get(spec, {"last_by_subj": subject})

    async def following(self, spec: StreamSpec, subject: str, seq: int) -> Message | None:
        """The first message of a subject, or of subjects, with at least that sequence."""
        return await self._get(spec, {"seq": seq, "next_by_subj": subject})

    async def preceding(self, spec: StreamSpec, subject: str, seq: int) -> Message | None:
        """The last message of a subject with a lower sequence; None when there is none.

        JetStream only looks ahead, so this halves its way there.
        """
        found = None
        step, low = 1, seq
        while found is None and low > 1:
            low = max(1, low - step)
            step *= 2
            there = await self.following(spec, subject, low)
            if there is not None and there.seq < seq:
                found = there
        high = seq
        while found is not None and found.seq + 1 < high:
            middle = (found.seq + 1 + high) // 2
            there = await self.following(spec, subject, middle)
            if there is not None and there.seq < high:
                found = there
            else:
                high = middle
        return found

    async def at(self, spec: StreamSpec, seq: int) -> Message | None:
        """The message with that sequence; None when it was dropped, or never was."""
        return await self._get(spec, {"seq": seq})

    async def _get(self, spec: StreamSpec, request: dict[str, Any]) -> Message | None:
        if self._solid.get(spec.name) != self.link.generation:
            # nats-server 2.9 dies of this request for a stream that is being made: it has no store yet, and
            # says that it is empty. So it is asked only for one that holds something.
            there = await self.look(spec)
            if there is None or not there.state.messages:
                return None
            self._solid[spec.name] = self.link.generation
        try:
            reply = await self._call(f"STREAM.MSG.GET.{spec.name}", request, _MessageReply)
        except Refused as refused:
            if refused.number in (NO_MESSAGE, STREAM_NOT_FOUND):
                return None
            raise
        return reply.message

    # --- consumers ---------------------------------------------------------------------------------------

    async def make_consumer(self, spec: StreamSpec, config: dict[str, Any]) -> ConsumerInfo:
        """Raises Refused when the stream is not there, Away when nobody answers."""
        request = {"stream_name": spec.name, "config": config}
        return await self._call(f"CONSUMER.CREATE.{spec.name}", request, ConsumerInfo, attempts=1)

    def drop_consumer(self, spec: StreamSpec, name: str) -> None:
        """Not waited for: a consumer that nobody asks goes by itself."""
        self.link.send(f"$JS.API.CONSUMER.DELETE.{spec.name}.{name}", b"", self.link.new_inbox())

    def pull(self, spec: StreamSpec, consumer: str, reply: str, request: dict[str, Any]) -> None:
        """Let the consumer send its next messages to `reply`."""
        payload = msgspec.json.encode(request)
        self.link.send(f"$JS.API.CONSUMER.MSG.NEXT.{spec.name}.{consumer}", payload, reply)

    # --- how ---------------------------------------------------------------------------------------------

    async def _call(self, what: str, request: dict[str, Any] | None, reply: type[T], attempts: int = 0) -> T:
        """One request and its answer. Raises Refused; Away after `attempts`, 0 = never."""
        payload = b"" if request is None else msgspec.json.encode(request)
        pause_seconds, answer_seconds = RETRY_SECONDS_MIN, ANSWER_SECONDS_MIN
        attempt = 0
        while True:
            await self.link.wait_online()
            attempt += 1
            try:
                answer = await self.link.request(f"$JS.API.{what}", payload, None, answer_seconds)
                found = msgspec.json.decode(answer.data, type=reply)
                _raise(getattr(found, "error", None))
                return found
            except Away:
                if attempt == attempts:
                    raise
                answer_seconds = min(2 * answer_seconds, REQUEST_SECONDS)
            except Refused as refused:
                if refused.number not in PASSES or attempt == attempts:
                    raise
            pause_seconds = await self._pause(pause_seconds)

    async def _pause(self, seconds: float) -> float:
        """Wait before another attempt; returns how long to wait the next time."""
        self.link.check_open()
        with trio.move_on_after(seconds):
            await self.link.changed.wait()
        return min(2 * seconds, RETRY_SECONDS_MAX)


def _raise(error: _Error | None) -> None:
    if error is not None:
        raise Refused(error.err_code, error.code, error.description)
