"""The receiver's side of SMTP without sockets: sequences, pipelining, chunks, content, troubles."""

import pytest

from bench.world.answers import Step
from bench.world.manners import (
    PLAIN,
    Gate,
    Manners,
    Moment,
    Reputation,
    Starttls,
    Trouble,
    bounced,
    busy,
    hang_up,
    refused_content,
    shutting_down,
)
from bench.world.provider import Provider
from bench.world.session import Session

ENVELOPE = b"MAIL FROM:<s@from.test>\r\nRCPT TO:<anna@box.test>\r\nDATA\r\n"
MESSAGE = b"Message-ID: <1@from.test>\r\n\r\nHello\r\n..dot\r\n.\r\n"


class Peer:
    """A session, and what its provider saw."""

    def __init__(self, manners=PLAIN, *, hello=b"EHLO client.test\r\n", domains=frozenset(), keep=True):
        self.messages = []
        self.provider = Provider("p", manners, domains=domains, sink=self.messages.extend, keep_content=keep)
        self.now = 0.0
        self.connect(hello)

    def connect(self, hello=b"EHLO client.test\r\n"):
        self.session = Session(self.provider, "mx.box.test", "127.0.0.1")
        self.banner = self.say(b"")
        self.greeting = self.say(hello) if hello else ""

    def say(self, octets):
        """The replies, as one text, to octets that come in one read."""
        self.session.receive(octets)
        self.session.advance(self.now)
        self.messages += self.session.accepted
        self.session.accepted.clear()
        replies = bytes(self.session.output).decode()
        self.session.output.clear()
        return replies

    def codes(self, octets):
        return [line[:3] for line in self.say(octets).splitlines() if line[3] == " "]

    @property
    def step(self):
        return self.session.next_step

    @property
    def faults(self):
        return dict(self.provider.tally.protocol_errors)

    @property
    def counts(self):
        return self.provider.tally.counts


def test_a_message_is_taken_and_kept_as_it_was_before_dot_stuffing():
    peer = Peer()
    assert peer.banner == "220 mx.box.test ESMTP\r\n"
    assert peer.codes(ENVELOPE) == ["250", "250", "354"]
    assert peer.codes(MESSAGE) == ["250"]
    [message] = peer.messages
    assert (message.recipient, message.mail_from, message.message_id) == (
        "anna@box.test",
        "s@from.test",
        "<1@from.test>",
    )
    assert message.content == b"Message-ID: <1@from.test>\r\n\r\nHello\r\n.dot\r\n"
    assert message.octets == len(message.content)
    assert not peer.faults


def test_the_extensions_announced_are_those_of_the_manners():
    everything = Manners(chunking=True, smtputf8=True, dsn=True, starttls=Starttls.OFFERED, limits_mailmax=20)
    lines = {line[4:] for line in Peer(everything).greeting.splitlines()}
    assert lines == {
        "mx.box.test", "PIPELINING", "SIZE 26214400", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES",
        "CHUNKING", "STARTTLS", "LIMITS MAILMAX=20",
    }  # fmt: skip
    nothing = Manners(pipelining=False, size=False, eight_bit=False, enhanced_codes=False)
    assert Peer(nothing).greeting == "250 mx.box.test\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_octets_may_come_in_any_pieces(size):
    peer = Peer()
    wire = ENVELOPE
    assert peer.codes(wire) == ["250", "250", "354"]
    wire = MESSAGE + ENVELOPE
    codes = [code for at in range(0, len(wire), size) for code in peer.codes(wire[at : at + size])]
    assert codes == ["250", "250", "250", "354"]
    assert peer.codes(b".\r\n") == ["250"]
    assert peer.messages[1].content == b""
    assert not peer.faults


def test_messages_follow_each_other_in_one_write():
    peer = Peer()
    peer.say(ENVELOPE)
    for _ in range(3):
        assert peer.codes(MESSAGE + ENVELOPE) == ["250", "250", "250", "354"]
    assert len(peer.messages) == 3
    assert not peer.faults


