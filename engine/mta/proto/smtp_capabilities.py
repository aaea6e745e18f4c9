"""What a peer announces in its answer to EHLO, parsed once.

Unknown keywords and malformed arguments are ignored, never an error: a capability counts only when it
is said clearly. Sources: SIZE RFC 1870, PIPELINING 2920, CHUNKING 3030, STARTTLS 3207, DSN 3461,
AUTH 4954, 8BITMIME 6152, SMTPUTF8 6531, ENHANCEDSTATUSCODES 2034, LIMITS 9422, REQUIRETLS 8689.
"""

from msgspec import Struct

from engine.model.reply import Reply

_NUMBER_DIGITS_MAX = 20  # RFC 1870 3


class Capabilities(Struct, frozen=True, kw_only=True):
    """The default is a peer that was greeted with HELO: nothing.

    `size_max` 0 = no fixed limit is known. `mail_max`, `rcpt_max`, `rcpt_domain_max` None = no limit.
    """

    pipelining: bool = False
    chunking: bool = False
    starttls: bool = False
    eight_bit_mime: bool = False
    smtputf8: bool = False
    dsn: bool = False
    enhanced_status_codes: bool = False
    require_tls: bool = False
    size: bool = False
    size_max: int = 0
    auth: frozenset[str] = frozenset()
    mail_max: int | None = None
    rcpt_max: int | None = None
    rcpt_domain_max: int | None = None


_FLAGS = {
    "PIPELINING": "pipelining",
    "CHUNKING": "chunking",
    "STARTTLS": "starttls",
    "8BITMIME": "eight_bit_mime",
    "SMTPUTF8": "smtputf8",
    "DSN": "dsn",
    "ENHANCEDSTATUSCODES": "enhanced_status_codes",
    "REQUIRETLS": "require_tls",
}


def parse_capabilities(reply: Reply) -> Capabilities:
    """Read a positive answer to EHLO. Its first line is the greeting."""
    flags: set[str] = set()
    size_max = 0
    auth: set[str] = set()
    limits: dict[str, int] = {}
    for line in reply.lines[1:]:
        keyword, *arguments = line.upper().split() or [""]
        if keyword in _FLAGS:
            flags.add(_FLAGS[keyword])
        elif keyword == "SIZE":
            flags.add("size")
            size_max = _number(arguments[0]) or 0 if arguments else 0
        elif keyword == "AUTH":
            auth.update(arguments)
        elif keyword.startswith("AUTH="):  # the form of old Outlook's servers
            auth.update((keyword.removeprefix("AUTH="), *arguments))
        elif keyword == "LIMITS":
            limits.update(_limits(arguments))
    return Capabilities(
        pipelining="pipelining" in flags,
        chunking="chunking" in flags,
        starttls="starttls" in flags,
        eight_bit_mime="eight_bit_mime" in flags,
        smtputf8="smtputf8" in flags,
        dsn="dsn" in flags,
        enhanced_status_codes="enhanced_status_codes" in flags,
        require_tls="require_tls" in flags,
        size="size" in flags,
        size_max=size_max,
        auth=frozenset(auth),
        mail_max=limits.get("MAILMAX"),
        rcpt_max=limits.get("RCPTMAX"),
        rcpt_domain_max=limits.get("RCPTDOMAINMAX"),
    )


def _limits(arguments: list[str]) -> dict[str, int]:
    """RFC 9422 4: name=value, values from 1; what is unknown or malformed is ignored."""
    found = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        number = _number(value)
        if number:
            found[name] = number
    return found


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()) or len(text) > _NUMBER_DIGITS_MAX:
        return None
    return int(text)
