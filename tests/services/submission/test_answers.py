"""The answers to AUTH and DATA without sockets: what counts as a try, what races, what is measured."""

from base64 import b64encode
from collections.abc import Callable
from typing import Any, cast

import pytest
import trio
import trio_asyncio
from aiosmtpd.smtp import AuthResult

from engine.bus.api import PAYLOAD_OCTETS_MAX
from engine.model.content import DkimAlgorithm, MessageClass
from engine.model.single import BlobMessage, decode_single
from services.submission.accounts import Account
from services.submission.answers import AUTH_TRIES_MAX, Answers, Desk
from services.submission.config import DkimRule, DomainRule, SubmissionTable
from services.submission.limits import ADDRESS_FREE_FAILURES, FREE_FAILURES
from services.submission.messages import Prepared, Trace
from services.submission.publishing import GROUP_OCTETS_MAX, Publisher
from services.submission.reader import LineTooLong
from tests.fakes.memory_bus import MemoryBus

ANN = Account("ann", "hash", ("shop.test",), "shop", MessageClass.TRANSACTIONAL)
TRACE = Trace("client.test", "192.0.2.1", "mail.shop.test", "ESMTPSA", "abc.def", 1_800_000_000.0)


class Doorman:
    """Accounts whose answers wait for the test."""

    def __init__(self) -> None:
        self.open = trio.Event()
        self.open_for_the_right = trio.Event()
        self.asked = 0

    async def check(self, name: str, password: bytes) -> Account | None:
        self.asked += 1
        await self.open.wait()
        if (name, password) != ("ann", b"right"):
            return None
        await self.open_for_the_right.wait()
        return ANN


class Client:
    """A session, as far as AUTH looks at it."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.address = "192.0.2.1"
        self.auth_tries = 0
        self.leaving = False
        self.answers = list(answers)

    async def ask(self, challenge: str) -> bytes:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def a_desk(doorman: Doorman | None = None, **changes: Any) -> Desk:
    bus = MemoryBus("node.submission-1")
    table = SubmissionTable(**({"domain": (DomainRule(name="shop.test"),)} | changes))
    publisher = Publisher(bus, "chunks.node.single", 20.0)
    return Desk(table, cast(Any, doorman), publisher, bus, "mail.shop.test")


async def plain(desk: Desk, client: Client, *words: str) -> AuthResult:
    return await Answers(desk).auth_PLAIN(cast(Any, client), ["PLAIN", *words])


async def login(desk: Desk, client: Client, *words: str) -> AuthResult:
    return await Answers(desk).auth_LOGIN(cast(Any, client), ["LOGIN", *words])


@pytest.mark.parametrize(
    ("way", "words", "answers", "code"),
    [
        (plain, ["AHZ\xe9"], [], "501 5.5.2"),
        (plain, ["\udcff"], [], "501 5.5.2"),
        (plain, ["AH"], [], "501 5.5.2"),
        (plain, ["="], [], "501 5.5.2 that is no PLAIN response"),
        (plain, ["YQ=="], [], "501 5.5.2 that is no PLAIN response"),
        (plain, [], [b"\xff"], "501 5.5.2"),
        (plain, [], [b"*"], "501 5.7.0"),
        (plain, [], [LineTooLong()], "500 5.5.6"),
        (login, [], [LineTooLong()], "500 5.5.6"),
        (login, ["YW5u"], [b"*"], "501 5.7.0"),
        (login, [], [b"YW5u", LineTooLong()], "500 5.5.6"),
    ],
)
async def test_a_malformed_response_is_answered_and_counts_as_a_try(
    way: Callable[..., Any], words: list[str], answers: list[bytes | Exception], code: str
) -> None:
    client = Client(*answers * AUTH_TRIES_MAX)
    for number in range(1, AUTH_TRIES_MAX + 1):
        result = await way(a_desk(), client, *words)
        assert not result.success
        assert not result.handled
        assert result.message.startswith(code)
        assert (client.auth_tries, client.leaving) == (number, number == AUTH_TRIES_MAX)


async def test_an_equals_sign_is_an_empty_initial_response() -> None:
    doorman = Doorman()
    doorman.open.set()
    async with trio_asyncio.open_loop():
        result = await trio_asyncio.aio_as_trio(login)(a_desk(doorman), Client(b"eA=="), "=")
    assert result.message.startswith("535 ")
    assert doorman.asked == 1


async def test_many_guesses_at_once_are_no_more_than_one_after_the_other() -> None:
    """Also the right password among them is not told, once too many were wrong."""
    doorman = Doorman()
    desk, results = a_desk(doorman), list[AuthResult]()
    guesses = [b"wrong"] * (FREE_FAILURES + 5) + [b"right"]
    assert len(guesses) < ADDRESS_FREE_FAILURES

    async def guess(password: bytes) -> None:
        words = b64encode(b"\0ann\0" + password).decode()
        results.append(await trio_asyncio.aio_as_trio(plain)(desk, Client(), words))

    async with trio_asyncio.open_loop(), trio.open_nursery() as nursery:
        for password in guesses:
            nursery.start_soon(guess, password)
        while doorman.asked < len(guesses):
            await trio.sleep(0)
        doorman.open.set()
        while len(results) < len(guesses) - 1:
            await trio.sleep(0)
        doorman.open_for_the_right.set()
    codes = sorted((result.message or "")[:3] for result in results)
    assert not any(result.success for result in results)
    assert codes == ["454"] * 6 + ["535"] * FREE_FAILURES


def many_keys(count: int) -> DomainRule:
    rules = tuple(
        DkimRule(key="k" * 200, selector=f"s{number}", algorithm=DkimAlgorithm.ED25519_SHA256)
        for number in range(count)
    )
    return DomainRule(name="shop.test", dkim=rules)


async def entries_of(desk: Desk, octets: bytes, recipients: list[str]) -> list[bytes] | None:
    async with trio_asyncio.open_loop():
        made = trio_asyncio.aio_as_trio(Answers(desk)._entries)
        return cast(list[bytes] | None, await made(Prepared(octets, "shop.test"), ANN, recipients, TRACE))


async def test_entries_are_measured_not_estimated() -> None:
    """What surrounds a message is longer than the message here: they fit one publish as a blob only."""
    desk = a_desk(domain=(many_keys(20),))
    count = 500
    octets = b"x" * (GROUP_OCTETS_MAX // count - 1_100)
    entries = await entries_of(desk, octets, [f"{number}@x.test" for number in range(count)])
    assert entries is not None
    assert sum(map(len, entries)) <= GROUP_OCTETS_MAX
    singles = [decode_single(entry) for entry in entries]
    assert {type(single.message) for single in singles} == {BlobMessage}  # type: ignore[union-attr]


async def test_entries_that_fit_no_publish_are_refused() -> None:
    desk = a_desk(domain=(many_keys(80),))
    assert await entries_of(desk, b"x" * 1_000, [f"{number}@x.test" for number in range(1_000)]) is None


async def test_an_entry_that_is_no_payload_travels_as_a_blob() -> None:
    desk = a_desk(domain=(many_keys(1_400),))
    entries = await entries_of(desk, b"x" * 700_000, ["a@x.test"])
    assert entries is not None
    assert len(entries[0]) < PAYLOAD_OCTETS_MAX
