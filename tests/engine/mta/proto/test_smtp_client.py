"""The whole client against a model server and against peers that say anything at all.

The model keeps what it accepted, so the results are held against the truth: with an honest peer exactly
the messages it kept are DELIVERED, under their own return paths; with a peer that loses the connection
or crosses units nothing it kept is called refused or unsent.
"""

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.proto.smtp_client import SmtpClient
from engine.mta.proto.smtp_options import (
    ClientOptions,
    Closed,
    Event,
    Knowledge,
    PipeliningVerdict,
    ResultKind,
    StartTls,
)
from tests.fakes.smtp_peer import ModelPeer, converse, letters, octet_by_octet, results, whole

COUNT = 7
KNOWLEDGE = st.sampled_from(Knowledge)
VERDICTS = st.builds(
    PipeliningVerdict,
    inside=KNOWLEDGE,
    across=KNOWLEDGE,
    chunking=KNOWLEDGE,
    windows=KNOWLEDGE,
    served=st.sampled_from([0, 2, 100]),
)
EXTENSIONS = st.lists(
    st.sampled_from(["PIPELINING", "CHUNKING", "SIZE 100", "LIMITS MAILMAX=4", "DSN"]), unique=True
)
VERBS = ["MAIL", "RCPT", "DATA", "BDAT", "content"]
REFUSALS = st.dictionaries(
    st.tuples(st.sampled_from(VERBS), st.integers(1, COUNT)),
    st.sampled_from(
        [
            "450 4.2.1 later",
            "550 5.1.1 who",
            "452 4.3.1 full",
            "502 5.5.1 what",
            "503 5.5.1 sequence",
            "503 5.5.0 improper command pipelining",
            "554 5.7.1 no",
        ]
    ),
    max_size=5,
)


def client_of(verdict: PipeliningVerdict, **options: object) -> SmtpClient:
    return SmtpClient(ClientOptions(ehlo_name="me.example.org", verdict=verdict, **options))  # type: ignore[arg-type]


def pieces_of(sizes: list[int]) -> Callable[[bytes], Iterable[bytes]]:
    def cut(data: bytes) -> Iterable[bytes]:
        at, turn = 0, 0
        while at < len(data):
            size = sizes[turn % len(sizes)]
            yield data[at : at + size]
            at, turn = at + size, turn + 1

    return cut


CUTS = st.lists(st.integers(1, 60), min_size=1, max_size=4).map(pieces_of)


def check(events: list[Event], peer: ModelPeer) -> None:
    """Every key has one result; who was kept is DELIVERED, or AMBIGUOUS where we cannot know."""
    found = results(events)
    assert sorted(found) == list(range(COUNT))
    assert sum(isinstance(event, Closed) for event in events) == 1
    kept = {content: (sender, recipients) for sender, recipients, content in peer.accepted}
    assert len(kept) == len(peer.accepted), "the peer kept a message twice"
    for letter in letters(COUNT):
        kind = found[letter.key].kind
        if letter.content in kept:
            assert kind in (ResultKind.DELIVERED, ResultKind.AMBIGUOUS)
        else:
            assert kind is not ResultKind.DELIVERED
        if kind is ResultKind.DELIVERED:
            assert kept[letter.content] == (letter.mail_from, (letter.recipient,))


@settings(max_examples=250)
@given(VERDICTS, EXTENSIONS, REFUSALS, CUTS, st.booleans(), st.booleans(), st.integers(1, 5))
def test_exactly_what_the_peer_kept_is_delivered(
    verdict: PipeliningVerdict,
    extensions: list[str],
    refusals: dict[tuple[str, int], str],
    cut: Callable[[bytes], Iterable[bytes]],
    deaf_behind_dot: bool,
    keeps_sender: bool,
    window: int,
) -> None:
    peer = ModelPeer(
        *extensions,
        refuse=lambda verb, n: refusals.get((verb, n)),
        deaf_behind_dot=deaf_behind_dot,
        keeps_sender=keeps_sender,
    )
    client = client_of(verdict, window_messages=window)
    events = converse(client, peer, letters(COUNT), cut)
    check(events, peer)
    kinds = [result.kind for result in results(events).values()]
    assert ResultKind.AMBIGUOUS not in kinds, "an honest peer leaves no doubt"
    assert client.learned.served == verdict.served + kinds.count(ResultKind.DELIVERED)