def test_like_haraka_it_takes_the_message_and_refuses_what_stands_behind_the_dot():
    peer = Peer(Manners(pipelining_across=False))
    peer.say(ENVELOPE)
    assert peer.codes(MESSAGE + ENVELOPE) == ["250", "503", "503", "503"]
    assert len(peer.messages) == 1
    assert peer.codes(ENVELOPE) == ["250", "250", "354"]
    assert peer.counts["pipelining_refused"] == 3
    assert not peer.faults


@pytest.mark.parametrize(
    ("octets", "codes", "fault"),
    [
        (b"RCPT TO:<a@b.test>\r\n", ["503"], "rcpt_out_of_sequence"),
        (b"DATA\r\n", ["503"], "data_out_of_sequence"),
        (b"MAIL FROM:<a@b.test>\r\nMAIL FROM:<a@b.test>\r\n", ["250", "503"], "nested_mail"),
        (b"MAIL FROM:<a@b.test>\r\nDATA\r\n", ["250", "503"], "data_out_of_sequence"),
        (b"MAIL FROM: <a@b.test>\r\n", ["501"], "mail_syntax"),
        (b"MAIL FROM:<a@b.test> DSN=1\r\n", ["555"], "parameter_unannounced"),
        (b"MAIL FROM:<a@b.test> SMTPUTF8\r\n", ["555"], "parameter_unannounced"),
        ("MAIL FROM:<ü@b.test>\r\n".encode(), ["553"], "utf8_address_unannounced"),
        (b"MAIL FROM:<a@b.test>\r\nRCPT TO:<>\r\n", ["250", "501"], "rcpt_syntax"),
        (b"WHAT\r\n", ["500"], "unknown_command"),
        (b"NOOP\nNOOP\r\n", ["500"], "unknown_command"),
        (b"NOOP x\ny\r\n", ["500"], "control_in_command"),
        (b"NOOP\r\nNOOP\r\n", ["250", "250"], "pipelined_behind_noop"),
        (b"BDAT 3\r\nabc", ["502", ], "bdat_unannounced"),
        (b"STARTTLS\r\n", ["502"], "starttls_unannounced"),
        (ENVELOPE + MESSAGE, ["250", "250", "354", "250"], "pipelined_behind_data"),
        (b"x" * 3000, ["500"], "command_too_long"),
    ],
)  # fmt: skip
def test_what_a_correct_client_never_sends_is_counted(octets, codes, fault):
    peer = Peer()
    assert peer.codes(octets) == codes
    assert fault in peer.faults or (fault == "unknown_command" and "control_in_command" in peer.faults)


def test_mail_before_ehlo_and_talk_before_the_banner_are_faults():
    peer = Peer(hello=b"")
    assert peer.codes(b"MAIL FROM:<a@b.test>\r\n") == ["503"]
    assert peer.faults == {"mail_before_hello": 1}
    early = Peer(Manners(tarpit={"banner": 1.0}), hello=b"")
    assert early.step is Step.WAIT
    assert early.say(b"EHLO a\r\n").startswith("220 ")
    assert early.faults == {"talked_before_banner": 1}


def test_pipelining_where_none_was_announced_is_a_fault():
    peer = Peer(Manners(pipelining=False))
    assert peer.codes(ENVELOPE) == ["250", "250", "354"]
    assert peer.faults == {"pipelined_unannounced": 2}
    helo = Peer(hello=b"HELO a\r\n")
    helo.say(ENVELOPE)
    assert helo.faults == {"pipelined_unannounced": 2}


def test_what_a_pipelining_client_cannot_avoid_is_no_fault():
    peer = Peer(Manners(troubles=(bounced(1.0),)))
    assert peer.codes(ENVELOPE) == ["250", "550", "554"]
    assert peer.codes(b"RSET\r\n" + ENVELOPE) == ["250", "250", "550", "554"]
    refused = Peer(Manners(troubles=(Trouble("no", Moment.MAIL, 1.0, "550 5.7.1 No"),)))
    assert refused.codes(ENVELOPE) == ["550", "503", "554"]
    assert not peer.faults
    assert not refused.faults


