"""A thousand personal messages through the whole engine into real servers, and what arrives there.

Real LMDB, signer processes and sockets; Postfix, Exim, OpenSMTPD and Haraka at the other end. All of
them arrive exactly once, read exactly as their author meant them (see `tests.fakes.hop_letters`), and both
DKIM signatures hold before dkimpy and before OpenDKIM. Opportunistic STARTTLS is used where it works and
given up where it does not. Takes about a quarter of a minute per server.
"""

import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import ModuleType

import dkim
import pytest
import trio

from bench.peers import exim, haraka, opensmtpd, postfix
from bench.peers.opendkim import judge
from bench.peers.receiver import Arrived, Receiver
from engine.app import open_engine
from engine.bus.api import Subscription
from engine.config.tables import Config, DkimKeyFile, EngineTable, KeysTable, NodeTable, SiteRule
from engine.keyring import create_dkim_key
from engine.model.content import DkimIdentity
from engine.model.envelope import Chunk
from engine.model.event import Delivered, EnvelopeEvent, decode_events
from engine.model.submission import SubmitChunk, SubmitContent
from engine.mta.net.mx import Route
from engine.mta.net.smarthost import literal_route
from tests.fakes.hop_letters import (
    DOMAIN,
    ED25519,
    LETTERS,
    RSA,
    UNSUBSCRIBE_HOST,
    content_of,
    entries_of,
    intended,
    read_letter,
    unsubscribe_url_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.peers]

SERVERS = {"postfix": postfix, "exim": exim, "opensmtpd": opensmtpd, "haraka": haraka}
MESSAGES = 1_000
MESSAGES_TLS = 60
HOST = "127.0.0.9"
FINISH_SECONDS = 60.0
EVENTS_SECONDS = 0.3  # a stopped engine publishes no more
DELIVER_SECONDS = 60.0  # the servers write each message to a maildir of their own after they took it
BULK_HEADERS = {
    "from", "to", "subject", "date", "message-id", "mime-version", "content-type",
    "content-transfer-encoding", "list-id", "list-unsubscribe", "list-unsubscribe-post", "list-help",
    "feedback-id", "precedence", "auto-submitted",
}  # fmt: skip


class Keys:
    """Both private keys for the signers, their records for the verifiers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = tuple(DkimKeyFile(name=each.key, file=f"{each.key}.pem") for each in (RSA, ED25519))
        self.records = {
            _record_name(each): create_dkim_key(folder / f"{each.key}.pem", each.algorithm.value)
            for each in (RSA, ED25519)
        }

    def dns(self, name: bytes, timeout: int = 5) -> bytes:
        """dkimpy's way to ask for a TXT record."""
        return self.records[name.decode().rstrip(".")].encode()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    folder.chmod(0o700)
    return Keys(folder)


@pytest.mark.parametrize("name", SERVERS)
async def test_a_thousand_letters_arrive_once_whole_and_signed(
    name: str, tmp_path: Path, keys: Keys, require_peer: Callable[[str], None]
) -> None:
    require_peer(name)
    require_peer("opendkim")
    with _receiving(SERVERS[name], tmp_path / name) as receiver:
        started = time.perf_counter()
        events = await _send(receiver, tmp_path / "data", keys, MESSAGES)
        sent_seconds = time.perf_counter() - started
        arrived = await trio.to_thread.run_sync(lambda: receiver.wait_for(MESSAGES, seconds=DELIVER_SECONDS))
    print(f"{name}: {MESSAGES} sent in {sent_seconds:.1f} s")
    assert {type(event) for event in events} == {Delivered}
    assert len(events) == MESSAGES
    _check_readings(arrived)
    _check_signatures_with_dkimpy(arrived, keys)
    for signatures in judge([one.message for one in arrived], keys.records):
        assert [(one.result, one.selector, one.algorithm) for one in signatures] == [
            ("pass", RSA.selector, "rsa-sha256"),
            ("pass", ED25519.selector, "ed25519-sha256"),
        ]


