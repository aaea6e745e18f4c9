"""Replies and failures as people read them."""

import pytest

from engine.model.reply import FailureKind, Reply, TransportFailure, Verb


@pytest.mark.parametrize(
    ("code", "positive", "transient", "permanent"),
    [
        (220, True, False, False),
        (354, True, False, False),
        (421, False, True, False),
        (550, False, False, True),
    ],
)
def test_the_first_digit_tells(code: int, positive: bool, transient: bool, permanent: bool) -> None:
    reply = Reply(code, None, ("text",))
    assert (reply.positive, reply.transient, reply.permanent) == (positive, transient, permanent)


def test_a_reply_reads_as_one_line() -> None:
    assert str(Reply(550, (5, 1, 1), ("No such", "user"))) == "550 5.1.1 No such user"
    assert str(Reply(250, None, ("Ok",))) == "250 Ok"


def test_a_failure_says_where_and_why() -> None:
    assert str(TransportFailure(FailureKind.TIMEOUT, Verb.DATA)) == "timeout at data"
    assert str(TransportFailure(FailureKind.TLS, Verb.TLS, "expired")) == "tls at tls: expired"