def test_a_flight_of_bdat_units_is_answered_command_by_command():
    peer = Peer(Manners(chunking=True, troubles=(Trouble("no", Moment.RCPT, 0, "550 5.1.1 No", only="bad"),)))
    good = b"MAIL FROM:<s@f.test>\r\nRCPT TO:<a@b.test>\r\nBDAT 7 LAST\r\n.\r\nab\r\nRSET\r\n"
    bad = good.replace(b"<a@", b"<bad@")
    assert peer.codes(good + bad + good) == ["250"] * 4 + ["250", "550", "554", "250"] + ["250"] * 4
    assert [message.content for message in peer.messages] == [b".\r\nab\r\n", b".\r\nab\r\n"]
    assert not peer.faults


def test_chunks_add_up_and_an_empty_last_one_ends_the_message():
    peer = Peer(Manners(chunking=True))
    peer.say(b"MAIL FROM:<s@f.test>\r\nRCPT TO:<a@b.test>\r\n")
    assert peer.codes(b"BDAT 3\r\nab\r") == ["250"]
    assert peer.codes(b"BDAT 1\r\n\nBDAT 0 LAST\r\n") == ["250", "250"]
    assert peer.messages[0].content == b"ab\r\n"
    assert not peer.faults


def test_data_after_bdat_and_a_chunk_without_a_size_are_faults():
    peer = Peer(Manners(chunking=True))
    assert peer.codes(ENVELOPE[:-6] + b"BDAT 2\r\nxx") == ["250", "250", "250"]
    assert peer.codes(b"DATA\r\n") == ["503"]
    assert peer.codes(b"BDAT much\r\n") == ["501"]
    assert peer.step is Step.CLOSE
    assert peer.faults == {"data_after_bdat": 1, "bdat_syntax": 1}


def test_a_message_that_is_too_large_is_refused_announced_or_not():
    peer = Peer(Manners(message_octets_max=100, chunking=True))
    assert peer.codes(b"MAIL FROM:<s@f.test> SIZE=101\r\n") == ["552"]
    assert peer.codes(ENVELOPE) == ["250", "250", "354"]
    assert peer.codes(b"x" * 50 + b"\r\n") == []
    assert peer.codes((b"x" * 50 + b"\r\n") * 20) == []
    assert peer.codes(b".\r\n") == ["552"]
    assert peer.codes(ENVELOPE[:-6] + b"BDAT 101 LAST\r\n" + b"x" * 101) == ["250", "250", "552"]
    assert not peer.messages
    assert not peer.faults


def test_eight_bit_and_utf8_need_their_parameter():
    peer = Peer(Manners(smtputf8=True))
    text = "ü\r\n.\r\n".encode()
    peer.say(ENVELOPE.replace(b">\r\nR", b"> BODY=8BITMIME\r\nR"))
    assert peer.codes(text) == ["250"]
    envelope = "MAIL FROM:<s@f.test> SMTPUTF8\r\nRCPT TO:<jürgen@box.test>\r\nDATA\r\n"
    assert peer.codes(envelope.encode()) == ["250", "250", "354"]
    peer.say(text)
    assert peer.messages[1].recipient == "jürgen@box.test"
    assert not peer.faults
    peer.say(ENVELOPE)
    peer.say(text)
    assert peer.faults == {"eight_bit_unannounced": 1}


def test_dsn_parameters_are_taken_where_announced():
    peer = Peer(Manners(dsn=True))
    envelope = (
        b"MAIL FROM:<s@f.test> RET=HDRS ENVID=q\r\nRCPT TO:<a@b.test> NOTIFY=FAILURE ORCPT=rfc822;a@b\r\n"
    )
    assert peer.codes(envelope) == ["250", "250"]
    assert not peer.faults


def test_the_connection_ends_with_421_when_its_messages_are_used_up():
    peer = Peer(Manners(messages_per_connection=2))
    peer.say(ENVELOPE)
    assert peer.codes(MESSAGE + ENVELOPE) == ["250", "250", "250", "354"]
    assert peer.codes(MESSAGE + ENVELOPE) == ["250", "421"]
    assert peer.step is Step.CLOSE
    assert len(peer.messages) == 2
    assert not peer.faults