@pytest.mark.slow
@settings(max_examples=150)
@given(VERDICTS, EXTENSIONS, REFUSALS, CUTS, st.sampled_from(VERBS), st.integers(1, COUNT))
def test_with_421_and_crossed_units_nothing_kept_is_called_refused(
    verdict: PipeliningVerdict,
    extensions: list[str],
    refusals: dict[tuple[str, int], str],
    cut: Callable[[bytes], Iterable[bytes]],
    verb: str,
    nth: int,
) -> None:
    refusals = {**refusals, (verb, nth): "421 4.7.0 enough"}
    peer = ModelPeer(*extensions, refuse=lambda verb, n: refusals.get((verb, n)), ignores_reset=True)
    found = converse(client_of(verdict), peer, letters(COUNT), cut)
    assert sorted(results(found)) == list(range(COUNT))
    own = {letter.content: letter for letter in letters(COUNT)}
    for sender, recipients, content in peer.accepted:
        letter = own[content]
        kind = results(found)[letter.key].kind
        assert kind in (ResultKind.DELIVERED, ResultKind.AMBIGUOUS)
        if kind is ResultKind.DELIVERED:
            assert (sender, recipients[-1]) == (letter.mail_from, letter.recipient)


TALK = st.sampled_from(
    [
        b"250 2.1.0 Ok\r\n",
        b"250-a\r\n250 b\r\n",
        b"354 go\r\n",
        b"550 5.1.1 no\r\n",
        b"503 no\r\n",
        b"450 later\r\n",
        b"334 x\r\n",
        b"250-PIPELINING\r\n250-CHUNKING\r\n250 SIZE\r\n",
        b"220 hi\r\n",
        b"250 m\r\n250 r\r\n354 go\r\n",
        b"250 kept\r\n250 m\r\n250 r\r\n354 go\r\n",
        b"221 bye\r\n",
        b"554 improper pipelining\r\n",
        b"250-hi\r\n250 STARTTLS\r\n",
        b"\r\n",
        b"250",
        b"\xff\xfe",
        b"250 m\r\n250 r\r\n250 kept\r\n250 rset\r\n",
        b"421 bye\r\n",
    ]
)
STEPS = st.lists(
    st.tuples(st.just("say"), TALK | st.binary(max_size=8))
    | st.tuples(st.just("write"), st.integers(0, 400))
    | st.tuples(st.just("write"), st.just(100_000))
    | st.tuples(st.sampled_from(["submit", "submit", "quit", "close", "silence"]), st.just(0)),
    max_size=60,
)
GREETINGS = st.sampled_from(
    [
        [],
        [b"220 hi\r\n", b"250-hi\r\n250 PIPELINING\r\n"],
        [b"220 hi\r\n", b"250-hi\r\n250-CHUNKING\r\n250 PIPELINING\r\n"],
        [b"220 hi\r\n", b"250 hi\r\n"],
    ]
)


class RandomTalk:
    """Drives a client by arbitrary steps and keeps the account that must come out even."""

    def __init__(self, verdict: PipeliningVerdict) -> None:
        self.client = client_of(verdict, served_before_across=1)
        self.events: list[Event] = []
        self.submitted = 0
        self.pending = 0  # octets taken and not yet handed over
        self.supply = letters(200)

    def step(self, what: str, value: int | bytes) -> None:
        client = self.client
        match what:
            case "say":
                assert isinstance(value, bytes)
                if value:
                    self.take(client.receive_data(value))
            case "write":
                assert isinstance(value, int)
                self.pending += len(client.next_output() or b"")
                count = min(value, self.pending)
                client.handed_over(count)
                self.pending -= count
            case "submit":
                if self.submitted < len(self.supply):
                    self.take(client.submit(self.supply[self.submitted]))
                    self.submitted += 1
            case "quit":
                client.quit()
            case "close":
                self.take(client.peer_closed())
            case _:
                if client.time_limit is not None:
                    verb, seconds = client.time_limit
                    assert seconds > 0
                    self.take(client.connection_lost(TransportFailure(FailureKind.TIMEOUT, verb)))
        assert client.room() >= 0
        assert repr(client)

    def take(self, events: list[Event]) -> None:
        self.events += events
        for event in events:
            if event == StartTls() and not self.client.closed:
                self.client.tls_established("TLSv1.3")


