"""Command lines of a transaction, and what may never become one."""

import msgspec
import pytest

from engine.mta.proto.smtp_capabilities import Capabilities
from engine.mta.proto.smtp_commands import (
    DOT_SCAN_EVERY,
    check_transaction,
    local_refusal,
    mail_command,
    rcpt_command,
    stuffed,
    xtext,
)
from engine.mta.proto.smtp_options import Transaction

SAMPLED = DOT_SCAN_EVERY  # keys of this rhythm are scanned for lines that start with a dot
PLAIN = Transaction(
    key=SAMPLED, mail_from="b@example.org", recipient="u@example.net", content=b"A: b\r\n\r\nc\r\n"
)
DSN = msgspec.structs.replace(PLAIN, ret="HDRS", envid="a b+c=é", notify="FAILURE,DELAY")
UTF8 = msgspec.structs.replace(PLAIN, recipient="zoë@example.net", smtputf8=True)
WHOLE_WAY = msgspec.structs.replace(PLAIN, require_tls=True)
NULL = msgspec.structs.replace(PLAIN, mail_from="", recipient='"a b>\\""@example.net')
EIGHT_BIT = msgspec.structs.replace(PLAIN, content=b"A: b\r\n\r\n\xff\r\n", eight_bit=True)
ALL = Capabilities(size=True, dsn=True, smtputf8=True, require_tls=True)


@pytest.mark.parametrize(
    ("transaction", "capabilities", "mail", "rcpt"),
    [
        (PLAIN, Capabilities(), "MAIL FROM:<b@example.org>", "RCPT TO:<u@example.net>"),
        (PLAIN, ALL, "MAIL FROM:<b@example.org> SIZE=11", "RCPT TO:<u@example.net>"),
        (DSN, Capabilities(), "MAIL FROM:<b@example.org>", "RCPT TO:<u@example.net>"),
        (
            DSN,
            ALL,
            "MAIL FROM:<b@example.org> SIZE=11 RET=HDRS ENVID=a+20b+2Bc+3D+C3+A9",
            "RCPT TO:<u@example.net> NOTIFY=FAILURE,DELAY",
        ),
        (UTF8, ALL, "MAIL FROM:<b@example.org> SIZE=11 SMTPUTF8", "RCPT TO:<zoë@example.net>"),
        (WHOLE_WAY, ALL, "MAIL FROM:<b@example.org> SIZE=11 REQUIRETLS", "RCPT TO:<u@example.net>"),
        (
            EIGHT_BIT,
            Capabilities(size=True, eight_bit_mime=True),
            "MAIL FROM:<b@example.org> SIZE=11 BODY=8BITMIME",
            "RCPT TO:<u@example.net>",
        ),
        (NULL, Capabilities(), "MAIL FROM:<>", 'RCPT TO:<"a b>\\""@example.net>'),
    ],
)
def test_parameters_are_sent_when_wanted_and_announced(
    transaction: Transaction, capabilities: Capabilities, mail: str, rcpt: str
) -> None:
    check_transaction(transaction)
    assert mail_command(transaction, capabilities) == mail
    assert rcpt_command(transaction, capabilities) == rcpt


@pytest.mark.parametrize(
    "change",
    [
        {"recipient": "u@example.net>\r\nRCPT TO:<v@example.net"},
        {"recipient": "u@example.net\n"},
        {"recipient": "u> x@example.net"},
        {"recipient": '"a\r\nb"@example.net'},
        {"recipient": ""},
        {"recipient": "u"},
        {"recipient": "a@b@example.net"},
        {"recipient": "u" * 300 + "@example.net"},
        {"mail_from": "b@example.org> SIZE=1"},
        {"mail_from": "zoë@example.org"},
        {"content": b""},
        {"content": b"a"},
        {"content": b"a\n"},
        {"content": b".a\r\n"},
        {"content": b"a\r\n.\r\nMAIL\r\n"},
        {"content": b"a\n.\nMAIL\r\n"},
        {"ret": "HDRS SIZE=1"},
        {"notify": "NEVER,FAILURE"},
        {"notify": "FAILURE\r\nDATA"},
        {"envid": "x" * 101},
    ],
)
def test_data_that_could_speak_smtp_is_a_bug_and_raises(change: dict[str, object]) -> None:
    with pytest.raises(AssertionError):
        check_transaction(msgspec.structs.replace(PLAIN, **change))


@pytest.mark.parametrize(
    ("transaction", "capabilities", "code", "enhanced"),
    [
        (PLAIN, Capabilities(size=True, size_max=10), 552, (5, 3, 4)),
        (PLAIN, Capabilities(size=True, size_max=11), None, None),
        (PLAIN, Capabilities(size=True, size_max=0), None, None),
        (UTF8, Capabilities(), 553, (5, 6, 7)),
        (UTF8, Capabilities(smtputf8=True), None, None),
        (EIGHT_BIT, Capabilities(), 554, (5, 6, 3)),
        (EIGHT_BIT, Capabilities(eight_bit_mime=True), None, None),
        (WHOLE_WAY, ALL, None, None),
        (WHOLE_WAY, Capabilities(), 550, (5, 7, 30)),
    ],
)
def test_what_the_peer_cannot_take_is_refused_without_asking(
    transaction: Transaction, capabilities: Capabilities, code: int | None, enhanced: object
) -> None:
    reply = local_refusal(transaction, capabilities)
    assert (reply and reply.code, reply and reply.enhanced) == (code, enhanced)


def test_content_that_may_begin_lines_with_dots_is_stuffed_behind_data() -> None:
    dotted = msgspec.structs.replace(PLAIN, content=b".a\r\n..\r\nb.\r\n.\r\n", dotted=True)
    check_transaction(dotted)
    assert stuffed(dotted.content) == b"..a\r\n...\r\nb.\r\n..\r\n"
    assert stuffed(PLAIN.content) == PLAIN.content


def test_xtext_leaves_plain_text_alone() -> None:
    assert xtext("b-abc.123@x") == "b-abc.123@x"
    assert xtext("\r\n") == "+0D+0A"
