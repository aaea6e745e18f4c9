"""Names of the bus as NATS knows them: subjects, JetStream's streams, inboxes. Pure.

A name of ours is one token of a subject: letters, digits, `-` and `_` stay, every other octet becomes `=XX`
(upper-case hex). So `events.a` is `events=2Ea`, no two names meet, and a server's permissions can be written
per stream, table, writer and member. The part `=` stands for an empty one; no other name becomes it.

    emass.s.<stream>.<writer>     entries; JetStream's stream s-<stream>
    emass.t.<table>.<key>         rows; the key's parts between "/" are tokens; stream t-<table>
    emass.b.<digest>.<part>       blobs; stream blobs
    emass.q.<subject>             questions
    emass.i.<member>.>            what a member is answered

On trouble: ValueError for a token that is none of ours, and for a name too long for JetStream.
"""

import re

STREAM_NAME_OCTETS_MAX = 255  # nats-server's JSMaxNameLen, and a folder's name
EMPTY = "="
BLOBS = "blobs"
BLOB_SUBJECTS = "emass.b.>"
QUEUE_GROUP = "answer"
INBOXES = "emass.i."

_ODD = re.compile(rb"[^A-Za-z0-9_-]")
_TOKEN = re.compile(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+")


def enc(name: str) -> str:
    """A name as one token of a subject."""
    if not name:
        return EMPTY
    return _ODD.sub(lambda octet: b"=%02X" % octet[0][0], name.encode()).decode()


def dec(token: str) -> str:
    """The name that a token stands for; ValueError."""
    if token == EMPTY:
        return ""
    if not _TOKEN.fullmatch(token):
        raise ValueError(f"{token[:80]!r} is no token of the bus")
    octets = re.sub(rb"=(..)", lambda coded: bytes([int(coded[1], 16)]), token.encode())
    return octets.decode()


def enc_key(key: str) -> str:
    """A table's key as tokens."""
    return ".".join(map(enc, key.split("/")))


def dec_key(tokens: str) -> str:
    """The key that tokens stand for; ValueError."""
    return "/".join(map(dec, tokens.split(".")))


def stream_subject(stream: str, writer: str) -> str:
    return f"emass.s.{enc(stream)}.{enc(writer)}"


def stream_subjects(stream: str) -> str:
    return f"emass.s.{enc(stream)}.*"


def stream_name(stream: str) -> str:
    return _checked(f"s-{enc(stream)}")


def writer_of(subject: str) -> str:
    """Who wrote an entry with that subject."""
    return dec(subject.rpartition(".")[2])


def table_subject(table: str, key: str) -> str:
    return f"emass.t.{enc(table)}.{enc_key(key)}"


def table_subjects(table: str) -> str:
    return f"emass.t.{enc(table)}.>"


def table_name(table: str) -> str:
    return _checked(f"t-{enc(table)}")


def key_of(subject: str) -> str:
    """The key of a row with that subject."""
    return dec_key(subject.split(".", 3)[3])


def blob_subject(digest: str, part: str) -> str:
    return f"emass.b.{digest}.{part}"


def ask_subject(subject: str) -> str:
    return f"emass.q.{enc(subject)}"


def inbox_prefix(member: str) -> str:
    return f"{INBOXES}{enc(member)}"


def _checked(name: str) -> str:
    if len(name) > STREAM_NAME_OCTETS_MAX:
        raise ValueError(f"{name[:40]}...: too long for JetStream ({STREAM_NAME_OCTETS_MAX} characters)")
    return name
