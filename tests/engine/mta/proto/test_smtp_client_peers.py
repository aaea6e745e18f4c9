"""The client against real servers: every message arrives whole, under its own return path.

Here a plain blocking socket is the shell. What each server's manners must teach is checked too: Haraka
refuses commands behind a final dot, Exim takes windows of BDAT with a refused recipient in their midst,
OpenSMTPD offers no PIPELINING. Processes, ports and the clock are real, hence the marker.
"""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.peers import exim, haraka, opensmtpd, postfix
from bench.peers.receiver import Receiver
from engine.mta.proto.smtp_client import SmtpClient
from engine.mta.proto.smtp_options import (
    ClientOptions,
    Event,
    Knowledge,
    PipeliningVerdict,
    Result,
    ResultKind,
    TlsUse,
    Transaction,
)
from tests.fakes.smtp_peer import letters, results

pytestmark = pytest.mark.peers

U, W, R = Knowledge.UNTRIED, Knowledge.WORKS, Knowledge.REFUSED
COUNT = 40
NOBODY = "nobody"
HEADER = b"From: a@sender.example\r\nDate: Tue, 24 Nov 2026 04:27:57 +0000\r\n"

LETTERS = [replace(letter, content=HEADER + letter.content) for letter in letters(COUNT)]


def talk(receiver: Receiver, transactions: list[Transaction], client: SmtpClient) -> dict[int, Result]:
    todo = list(transactions)
    events: list[Event] = []
    with socket.create_connection((receiver.host, receiver.port), timeout=20) as peer:
        while not client.closed:
            while todo and client.room():
                events += client.submit(todo.pop(0))
            if not todo:
                client.quit()
            if (out := client.next_output()) is not None:
                peer.sendall(out)
                client.handed_over(len(out))
            events += client.receive_data(peer.recv(65_536))
    assert not todo
    return results(events)


def client_of(**options: object) -> SmtpClient:
    return SmtpClient(ClientOptions(ehlo_name="me.sender.example", tls=TlsUse.NEVER, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("server", "chunking", "learned"),
    [
        (postfix, False, (W, W, U, U)),
        (postfix, True, (W, U, W, W)),
        (exim, False, (W, W, U, U)),
        (exim, True, (W, U, W, W)),
        (haraka, False, (W, R, U, U)),
        (opensmtpd, True, (U, U, U, U)),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)).rpartition(".")[2],
)
def test_every_message_arrives_and_the_manners_are_learned(
    server: object,
    chunking: bool,
    learned: tuple[Knowledge, ...],
    tmp_path: Path,
    require_peer: Callable[[str], None],
) -> None:
    name = server.__name__.rpartition(".")[2]  # type: ignore[attr-defined]
    require_peer(name)
    client = client_of(chunking=chunking)
    with server.receiving(tmp_path / name, "127.0.0.8") as receiver:  # type: ignore[attr-defined]
        found = talk(receiver, LETTERS, client)
        arrived = {one.recipient: one for one in receiver.wait_for(COUNT)}
    assert {result.kind for result in found.values()} == {ResultKind.DELIVERED}
    for letter in LETTERS:
        one = arrived[letter.recipient]
        assert one.return_path == letter.mail_from
        assert one.message.endswith(letter.content)
    verdict = client.learned
    assert (verdict.inside, verdict.across, verdict.chunking, verdict.windows) == learned
    assert verdict.served == COUNT


@pytest.mark.parametrize("chunking", [True, False])
def test_exim_keeps_return_paths_apart_with_refused_recipients_in_the_window(
    chunking: bool, tmp_path: Path, require_peer: Callable[[str], None]
) -> None:
    require_peer("exim")
    refused = {5, 6, 13, 20, 22, 39}
    mixed = [
        replace(letter, recipient=f"{NOBODY}@example.net") if letter.key in refused else letter
        for letter in LETTERS
    ]
    known = PipeliningVerdict(inside=W, across=W, chunking=W, windows=W)
    client = client_of(chunking=chunking, verdict=known, window_messages=8)
    with exim.receiving(tmp_path / "exim", "127.0.0.8", refuse=NOBODY) as receiver:
        found = talk(receiver, mixed, client)
        arrived = receiver.wait_for(COUNT - len(refused))
    assert {key for key, result in found.items() if result.kind is ResultKind.REFUSED} == refused
    assert {key for key, result in found.items() if result.kind is ResultKind.DELIVERED} == set(
        range(COUNT)
    ) - refused
    assert sorted((one.return_path, one.recipient) for one in arrived) == sorted(
        (letter.mail_from, letter.recipient) for letter in mixed if letter.key not in refused
    )
    assert replace(client.learned, served=0) == known
