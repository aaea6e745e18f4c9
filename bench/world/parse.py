"""The arguments of MAIL and RCPT, and which extension each parameter belongs to. Strict, pure."""

import re

_PATH = rb'<((?:"(?:[^"\\<>\r\n]|\\.)*"@)?[^<>"\s]*)>'
MAIL = re.compile(rb"FROM:" + _PATH + rb"(?: (.+))?\Z", re.IGNORECASE)
RCPT = re.compile(rb"TO:(?=<[^>])" + _PATH + rb"(?: (.+))?\Z", re.IGNORECASE)

# Parameter -> the EHLO keyword that allows it (RFC 1870, 6152, 6531, 3461).
MAIL_PARAMETERS = {"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "RET": "DSN", "ENVID": "DSN"}
RCPT_PARAMETERS = {"NOTIFY": "DSN", "ORCPT": "DSN"}


def parse_parameters(text: bytes) -> dict[str, str]:
    """`SIZE=1 BODY=8BITMIME` -> {"SIZE": "1", "BODY": "8BITMIME"}; a value is "" where there is none."""
    words = (word.partition("=") for word in text.decode("utf-8", "backslashreplace").split())
    return {name.upper(): value for name, _, value in words}
