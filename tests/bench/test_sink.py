"""The sinks of the benches: they take mail, count it, delay it as told, and end with their bench."""

import shutil
import smtplib
import socket
import subprocess
import time

import pytest

from bench import sink as sinks
from bench.peers import missing
from bench.sink import OwnSink, SinkError, start_sink
from bench.world.measure import blast

pytestmark = pytest.mark.slow  # real sockets, processes or password hashes: a second in all

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler; cure: install gcc"
)
ENVELOPE = b"MAIL FROM:<s@from.test>\r\nRCPT TO:<a@box.test>\r\nDATA\r\n"
KINDS = [
    pytest.param("own", marks=needs_compiler),
    "python",
    pytest.param(
        "smtp-sink",
        marks=[
            pytest.mark.peers,
            pytest.mark.skipif(
                missing("postfix", root_needed=False) is not None,
                reason=missing("postfix", root_needed=False) or "",
            ),
        ],
    ),
]


class Client:
    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=10)
        self.lines = self.socket.makefile("rb")

    def ask(self, octets, replies=1):
        self.socket.sendall(octets)
        codes = []
        while len(codes) < replies:
            line = self.lines.readline()
            if not line:
                return [*codes, ""]
            if line[3:4] == b" ":
                codes.append(line[:3].decode())
        return codes

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lines.close()
        self.socket.close()


@pytest.mark.parametrize("kind", KINDS)
def test_each_sink_takes_and_counts_pipelined_and_plain_mail(kind):
    with start_sink(kind) as sink:
        assert sink.name == kind
        blast(sink.address, 200, connections=4)
        with smtplib.SMTP(*sink.address, timeout=10) as client:
            client.sendmail("s@from.test", ["a@box.test"], "x\r\n.\r\n..\r\n")
        assert sink.count() == 201


@needs_compiler
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 1000])
def test_the_own_sink_finds_the_dot_however_the_octets_are_split(size):
    content = b"x\r\n..\r\n.x\r\n\r\r\n.\r\r\n\n.\r\n.\r\n"
    wire = content + ENVELOPE + b".\r\n"
    with OwnSink.start("127.0.0.1", 0, None, 0.0, False) as sink, Client(sink.address) as client:
        assert client.ask(b"EHLO a\r\n", 2) == ["220", "250"]
        assert client.ask(ENVELOPE, 3) == ["250", "250", "354"]
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(wire), size):
            client.socket.sendall(wire[at : at + size])
        assert client.ask(b"QUIT\r\n", 6) == ["250", "250", "250", "354", "250", "221"]
        assert client.ask(b"") == [""]
        statistics = sink.statistics()
    assert statistics["messages"] == 2
    assert statistics["protocol_errors"] == 0


@needs_compiler
def test_the_own_sink_takes_bdat_units_and_counts_what_is_out_of_sequence():
    unit = b"MAIL FROM:<s@f.test>\r\nRCPT TO:<a@b.test>\r\nBDAT 3 LAST\r\n.\r\nRSET\r\n"
    with OwnSink.start("127.0.0.1", 0, None, 0.0, True) as sink, Client(sink.address) as client:
        client.ask(b"EHLO a\r\n", 2)
        assert client.ask(unit * 3, 12) == ["250"] * 12
        assert sink.statistics()["protocol_errors"] == 0
        assert client.ask(b"BDAT 0 LAST\r\nDATA\r\nRCPT TO:<a@b>\r\nWHAT\r\n", 4) == [
            "503",
            "503",
            "503",
            "500",
        ]
        assert sink.statistics()["protocol_errors"] == 4
        assert sink.count() == 3


@needs_compiler
def test_the_delay_line_answers_one_round_trip_later_and_batches_overlap():
    with start_sink("auto", rtt_ms=40) as sink, Client(sink.address) as client:
        assert sink.name == "own"
        begin = time.monotonic()
        assert client.ask(b"") == ["220"]
        assert time.monotonic() - begin >= 0.08
        begin = time.monotonic()
        for _ in range(5):
            client.socket.sendall(b"NOOP\r\n")
            time.sleep(0.002)
        assert client.ask(b"QUIT\r\n", 6) == ["250"] * 5 + ["221"]
        # One delay for all of them, not one each: that would be 240 ms.
        assert 0.04 <= time.monotonic() - begin < 0.2
        assert client.ask(b"") == [""]


def test_what_a_kind_cannot_do_is_refused_with_a_hint():
    for kind, options in (
        ("python", {"rtt_ms": 5}),
        ("smtp-sink", {"rtt_ms": 5}),
        ("smtp-sink", {"chunking": True}),
    ):
        with pytest.raises(SinkError, match="own"):
            start_sink(kind, **options)


def test_without_a_compiler_the_own_sink_says_so_and_auto_takes_python(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sinks.shutil, "which", lambda *_, **__: None)
    with pytest.raises(SinkError, match="install gcc"):
        start_sink("own")
    with pytest.raises(SinkError, match="install gcc"):
        start_sink("auto", rtt_ms=5)
    with start_sink("auto", chunking=True) as sink:
        assert sink.name == "python"


@needs_compiler
def test_a_sink_ends_when_its_bench_dies():
    command = [str(sinks.compiled_sink()), "--stdin"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdin.close()
        assert process.wait(5) == 0


def test_a_port_that_is_taken_is_an_error_with_a_name():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SinkError):
        start_sink("own" if shutil.which("cc") else "python", port=taken.getsockname()[1])
