"""Transactions into command lines (RFC 5321 4.1.1), with the parameters that this peer announced.

Decides what a MAIL and a RCPT carry, and which messages a peer cannot take at all (too large, non-ASCII
addresses without SMTPUTF8, 8-bit content without 8BITMIME, TLS required on the whole way without
REQUIRETLS), so that they are refused here without a question on the wire.
Text that could end a command line or leave its angle brackets is a bug of ours and raises.
"""

import re

from engine.model.reply import Reply
from engine.mta.proto.smtp_capabilities import Capabilities
from engine.mta.proto.smtp_options import Transaction

MAILBOX_OCTETS_MAX = 254  # RFC 5321 4.5.3.1.3 less the angle brackets
DOT_SCAN_EVERY = 64  # messages
ENVID_CHARS_MAX = 100  # RFC 3461 4.4

_MAILBOX = re.compile(
    r'(?:[^\x00-\x20<>@"\\\x7f]+|"(?:[^\x00-\x1f"\\\x7f]|\\[\x20-\x7e])*")@[^\x00-\x20<>@\\"\x7f]+'
)
_NOT_XTEXT = re.compile(rb"[^!-*,-<>-~]")  # RFC 3461 4: all but printable ASCII without + and =
_NOTIFY = re.compile(r"|NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY))*")


def check_transaction(transaction: Transaction) -> None:
    """Assert what compose promises: no address or content may speak SMTP on its own."""
    recipient, mail_from = transaction.recipient, transaction.mail_from
    assert _MAILBOX.fullmatch(recipient), "the recipient is no mailbox"
    assert not mail_from or _MAILBOX.fullmatch(mail_from), "the return path is no mailbox"
    assert max(len(recipient), len(mail_from)) <= MAILBOX_OCTETS_MAX, "a mailbox is too long"
    assert transaction.smtputf8 or (recipient.isascii() and mail_from.isascii()), "needs smtputf8"
    content = transaction.content
    assert content.endswith(b"\r\n"), "content ends in the middle of a line"
    if not transaction.dotted:
        _check_dots(transaction)
    assert transaction.ret in ("", "FULL", "HDRS"), "RET is FULL or HDRS"
    assert _NOTIFY.fullmatch(transaction.notify), "NOTIFY is NEVER alone, or SUCCESS, FAILURE, DELAY"
    assert len(transaction.envid) <= ENVID_CHARS_MAX, "the envelope id is too long"


def _check_dots(transaction: Transaction) -> None:
    content = transaction.content
    assert not content.startswith(b"."), "content starts with a dot"
    # Compose makes no such line and proves it by properties. Looking for one here costs 20 us of 10 KB,
    # a tenth of the whole engine, so this last guard samples.
    assert transaction.key % DOT_SCAN_EVERY or b"\n." not in content, "a content line starts with a dot"


def stuffed(content: bytes) -> bytes:
    """Content as it goes behind DATA (RFC 5321 4.5.2): one dot more before a line that begins with one."""
    more = content.replace(b"\r\n.", b"\r\n..")
    return b"." + more if more.startswith(b".") else more


def local_refusal(transaction: Transaction, capabilities: Capabilities) -> Reply | None:
    """What the peer would say if it were asked, where its capabilities already tell."""
    if 0 < capabilities.size_max < len(transaction.content):
        text = f"the message has {len(transaction.content)} octets, the peer takes {capabilities.size_max}"
        return Reply(552, (5, 3, 4), (text,))  # RFC 1870 6.1
    if transaction.smtputf8 and not capabilities.smtputf8:
        return Reply(553, (5, 6, 7), ("the peer takes no non-ASCII addresses",))  # RFC 6531 3.5
    if transaction.eight_bit and not capabilities.eight_bit_mime:
        # RFC 6152 3: convert or return. Signed mail that is not ours is never rewritten.
        return Reply(554, (5, 6, 3), ("the message has octets beyond ASCII, the peer takes none",))
    if transaction.require_tls and not capabilities.require_tls:
        return Reply(
            550, (5, 7, 30), ("the message requires TLS on its whole way, the peer does not promise it",)
        )
    return None


def mail_command(transaction: Transaction, capabilities: Capabilities) -> str:
    """MAIL with SIZE, SMTPUTF8, REQUIRETLS, RET and ENVID as announced and wanted; no CRLF."""
    command = f"MAIL FROM:<{transaction.mail_from}>"
    if capabilities.size:
        command += f" SIZE={len(transaction.content)}"
    if transaction.eight_bit:
        command += " BODY=8BITMIME"
    if transaction.smtputf8:
        command += " SMTPUTF8"
    if transaction.require_tls:
        command += " REQUIRETLS"
    if capabilities.dsn:
        if transaction.ret:
            command += f" RET={transaction.ret}"
        if transaction.envid:
            command += f" ENVID={xtext(transaction.envid)}"
    return command


def rcpt_command(transaction: Transaction, capabilities: Capabilities) -> str:
    """RCPT with NOTIFY where it is announced and wanted; no CRLF."""
    command = f"RCPT TO:<{transaction.recipient}>"
    if capabilities.dsn and transaction.notify:
        command += f" NOTIFY={transaction.notify}"
    return command


def xtext(text: str) -> str:
    """RFC 3461 4: what is not plain becomes +HH."""
    return _NOT_XTEXT.sub(lambda match: b"+%02X" % match.group()[0], text.encode()).decode("ascii")