@pytest.mark.slow
@settings(max_examples=300)
@given(VERDICTS, GREETINGS, STEPS)
def test_whatever_a_peer_says_each_transaction_has_one_result_and_nothing_raises(
    verdict: PipeliningVerdict, greeting: list[bytes], steps: list[tuple[str, int | bytes]]
) -> None:
    talk = RandomTalk(verdict)
    for said in greeting:
        talk.step("say", said)
        talk.step("write", 1000)
    for what, value in steps:
        talk.step(what, value)
    talk.take(talk.client.abort("the end"))
    assert sorted(results(talk.events)) == list(range(talk.submitted))
    assert sum(isinstance(event, Closed) for event in talk.events) == 1
    assert isinstance(talk.client.learned, PipeliningVerdict)
    assert talk.client.receive_data(b"250 more\r\n") == []


@pytest.mark.parametrize("cut", [whole, octet_by_octet, pieces_of([7, 3])])
@pytest.mark.parametrize(
    ("extensions", "flights"),
    [(("PIPELINING",), "DATA"), (("PIPELINING", "CHUNKING"), "BDAT"), ((), "DATA"), (("CHUNKING",), "BDAT")],
)
def test_a_healthy_peer_keeps_every_message(
    extensions: tuple[str, ...], flights: str, cut: Callable[[bytes], Iterable[bytes]]
) -> None:
    peer = ModelPeer(*extensions)
    events = converse(client_of(PipeliningVerdict()), peer, letters(COUNT), cut)
    check(events, peer)
    assert len(peer.accepted) == COUNT
    assert events[-1].clean  # type: ignore[union-attr]
    assert any(command.startswith(flights) for command in peer.commands)


def test_haraka_loses_nothing_and_the_verdict_saves_the_second_connection_the_trial() -> None:
    peer = ModelPeer("PIPELINING", deaf_behind_dot=True)
    client = client_of(PipeliningVerdict())
    check(converse(client, peer, letters(COUNT)), peer)
    assert len(peer.accepted) == COUNT
    assert peer.commands.count("RSET") == 1
    assert client.learned.across is Knowledge.REFUSED
    second = ModelPeer("PIPELINING", deaf_behind_dot=True)
    check(converse(client_of(client.learned), second, letters(COUNT)), second)
    assert "RSET" not in second.commands


def test_exim_keeps_return_paths_apart_thanks_to_rset() -> None:
    known = PipeliningVerdict(windows=Knowledge.WORKS, served=10)
    for nth in range(1, COUNT + 1):
        refusals = {("RCPT", nth): "550 5.1.1 who"}
        peer = ModelPeer(
            "PIPELINING",
            "CHUNKING",
            refuse=lambda verb, n, refusals=refusals: refusals.get((verb, n)),
            keeps_sender=True,
        )
        client = client_of(known)
        check(converse(client, peer, letters(COUNT)), peer)
        assert len(peer.accepted) == COUNT - 1
        assert client.learned.windows is Knowledge.WORKS


def test_time_limits_follow_the_step_that_is_waited_for() -> None:
    client = client_of(PipeliningVerdict())
    seen = []
    for said in (b"220 hi\r\n", b"250-hi\r\n250 PIPELINING\r\n"):
        seen.append(client.time_limit)
        client.receive_data(said)
        client.next_output()
    seen.append(client.time_limit)
    client.submit(letters(1)[0])
    for said in (b"250 m\r\n", b"250 r\r\n", b"354 go\r\n", b"250 kept\r\n"):
        client.next_output()
        seen.append(client.time_limit)
        client.receive_data(said)
    client.quit()
    client.next_output()
    seen.append(client.time_limit)
    assert seen == [
        (Verb.BANNER, 300),
        (Verb.EHLO, 300),
        None,
        (Verb.MAIL, 300),
        (Verb.RCPT, 300),
        (Verb.DATA, 120),
        (Verb.CONTENT, 600),
        (Verb.QUIT, 10),
    ]
    client.receive_data(b"221 bye\r\n")
    assert client.time_limit is None


def test_a_piece_of_a_reply_is_not_heard() -> None:
    client = SmtpClient(ClientOptions(ehlo_name="me.example.org"))
    for octet in b"220-hello\r\n220 there":
        client.receive_data(bytes([octet]))
    assert client.heard == 0
    client.receive_data(b"\r\n")
    assert client.heard == 1
