"""Rules that operators set at run time: kept in the bus table `overrides`, so that they survive a restart.

An override is a rule of `[[engine.site]]`, as its texts were said, with who set it, why, and until when.
It is stronger than every file where it matches the same. One key for each, its number. Decides nothing:
`ruling` sets and ends them. A row that does not decode, or is no rule by now, is left where it is and
said once in the log: another version may have written it. Touches: the bus table.
"""

import math

import msgspec
import structlog
from msgspec import Struct

from engine.bus.api import NodeBus
from engine.config.load import ConfigError, parse_rule
from engine.config.shaping import MATCH_KEYS, ShapingRule
from engine.model.decoding import UNDECODABLE
from engine.mta.policy.shaping import describe_match

TABLE = "overrides"
OVERRIDES_MAX = 1_000  # more than anybody sets by hand; what is permanent belongs into a file

log = structlog.get_logger("overrides")


class Override(Struct, frozen=True):
    """`said` is match and values as in `emass.toml`; it holds until wall seconds `until`."""

    number: int
    said: dict[str, str]
    until: float | None  # None = until somebody removes it
    reason: str
    author: str

    @property
    def values(self) -> dict[str, str]:
        """What it says where it matches."""
        return {key: text for key, text in self.said.items() if key not in MATCH_KEYS}

    def is_over(self, wall: float) -> bool:
        return wall >= (math.inf if self.until is None else self.until)


class TooManyOverrides(Exception):
    """OVERRIDES_MAX overrides stand already."""


class Overrides:
    """All overrides of one engine, oldest first. What it says is what the table holds."""

    def __init__(self, bus: NodeBus) -> None:
        self._bus = bus
        self._standing: dict[int, tuple[Override, ShapingRule]] = {}
        self._last = 0  # a number is not used again, were it one of a row that we do not understand
        for key, value in bus.items(TABLE).items():
            self._last = max(self._last, int(key) if key.isdecimal() else 0)
            try:
                override = msgspec.json.decode(value, type=Override)
                self._standing[override.number] = override, parse_rule(override.said, "override")
            except (*UNDECODABLE, ConfigError) as error:
                log.warning("an override does not decode", key=key, error=str(error))
        self._standing = dict(sorted(self._standing.items()))

    def __repr__(self) -> str:
        return f"<Overrides: {', '.join(map(str, self._standing)) or 'none'}>"

    def all(self) -> list[Override]:
        return [override for override, _ in self._standing.values()]

    def rules(self, wall: float) -> list[ShapingRule]:
        """What holds at that time, the strongest last."""
        return [rule for override, rule in self._standing.values() if not override.is_over(wall)]

    def rule(self, override: Override) -> ShapingRule:
        """The rule of one that stands."""
        return self._standing[override.number][1]

    async def add(
        self, said: dict[str, str], rule: ShapingRule, until: float | None, reason: str, author: str
    ) -> Override:
        """`rule` is what `said` parses to. Durable on return. Raises TooManyOverrides."""
        if len(self._standing) >= OVERRIDES_MAX:
            raise TooManyOverrides(f"{OVERRIDES_MAX:,} overrides stand already: remove some first")
        self._last += 1
        override = Override(self._last, said, until, reason, author)
        await self._bus.put(TABLE, str(override.number), msgspec.json.encode(override))
        self._standing[override.number] = override, rule
        return override

    async def remove(self, override: Override) -> None:
        """Durable on return."""
        await self._bus.delete(TABLE, str(override.number))
        self._standing.pop(override.number, None)


def describe_said(rule: ShapingRule, values: dict[str, str]) -> str:
    """Match and values of a rule, as an operator would say it."""
    return f"{describe_match(rule)}: " + ", ".join(f"{key} {text}" for key, text in values.items())
