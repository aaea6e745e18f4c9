"""Questions and answers over NATS: a message with an inbox, asked again until the deadline.

    question:  version, id (16), milliseconds left, payload      answer: the payload

Milliseconds left and not a time of day, since clocks of machines differ. A question is repeated with its
id, because who answers may start late or may have lost it; a member knows the ids it has heard, so its
server gets each once, and an answer that was given is given again. Of several members that serve one
subject, the server picks one for each message. An answer goes to an inbox of the bus and nowhere else: we may
write where who asks may not. Nothing is kept. On trouble: no answer.
"""

import secrets
import struct

import trio

from engine.bus.api import NoAnswer, Question
from engine.bus.nats_client import Received
from engine.bus.nats_link import Away, Bell, Inlet, Link
from engine.bus.nats_names import INBOXES, QUEUE_GROUP, ask_subject

ID_OCTETS = 16
REPEAT_SECONDS_MIN = 0.05  # nobody listens yet
REPEAT_SECONDS_MAX = 2.0
QUESTIONS_MAX = 10_000  # heard and not over their deadline; more are not heard
QUESTIONS_OCTETS_MAX = 64 * 1024**2  # of those that are not answered, together; likewise
DEADLINE_SECONDS_MAX = 300.0  # twice what the most patient of us gives; the head has room for 49 days

_HEAD = struct.Struct(">B16sI")
_VERSION = 1


class Heard:
    """One question that was heard, for as long as it may be asked again."""

    def __init__(self, link: Link, ask_id: bytes, deadline: float, payload: bytes, reply: str) -> None:
        self.payload = payload  # until it is answered
        self.deadline = deadline  # trio's time
        self.answered: bytes | None = None
        self.given: set[NatsQuestions] = set()
        self._link = link
        self._reply = reply

    def __repr__(self) -> str:
        return f"<Heard {len(self.payload)} octets, {self.deadline - trio.current_time():.1f} s left>"

    def answer(self, payload: bytes) -> None:
        if self.answered is None and trio.current_time() < self.deadline:
            self.answered = payload
            self.payload = b""  # from now on it is kept for its id
            self.send()

    def heard_again(self, reply: str) -> None:
        self._reply = reply
        if self.answered is not None:
            self.send()

    def send(self) -> None:
        assert self.answered is not None
        self._link.send(self._reply, self.answered)


class NatsQuestion:
    """One question, as its server sees it."""

    def __init__(self, heard: Heard) -> None:
        self.payload = heard.payload
        self._heard = heard

    def __repr__(self) -> str:
        return f"<NatsQuestion {self._heard!r}>"

    async def answer(self, payload: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self._heard.answer(payload)


class Subject:
    """The questions of one subject that this member heard, whoever of it serves them."""

    def __init__(self, link: Link, name: str) -> None:
        self.questions: dict[bytes, Heard] = {}
        self.news = Bell()
        self._link = link
        self._inlet: Inlet = link.open_inlet(ask_subject(name), self._hear, queue=QUEUE_GROUP)

    def forget_old(self) -> None:
        now = trio.current_time()
        for ask_id in [each for each, question in self.questions.items() if question.deadline <= now]:
            del self.questions[ask_id]

    def _hear(self, message: Received) -> None:
        if not message.status:
            self._take(message)
        self.news.ring()

    def _take(self, message: Received) -> None:
        if len(message.data) < _HEAD.size or not message.reply.startswith(INBOXES):
            return
        version, ask_id, left_ms = _HEAD.unpack_from(message.data)
        known = self.questions.get(ask_id)
        if known is not None:
            known.heard_again(message.reply)
        elif version == _VERSION:
            self.forget_old()
            payload = message.data[_HEAD.size :]
            octets = len(payload) + sum(len(question.payload) for question in self.questions.values())
            if len(self.questions) < QUESTIONS_MAX and octets <= QUESTIONS_OCTETS_MAX:
                deadline = trio.current_time() + min(left_ms / 1000, DEADLINE_SECONDS_MAX)
                self.questions[ask_id] = Heard(self._link, ask_id, deadline, payload, message.reply)


class NatsQuestions:
    """The questions of one subject, for one server of them."""

    def __init__(self, asks: "Asks", subject: str) -> None:
        self.subject = subject
        self._asks = asks

    def __repr__(self) -> str:
        return f"<NatsQuestions {self.subject}>"

    async def receive(self, limit: int) -> list[Question]:
        assert limit > 0
        await trio.lowlevel.checkpoint()
        heard = self._asks.subject(self.subject)
        while True:
            self._asks.link.check_open()
            heard.forget_old()
            found = [
                question
                for question in heard.questions.values()
                if question.answered is None and self not in question.given
            ][:limit]
            if found:
                for question in found:
                    question.given.add(self)
                return [NatsQuestion(question) for question in found]
            await heard.news.wait()


class Asks:
    """What one member asks and answers."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._subjects: dict[str, Subject] = {}

    def subject(self, name: str) -> Subject:
        """The subject, heard from now on."""
        if name not in self._subjects:
            self._subjects[name] = Subject(self.link, name)
        return self._subjects[name]

    async def ask(self, subject: str, payload: bytes, timeout_seconds: float) -> bytes:
        """As `Bus.ask`."""
        ask_id = secrets.token_bytes(ID_OCTETS)
        deadline = trio.current_time() + timeout_seconds
        name = ask_subject(subject)
        pause_seconds = REPEAT_SECONDS_MIN
        while (left_seconds := deadline - trio.current_time()) > 0:
            self.link.check_open()
            head = _HEAD.pack(_VERSION, ask_id, int(left_seconds * 1000))
            again_at = trio.current_time() + pause_seconds
            pause_seconds = min(2 * pause_seconds, REPEAT_SECONDS_MAX)
            wait_seconds = min(left_seconds, max(pause_seconds, 20 * REPEAT_SECONDS_MIN))
            try:
                answer = await self.link.request(name, head + payload, timeout_seconds=wait_seconds)
                return answer.data
            except Away:
                with trio.move_on_at(min(again_at, deadline)):
                    await self.link.changed.wait()
        raise NoAnswer(f"nobody answered {subject} within {timeout_seconds:g} s")
