"""What every table of a configuration shares: strictness, names, and how a refusal is worded.

A table's `__post_init__` checks what one value forbids another with `check`; the message starts with
the key, and `load` adds file, table and hint. Nothing here reads a file.
"""

import re
from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Unknown keys are refused: a misspelt key that is silently ignored is the worst kind of setting."""


def check(key: str, holds: bool, problem: str) -> None:
    """Raises ValueError unless `holds`."""
    if not holds:
        raise ValueError(f"{key}: {problem}")


def check_name(key: str, name: str) -> None:
    """Raises ValueError for what would need quotes in a log, a path or a command."""
    check(key, bool(NAME.match(name)), "use letters, digits, '.', '_' and '-', 63 at most")


def check_unique(key: str, names: Iterable[str]) -> None:
    """Raises ValueError for the first name that stands there twice."""
    for name, count in Counter(names).items():
        check(key, count == 1, f"{name!r} stands there twice")
