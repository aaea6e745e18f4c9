"""EHLO answers, said clearly and not so clearly."""

import pytest

from engine.model.reply import Reply
from engine.mta.proto.smtp_capabilities import Capabilities, parse_capabilities


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), Capabilities()),
        (("PIPELINING", "chunking", "StartTLS"), Capabilities(pipelining=True, chunking=True, starttls=True)),
        (("8BITMIME", "SMTPUTF8", "DSN"), Capabilities(eight_bit_mime=True, smtputf8=True, dsn=True)),
        (("requireTLS",), Capabilities(require_tls=True)),
        (("ENHANCEDSTATUSCODES",), Capabilities(enhanced_status_codes=True)),
        (("SIZE",), Capabilities(size=True)),
        (("SIZE 0",), Capabilities(size=True)),
        (("SIZE 35882577",), Capabilities(size=True, size_max=35_882_577)),
        (("SIZE lots",), Capabilities(size=True)),
        (("SIZE -5",), Capabilities(size=True)),
        (("SIZE " + "9" * 5000,), Capabilities(size=True)),
        (("AUTH PLAIN login",), Capabilities(auth=frozenset({"PLAIN", "LOGIN"}))),
        (("AUTH=LOGIN PLAIN",), Capabilities(auth=frozenset({"PLAIN", "LOGIN"}))),
        (("LIMITS MAILMAX=20 RCPTMAX=100",), Capabilities(mail_max=20, rcpt_max=100)),
        (("LIMITS RCPTDOMAINMAX=1 NEW=7",), Capabilities(rcpt_domain_max=1)),
        (("LIMITS MAILMAX=0 RCPTMAX=x MAILMAX",), Capabilities()),
        (("", "   ", "X-UNKNOWN 1 2", "PIPELINING2", "\ufffd"), Capabilities()),
    ],
)
def test_a_capability_counts_when_it_is_said_clearly(lines: tuple[str, ...], expected: Capabilities) -> None:
    assert parse_capabilities(Reply(250, None, ("mx.example.net greets you", *lines))) == expected


def test_the_greeting_line_announces_nothing() -> None:
    assert parse_capabilities(Reply(250, None, ("PIPELINING",))) == Capabilities()
