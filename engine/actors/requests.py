"""What people ask of a running engine, as it crosses the bus, and what answers it.

`commands` decodes a `Request` and hands it to the `Act` of that name. A file with acts of its own has a
function `acts(parts, peer)` that gives them by name; `commands` lists those files. An act that makes no
sense raises `operating.Refused`.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from engine.runtime.ref import Ref

CHANGES_MAX = 1_000


class Request(Struct, frozen=True):
    """`path` may be a provider for `lift`; a rate is messages a second; `seconds` None = for good.

    `said` is an override's match and values as in `emass.toml`, `number` one that stands. Commands of other
    files find theirs in `asked`.
    """

    command: str
    address: str = ""
    campaign: int = 0
    path: str = ""
    knob: str = ""
    value: float = 0.0
    seconds: float | None = None
    reason: str = ""
    author: str = ""
    subject: str = ""
    subject_value: str = ""
    limit: int = CHANGES_MAX
    said: dict[str, str] = {}
    number: int = 0
    asked: dict[str, Any] = {}  # what one command alone understands


Peer = Callable[[str], Ref[Any]]
Act = Callable[[Request], Awaitable[dict[str, Any]]]
