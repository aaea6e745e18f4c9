"""What a decoder of msgspec raises for octets that somebody else wrote.

Its own errors are not all: text that is no UTF-8 is a UnicodeDecodeError, and what is nested too deeply a
RecursionError. Whoever decodes what came over a bus, a pipe or a disk that others write catches all three;
an entry that crashes its reader would come again after each restart.
"""

from typing import TypeVar

import msgspec

UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

T = TypeVar("T")


def decoded(row: bytes | None, kind: type[T]) -> T | None:
    """A row of JSON as `kind`; None where there is none, or one that says nothing to us."""
    try:
        return None if row is None else msgspec.json.decode(row, type=kind)
    except UNDECODABLE:
        return None