@pytest.mark.parametrize(
    ("name", "encrypted"), [("postfix", True), ("exim", True), ("haraka", True), ("opensmtpd", False)]
)
async def test_starttls_is_used_where_it_works_and_given_up_where_it_does_not(
    name: str, encrypted: bool, tmp_path: Path, keys: Keys, require_peer: Callable[[str], None]
) -> None:
    require_peer(name)
    with _receiving(SERVERS[name], tmp_path / name, tls=True) as receiver:
        events = await _send(receiver, tmp_path / "data", keys, MESSAGES_TLS)
        arrived = await trio.to_thread.run_sync(lambda: receiver.wait_for(MESSAGES_TLS))
    assert len(events) == len(arrived) == MESSAGES_TLS
    for event in events:
        assert isinstance(event, Delivered)
        assert event.tls.startswith("TLSv1.") if encrypted else event.tls == ""
    _check_readings(arrived, MESSAGES_TLS)
    _check_signatures_with_dkimpy(arrived, keys)


# --- sending -------------------------------------------------------------------------------------------


def _receiving(server: ModuleType, folder: Path, **options: bool) -> AbstractContextManager[Receiver]:
    return server.receiving(folder, HOST, **options)  # type: ignore[no-any-return]


async def _send(receiver: Receiver, data: Path, keys: Keys, messages: int) -> list[EnvelopeEvent]:
    """All letters through one engine; the events of every attempt, in order."""
    config = Config(
        node=NodeTable(name="hop", data=str(data)),
        engine=EngineTable(signers=2, site=(SiteRule(connections=8),)),
        keys=KeysTable(folder=str(keys.folder), dkim=keys.files),
    )
    route = await literal_route(f"{receiver.host}:{receiver.port}")
    assert isinstance(route, Route)
    async with open_engine(config, static_route=route) as engine:
        subscription = engine.parts.bus.subscribe("events.hop", "test")  # a stopped bus takes no new consumer
        for letter in LETTERS:
            entries = entries_of(letter, messages)
            chunk = Chunk(f"{letter.name}-1", letter.campaign, time.time() + 3600, entries)
            await engine.submit([SubmitContent(content_of(letter)), SubmitChunk(chunk)])
        with trio.fail_after(FINISH_SECONDS):
            while sum(engine.counts(letter.campaign).finished for letter in LETTERS) < messages:
                await trio.sleep(0.05)
        await engine.stop()
        return await _read_events(subscription)


async def _read_events(subscription: Subscription) -> list[EnvelopeEvent]:
    """What a stopped engine has published: all there is."""
    events: list[EnvelopeEvent] = []
    with trio.move_on_after(EVENTS_SECONDS), suppress(trio.ClosedResourceError):
        while True:
            for delivery in await subscription.receive(1_000):
                batch = decode_events(delivery.payload).events
                events += [event for event in batch if isinstance(event, EnvelopeEvent)]
    return events


# --- checking ------------------------------------------------------------------------------------------


def _check_readings(arrived: list[Arrived], messages: int = MESSAGES) -> None:
    """Everybody once, and each reads what was meant for them."""
    expected = {
        entry.recipient: (letter, entry) for letter in LETTERS for entry in entries_of(letter, messages)
    }
    times = Counter(one.recipient for one in arrived)
    assert times == Counter(dict.fromkeys(expected, 1))
    urls = set()
    for one in arrived:
        letter, entry = expected[one.recipient]
        message, reading = read_letter(one.message)
        url = unsubscribe_url_of(message)
        assert url.startswith(f"https://{UNSUBSCRIBE_HOST}/u/")
        assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert reading == intended(letter, entry, url)
        assert re.fullmatch(rf"b-[a-z2-7]{{40}}@bounce\.{re.escape(DOMAIN)}", one.return_path)
        urls.add(url)
    assert len(urls) == messages, "everybody unsubscribes nobody but themselves"


def _check_signatures_with_dkimpy(arrived: list[Arrived], keys: Keys) -> None:
    for one in arrived:
        verifier = dkim.DKIM(one.message)
        assert verifier.verify(idx=0, dnsfunc=keys.dns), one.recipient
        assert verifier.verify(idx=1, dnsfunc=keys.dns), one.recipient
        signatures = [value for name, value in verifier.headers if name.lower() == b"dkim-signature"]
        assert len(signatures) == 2
        for value in signatures:
            signed = re.search(rb"\bh=([^;]+)", value)
            assert signed is not None
            names = re.sub(r"\s", "", signed[1].decode()).lower().split(":")
            assert set(names) >= BULK_HEADERS


def _record_name(identity: DkimIdentity) -> str:
    return f"{identity.selector}._domainkey.{identity.domain}"