def test_going_beyond_an_announced_mailmax_is_a_fault():
    peer = Peer(Manners(limits_mailmax=1))
    peer.say(ENVELOPE)
    assert peer.codes(MESSAGE + ENVELOPE) == ["250", "421"]
    assert peer.faults == {"mailmax_exceeded": 1}


def test_too_many_connections_get_421_for_a_banner():
    peer = Peer(Manners(connections_max=1), hello=b"")
    peer.provider.opened("127.0.0.1")
    peer.provider.opened("127.0.0.1")
    peer.connect(b"")
    assert peer.banner.startswith("421 4.7.0")
    assert peer.step is Step.CLOSE


def test_a_rate_reply_that_is_a_421_closes_the_connection_and_is_counted():
    peer = Peer(Manners(rate_per_minute=60, rate_burst=1, rate_reply="421 4.7.28 Rate limit"))
    peer.say(ENVELOPE)
    assert peer.codes(MESSAGE + ENVELOPE) == ["250", "421"]
    assert peer.step is Step.CLOSE
    assert (peer.counts["attempts"], peer.counts["rate_refusals"]) == (2, 1)
    assert peer.provider.timeline.statistics() == {"begin": 0, "accepted": [1], "refused": [1]}


def test_any_other_rate_reply_goes_on():
    peer = Peer(Manners(rate_per_minute=60, rate_burst=1))
    peer.say(ENVELOPE)
    assert peer.codes(MESSAGE + ENVELOPE) == ["250", "451", "503", "554"]
    assert peer.step is Step.READ
    assert not peer.faults


@pytest.mark.parametrize("gate", list(Gate))
def test_a_blocked_source_is_turned_away_at_its_gate_until_the_block_is_over(gate):
    reputation = Reputation(throttle_refusals=1, block_refusals=1, block_seconds=30.0, block_gate=gate)
    peer = Peer(Manners(rate_per_minute=60, rate_burst=1, reputation=reputation))
    peer.say(ENVELOPE)
    assert peer.codes(MESSAGE + ENVELOPE)[1] == "451"
    peer.now = 29.0
    peer.connect()
    replies = peer.banner + peer.greeting + (peer.say(ENVELOPE) if gate is not Gate.BANNER else "")
    assert "reputation" in replies
    assert ("250 2.1.0" in replies) == (gate is Gate.RCPT)
    assert peer.counts["blocked_refusals"] == 1
    peer.now = 60.0
    peer.connect()
    assert peer.codes(ENVELOPE) == ["250", "250", "354"]
    assert peer.provider.statistics()["blocks"] == 1


def test_the_answer_to_the_content_slows_down_with_each_connection():
    peer = Peer(Manners(tarpit_per_connection=0.1, tarpit={"content": 1.0}))
    peer.provider.opened("127.0.0.1")
    peer.provider.opened("127.0.0.1")
    peer.say(ENVELOPE)
    assert peer.say(MESSAGE) == ""
    assert (peer.step, peer.session.wait_seconds) == (Step.WAIT, pytest.approx(1.2))
    assert peer.codes(b"") == ["250"]


def test_greylisting_defers_the_first_attempt_and_takes_the_later_one():
    peer = Peer(Manners(greylist_seconds=3.0))
    assert peer.codes(ENVELOPE) == ["250", "451", "554"]
    peer.now = 3.0
    assert peer.codes(b"RSET\r\n" + ENVELOPE) == ["250", "250", "250", "354"]


