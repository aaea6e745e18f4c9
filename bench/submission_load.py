"""Clients of a submission listener, in a process of their own: `python -m bench.submission_load FACTS`.

FACTS is one JSON object (see `Load`). Each connection is a thread with a blocking socket, TLS and a log-in,
which hands in its share of the messages: as fast as they are taken, or evenly over some seconds. Prints one
JSON object: how long it took, and for each message its id and when its last octet went and its 250 came
(wall seconds).
"""

import socket
import ssl
import sys
import threading
import time
from base64 import b64encode
from contextlib import suppress

import msgspec
from msgspec import Struct

READ_OCTETS = 65_536


class Load(Struct, frozen=True, kw_only=True):
    """What the clients do."""

    host: str
    port: int
    account: str
    password: str
    sender: str
    recipient: str  # with {} for the message's number
    messages: int
    connections: int
    message_bytes: int
    reuse: bool = True  # False: one connection for each message
    pipelined: bool = False  # MAIL, RCPT and DATA in one write
    seconds: float = 0.0  # 0: as fast as they are taken


class Handed(Struct, frozen=True, array_like=True):
    """One message: its id as the listener told it."""

    id: str
    sent: float
    taken: float


class Report(Struct, frozen=True):
    seconds: float
    handed: list[Handed]


class Client:
    """One connection."""

    def __init__(self, load: Load, context: ssl.SSLContext) -> None:
        plain = socket.create_connection((load.host, load.port), timeout=120)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wire: socket.socket = plain
        self._heard = b""
        self._expect(b"220")
        self.ask(b"EHLO bench\r\n", b"250")
        self.ask(b"STARTTLS\r\n", b"220")
        self._wire = context.wrap_socket(plain)
        self.ask(b"EHLO bench\r\n", b"250")
        login = b64encode(f"\0{load.account}\0{load.password}".encode())
        self.ask(b"AUTH PLAIN " + login + b"\r\n", b"235")

    def ask(self, command: bytes, *codes: bytes) -> bytes:
        """Write, and read as many replies as codes; the last line of the last one."""
        self._wire.sendall(command)
        line = b""
        for code in codes:
            line = self._expect(code)
        return line

    def _expect(self, code: bytes) -> bytes:
        while True:
            line, end, rest = self._heard.partition(b"\r\n")
            if end:
                self._heard = rest
                if not line.startswith(code):
                    raise RuntimeError(f"expected {code.decode()}, heard {line.decode(errors='replace')}")
                if line[3:4] != b"-":
                    return line
                continue
            piece = self._wire.recv(READ_OCTETS)
            if not piece:
                raise RuntimeError("the listener hung up")
            self._heard += piece

    def quit(self) -> None:
        self.ask(b"QUIT\r\n", b"221")
        self._wire.close()


def hand_in(client: Client, load: Load, number: int, body: bytes) -> Handed:
    """One message."""
    mail = f"MAIL FROM:<{load.sender}>\r\n".encode()
    rcpt = f"RCPT TO:<{load.recipient.format(number)}>\r\n".encode()
    if load.pipelined:
        client.ask(mail + rcpt + b"DATA\r\n", b"250", b"250", b"354")
    else:
        client.ask(mail, b"250")
        client.ask(rcpt, b"250")
        client.ask(b"DATA\r\n", b"354")
    head = f"From: {load.sender}\r\nTo: a list\r\nSubject: message {number}\r\n\r\n".encode()
    sent = time.time()
    line = client.ask(head + body + b".\r\n", b"250")
    return Handed(line.rpartition(b" ")[2].decode(), sent, time.time())


def run(load: Load) -> Report:
    """All of it."""
    context = ssl.create_default_context()
    context.check_hostname = False  # a benchmark's own certificate
    context.verify_mode = ssl.CERT_NONE
    body = b"0123456789012345678901234567890123456789012345678901234567890123456789\r\n"
    body *= max(1, load.message_bytes // len(body))
    handed: list[Handed] = []
    troubles: list[BaseException] = []
    ready = threading.Barrier(load.connections + 1)

    def work(first: int) -> None:
        try:
            client = Client(load, context) if load.reuse else None
            ready.wait()
            began = time.monotonic()
            for number in range(first, load.messages, load.connections):
                if load.seconds:
                    at = began + number * load.seconds / load.messages
                    time.sleep(max(0.0, at - time.monotonic()))
                one = client or Client(load, context)
                handed.append(hand_in(one, load, number, body))
                if client is None:
                    one.quit()
            if client is not None:
                client.quit()
        except BaseException as error:
            troubles.append(error)
            ready.abort()

    threads = [threading.Thread(target=work, args=(first,)) for first in range(load.connections)]
    for thread in threads:
        thread.start()
    with suppress(threading.BrokenBarrierError):  # one of them says below why
        ready.wait()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    if troubles:
        raise RuntimeError(f"a client failed: {troubles[0]}")
    return Report(seconds, handed)


def main(arguments: list[str]) -> int:
    load = msgspec.json.decode(arguments[0], type=Load)
    sys.stdout.buffer.write(msgspec.json.encode(run(load)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
