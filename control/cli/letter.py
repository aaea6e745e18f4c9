"""From options and files to a checked `Content`: everything that can be wrong with a letter is found here.

Templates are compiled and their placeholders held against the CSV's columns before anything is
sent; mistakes are `InputError`s that name the file (or option) and line. Only columns that the letter
uses become `fields`, so an export with forty columns does not fill the spool with thirty-eight.
"""

import re
import secrets
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from control.cli.columns import field_name
from control.cli.csv_source import CsvSource
from control.cli.errors import InputError
from control.cli.people import Person
from engine.keyring import TOKEN_KINDS, derive_token_key
from engine.model.address import Address, AddressError, parse_address
from engine.model.content import Content
from engine.model.envelope import Envelope
from engine.mta.compose.errors import ContentError, RenderError
from engine.mta.compose.message import CompiledContent, compile_content
from engine.mta.compose.template import add_template, environment
from engine.mta.compose.token import TokenKeys

LETTER_OCTETS_MAX = 5_000_000  # a message is at most 10 MB, and quoted-printable may double a text

_SENDER = re.compile(r"\s*(?:(?P<name>[^<>]*?)\s*<(?P<named>[^<>]+)>|(?P<bare>[^<>]+?))\s*\Z")


class Sender(Struct, frozen=True):
    """Who a letter is from; `name` may be empty."""

    name: str
    address: Address


def parse_sender(text: str, option: str = "--from") -> Sender:
    """`ann@example.org`, `Ann <ann@example.org>` or `"Ann, Ltd" <...>`. Raises InputError."""
    match = _SENDER.match(text)
    if match is None:
        raise InputError(f'{option} {text}: write an address or "Name <address>"')
    name = match["name"] or ""
    if len(name) >= 2 and name[0] == name[-1] == '"':
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    if not name.isprintable():
        raise InputError(f"{option}: the name holds a control character")
    try:
        return Sender(name, parse_address((match["named"] or match["bare"]).strip()))
    except AddressError as error:
        raise InputError(f"{option} {text}: address {error}") from None


def read_letter(path: Path) -> str:
    """The text of a template file: UTF-8, with or without byte order mark. Raises InputError."""
    try:
        with path.open("rb") as file:
            data = file.read(LETTER_OCTETS_MAX + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: does not exist") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > LETTER_OCTETS_MAX:
        raise InputError(f"{path}: is larger than {LETTER_OCTETS_MAX:,} octets")
    if not data.strip():
        raise InputError(f"{path}: is empty")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} line {line}: is not UTF-8; save it as UTF-8") from None


def default_list_id(csv_path: Path, domain: str) -> str:
    """RFC 2919: a label for the list, then the sender's domain. The same file name, the same list."""
    return f"{slug(csv_path.stem)}.{domain}"


def slug(text: str) -> str:
    """Letters, digits and hyphens of a name, for file names and list ids; `list` if none are left."""
    plain = re.sub(r"[^a-z0-9]+", "-", field_name(text).replace("_", "-")).strip("-")
    return plain[:40].strip("-") or "list"


def check_content(content: Content, source: CsvSource, files: dict[str, Path]) -> Content:
    """Compile the letter against the CSV's columns; returns it with `fields` = the columns it uses.

    `files` maps the parts "html" and "text" to where they were read from. Raises InputError.
    """
    full = replace(content, fields=source.fields)
    compile_letter(full, files)
    used: set[str] = set()
    for part, text in (("subject", content.subject), ("html", content.html), ("text", content.text)):
        if text is not None:
            used |= add_template(environment(str, html=False), part, text)
    return replace(full, fields=tuple(field for field in source.fields if field in used))


def render_sample(content: Content, person: Person, now: float) -> bytes:
    """The message one person would get, unsigned and with throw-away tokens. Raises InputError."""
    compiled = compile_letter(replace(content, dkim=()), {})
    envelope = Envelope(
        spool_id=1,
        campaign=content.campaign,
        subscriber=person.record,
        recipient=person.recipient,
        domain=person.domain,
        row=person.row,
        accepted_at=now,
        expires_at=now,
    )
    try:
        return compiled.compose(envelope, now).finish()
    except RenderError as error:
        raise InputError(f"line {person.line} of the list cannot be rendered: {error}") from error


def compile_letter(content: Content, files: dict[str, Path]) -> CompiledContent:
    """Compile for checking: with token keys that nobody keeps. Raises InputError."""
    master = secrets.token_bytes(32)
    tokens = TokenKeys(0, {0: {kind: derive_token_key(master, 0, kind) for kind in TOKEN_KINDS}})
    try:
        return compile_content(content, tokens)
    except ContentError as error:
        place = str(files.get(error.part) or "--" + error.part.replace("_", "-"))
        if error.part == "text" and content.text is None and "html" in files:
            place = f"{files['html']} (its text part, which is made from the HTML)"
        line = f" line {error.line}" if error.line else ""
        hint = f" ({error.hint})" if error.hint else ""
        raise InputError(f"{place}{line}: {error.message}{hint}") from error
