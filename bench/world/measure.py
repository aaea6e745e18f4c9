"""How fast do the receivers take mail? `python -m bench.world measure [--sink KIND ...]`.

A plain pipelined blaster (content, MAIL, RCPT and DATA in one write, RFC 2920) on one core against each
sink on another. What it prints is a ceiling for everything measured against that sink, no more.
"""

import os
import selectors
import socket
import time
from typing import Any

from bench.sink import SinkError, start_sink

CONNECTIONS = 20
READ_OCTETS = 65_536
LINES_OF_CONTENT = 132  # 132 lines of 78 octets: about 10 KB


def blast(address: tuple[str, int], messages: int, connections: int = CONNECTIONS) -> float:
    """Send `messages` of 10 KB; returns the seconds from the first transaction to the last reply."""
    content = b"Message-ID: <1@blaster.test>\r\nSubject: blast\r\n\r\n"
    content += (b"x" * 76 + b"\r\n") * LINES_OF_CONTENT + b".\r\n"
    envelope = b"MAIL FROM:<a@blaster.test>\r\nRCPT TO:<b@sink.test>\r\nDATA\r\n"
    selector = selectors.DefaultSelector()
    left = messages
    for number in range(connections):
        link = socket.create_connection(address)
        link.recv(READ_OCTETS)
        link.sendall(b"EHLO blaster.test\r\n")
        link.recv(READ_OCTETS)
        share = messages // connections + (number < messages % connections)
        selector.register(link, selectors.EVENT_READ, [share, b""])
    begin = time.perf_counter()
    for key in selector.get_map().values():
        if key.data[0]:
            _socket(key).sendall(envelope)
    while left:
        for key, _ in selector.select():
            link, state = _socket(key), key.data
            octets = link.recv(READ_OCTETS)
            if not octets:
                raise SinkError("the sink closed a connection")
            state[1] = (state[1] + octets)[-256:]
            if not state[0] and state[1].endswith(b"\n"):
                left -= state[2]
                state[2] = 0
            elif b"354" in state[1] and state[1].endswith(b"\n"):
                state[1] = b""
                state[0] -= 1
                if state[0]:
                    left -= 1
                    link.sendall(content + envelope)
                else:
                    state.append(1)
                    link.sendall(content)
    seconds = time.perf_counter() - begin
    for key in list(selector.get_map().values()):
        _socket(key).close()
    return seconds


def _socket(key: selectors.SelectorKey) -> socket.socket:
    assert isinstance(key.fileobj, socket.socket)
    return key.fileobj


def measure(kind: str, messages: int) -> dict[str, Any]:
    """One sink's messages a second. Raises SinkError."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    try:
        with start_sink(kind, cpu=cores[-1]) as sink:
            blast(sink.address, messages // 10)  # warm up
            before = sink.count()
            seconds = blast(sink.address, messages)
            return {
                "sink": sink.name,
                "messages": sink.count() - before,
                "seconds": round(seconds, 3),
                "messages_per_second": round(messages / seconds),
            }
    finally:
        os.sched_setaffinity(0, cores)