@pytest.mark.parametrize(
    ("trouble", "envelope", "content", "step"),
    [
        (busy(1.0, 9.0), ["250", "450", "554"], None, Step.READ),
        (hang_up(Moment.MAIL, 1.0), [], None, Step.ABORT),
        (hang_up(Moment.RCPT, 1.0), ["250"], None, Step.ABORT),
        (hang_up(Moment.DATA, 1.0), ["250", "250"], None, Step.ABORT),
        (hang_up(Moment.CONTENT, 1.0), ["250", "250", "354"], [], Step.ABORT),
        (hang_up(Moment.REPLY, 1.0), ["250", "250", "354"], [], Step.ABORT),
        (hang_up(Moment.REPLY, 1.0, accepts=True), ["250", "250", "354"], [], Step.ABORT),
        (refused_content(1.0), ["250", "250", "354"], ["554"], Step.READ),
        (shutting_down(Moment.MAIL, 1.0), ["421"], None, Step.CLOSE),
        (shutting_down(Moment.RCPT, 1.0), ["250", "421"], None, Step.CLOSE),
        (shutting_down(Moment.DATA, 1.0), ["250", "250", "421"], None, Step.CLOSE),
        (shutting_down(Moment.CONTENT, 1.0), ["250", "250", "354"], ["421"], Step.CLOSE),
        (shutting_down(Moment.REPLY, 1.0), ["250", "250", "354"], ["421"], Step.CLOSE),
    ],
)
def test_each_trouble_strikes_at_its_moment(trouble, envelope, content, step):
    peer = Peer(Manners(troubles=(trouble,)))
    assert peer.codes(ENVELOPE) == envelope
    if content is not None:
        assert peer.codes(MESSAGE) == content
    assert peer.step is step
    assert len(peer.messages) == trouble.accepts
    assert not any(message.answered for message in peer.messages)
    assert peer.provider.tally.troubles == {trouble.kind: 1}
    assert not peer.faults


def test_a_hang_up_inside_the_content_comes_before_its_end():
    peer = Peer(Manners(troubles=(hang_up(Moment.CONTENT, 1.0),)))
    peer.say(ENVELOPE)
    assert peer.codes(b"Message-ID") == []
    assert peer.step is Step.ABORT


def test_a_tarpit_holds_the_answer_to_its_verb_and_sends_those_before():
    peer = Peer(Manners(tarpit={"rcpt": 0.5, "content": 2.0}))
    assert peer.codes(ENVELOPE) == ["250"]
    assert (peer.step, peer.session.wait_seconds) == (Step.WAIT, 0.5)
    assert peer.codes(b"") == ["250", "354"]
    assert peer.codes(MESSAGE) == []
    assert (peer.step, peer.session.wait_seconds) == (Step.WAIT, 2.0)
    assert peer.codes(b"") == ["250"]
    assert not peer.faults


def test_starttls_forgets_what_was_said_before():
    peer = Peer(Manners(starttls=Starttls.REQUIRED))
    assert peer.codes(b"MAIL FROM:<a@b.test>\r\n") == ["530"]
    assert peer.codes(b"STARTTLS\r\n") == ["220"]
    assert peer.step is Step.TLS
    peer.session.started_tls()
    assert peer.codes(b"MAIL FROM:<a@b.test>\r\n") == ["503"]
    assert "STARTTLS" not in peer.say(b"EHLO a\r\n")
    assert peer.codes(ENVELOPE) == ["250", "250", "354"]
    peer.say(MESSAGE)
    assert peer.messages[0].tls


@pytest.mark.parametrize(
    ("manner", "code", "step"),
    [(Starttls.UNAVAILABLE, "454", Step.READ), (Starttls.GARBLED, "220", Step.GARBLE)],
)
def test_starttls_can_be_announced_and_fail(manner, code, step):
    peer = Peer(Manners(starttls=manner))
    assert "STARTTLS" in peer.greeting
    assert peer.codes(b"STARTTLS\r\n") == [code]
    assert peer.step is step


def test_an_old_server_knows_no_ehlo_and_no_enhanced_codes():
    peer = Peer(Manners(esmtp=False, enhanced_codes=False))
    assert peer.greeting.startswith("502 ")
    assert peer.say(b"HELO a\r\n") == "250 mx.box.test\r\n"
    assert peer.say(b"MAIL FROM:<a@b.test>\r\n") == "250 Ok\r\n"


def test_a_silent_banner_says_nothing():
    assert Peer(Manners(banner=None), hello=b"").banner == ""


def test_mail_for_other_domains_is_refused():
    peer = Peer(domains=frozenset({"else.test"}))
    assert peer.codes(ENVELOPE) == ["250", "550", "554"]
    assert peer.counts["relay_denied"] == 1
