"""Texts with units, parsed once: "15 min", "20 MB", "100/min", "2..10", "127.0.0.1:53".

Each type is what its consumers compute with (`Duration` is a float of seconds, `Size` an int of
octets) and prints itself as a text that parses to the same value, so that what `emass config show`
prints can be pasted back into the file. A number without a unit is refused: nobody should have to
guess. A text that does not parse raises `UnitError`, whose message says how to write it.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import Generic, TypeVar

SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
OCTETS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
DURATION_SECONDS_MAX = 366 * 86_400.0  # a year: anything longer is a slip of the unit
FLOOR_SHARE = 10  # of a ceiling, where no floor is said: a tenth is slow enough for any receiver's mood
SIZE_OCTETS_MAX = 2**47  # the address space of one x86-64 process, which an LMDB map must fit into

_NUMBER_UNIT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*\Z", re.ASCII)
_RATE = re.compile(r"\s*(\d{1,12})\s*/\s*([A-Za-z]+)\s*\Z", re.ASCII)
_COUNT_RANGE = re.compile(r"\s*(\d{1,9})\s*(?:\.\.\s*(\d{1,9})\s*)?\Z", re.ASCII)


class UnitError(ValueError):
    """The text has no such unit or no such form; the message says what to write instead."""


class Duration(float):
    """Seconds; parsed from a number and ms, s, min, h or d."""

    @classmethod
    def parse(cls, text: object) -> "Duration":
        """Raises UnitError."""
        if isinstance(text, cls):
            return text
        match = _NUMBER_UNIT.match(text) if isinstance(text, str) else None
        if match is None or match[2] not in SECONDS:
            raise UnitError('is no duration: write a number and ms, s, min, h or d, as in "15 min"')
        value = float(match[1]) * SECONDS[match[2]]
        if value > DURATION_SECONDS_MAX:
            raise UnitError("is longer than a year")
        return cls(value)

    def __str__(self) -> str:
        for unit in ("d", "h", "min", "s", "ms"):
            count = float(self) / SECONDS[unit]
            if count >= 1 and count == int(count):
                return f"{int(count)} {unit}"
        return f"{float(self):.6f}".rstrip("0").rstrip(".") + " s"


class Size(int):
    """Octets; parsed from a number and B, KB, MB, GB, TB (decimal) or KiB, MiB, GiB, TiB."""

    @classmethod
    def parse(cls, text: object) -> "Size":
        """Raises UnitError."""
        if isinstance(text, cls):
            return text
        match = _NUMBER_UNIT.match(text) if isinstance(text, str) else None
        if match is None or match[2] not in OCTETS:
            raise UnitError('is no size: write a number and B, KB, MB, GB, KiB, MiB or GiB, as in "20 MB"')
        value = float(match[1]) * OCTETS[match[2]]
        if value > SIZE_OCTETS_MAX:
            raise UnitError("is larger than 128 TiB")
        return cls(round(value))

    def __str__(self) -> str:
        for unit in ("TB", "TiB", "GB", "GiB", "MB", "MiB", "KB", "KiB"):
            if self >= OCTETS[unit] and self % OCTETS[unit] == 0:
                return f"{self // OCTETS[unit]} {unit}"
        return f"{int(self)} B"


class Rate:
    """`count` in `seconds`, parsed from "100/min"; both stay, since the count is also the burst."""

    __slots__ = ("count", "seconds")
    count: int
    seconds: float

    def __init__(self, count: int, seconds: float) -> None:
        if count < 1 or seconds <= 0:
            raise UnitError("allows nothing: write at least 1")
        object.__setattr__(self, "count", count)
        object.__setattr__(self, "seconds", seconds)

    @classmethod
    def parse(cls, text: object) -> "Rate":
        """Raises UnitError."""
        if isinstance(text, cls):
            return text
        match = _RATE.match(text) if isinstance(text, str) else None
        if match is None or match[2] not in SECONDS or match[2] == "ms":
            raise UnitError('is no rate: write a whole number per s, min, h or d, as in "100/min"')
        return cls(int(match[1]), SECONDS[match[2]])

    @property
    def per_second(self) -> float:
        return self.count / self.seconds

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Rate does not change")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rate):
            return NotImplemented
        return (self.count, self.seconds) == (other.count, other.seconds)

    def __hash__(self) -> int:
        return hash((self.count, self.seconds))

    def __str__(self) -> str:
        unit = next((unit for unit, seconds in SECONDS.items() if seconds == self.seconds), None)
        return f"{self.count}/{unit}" if unit else f"{self.count}/{self.seconds} s"

    def __repr__(self) -> str:
        return f"Rate({self.count}, {self.seconds})"


Bound = TypeVar("Bound", int, Rate)


class _Range(Generic[Bound]):
    """Between `floor` and `ceiling`, both included. No Struct: the decoder would want a table for one."""

    __slots__ = ("ceiling", "floor")
    floor: Bound
    ceiling: Bound

    def __init__(self, floor: Bound, ceiling: Bound) -> None:
        object.__setattr__(self, "floor", floor)
        object.__setattr__(self, "ceiling", ceiling)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a range does not change")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Range):
            return NotImplemented
        return (self.floor, self.ceiling) == (other.floor, other.ceiling)

    def __hash__(self) -> int:
        return hash((self.floor, self.ceiling))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.floor!r}, {self.ceiling!r})"


class CountRange(_Range[int]):
    """How many, between `floor` and `ceiling`; parsed from 5 (1 to 5) or "2..10"."""

    __slots__ = ()

    def __init__(self, floor: int, ceiling: int) -> None:
        if floor < 1 or ceiling < 1:
            raise UnitError("must be at least 1")
        if floor > ceiling:
            raise UnitError(f"has a floor ({floor}) above its ceiling ({ceiling})")
        super().__init__(floor, ceiling)

    @classmethod
    def parse(cls, value: object) -> "CountRange":
        """A number is a ceiling. Raises UnitError."""
        if isinstance(value, cls):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return cls(1, value)
        match = _COUNT_RANGE.match(value) if isinstance(value, str) else None
        if match is None:
            raise UnitError('is no count: write a whole number, as in 5, or a range, as in "2..10"')
        return cls(1, int(match[1])) if match[2] is None else cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return str(self.ceiling) if self.floor == 1 else f"{self.floor}..{self.ceiling}"


class RateRange(_Range[Rate]):
    """A rate that may move; parsed from "600/min" (from a tenth of it to it) or "10/min..600/min"."""

    __slots__ = ()

    def __init__(self, floor: Rate, ceiling: Rate) -> None:
        if floor.per_second > ceiling.per_second:
            raise UnitError(f"has a floor ({floor}) above its ceiling ({ceiling})")
        super().__init__(floor, ceiling)

    @classmethod
    def up_to(cls, ceiling: Rate) -> "RateRange":
        """From a tenth of `ceiling` to it."""
        whole, rest = divmod(ceiling.count, FLOOR_SHARE)
        if rest:
            return cls(Rate(ceiling.count, ceiling.seconds * FLOOR_SHARE), ceiling)
        return cls(Rate(whole, ceiling.seconds), ceiling)

    @classmethod
    def parse(cls, value: object) -> "RateRange":
        """Raises UnitError."""
        if isinstance(value, cls):
            return value
        if isinstance(value, Rate):
            return cls.up_to(value)
        if not isinstance(value, str):
            raise UnitError('is no rate: write "100/min", or a range, as in "10/min..600/min"')
        floor, dots, ceiling = value.partition("..")
        if not dots:
            return cls.up_to(Rate.parse(value))
        return cls(Rate.parse(floor), Rate.parse(ceiling))

    def __str__(self) -> str:
        if self == RateRange.up_to(self.ceiling):
            return str(self.ceiling)
        return f"{self.floor}..{self.ceiling}"


class HostPort(str):
    """`host:port`, `[v6]:port`; the port has a default when the caller gives one."""

    __slots__ = ("host", "port")
    host: str
    port: int

    @classmethod
    def parse(cls, text: object, default_port: int | None = None) -> "HostPort":
        """Normalised to `host:port`. Raises UnitError."""
        if isinstance(text, cls):
            return text
        if not isinstance(text, str):
            raise UnitError('is no text: write "host:port"')
        match = re.match(r"\s*(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:\[\]]+))(?::(\d{1,5}))?\s*\Z", text, re.ASCII)
        if match is None:
            raise UnitError('is no host and port: write "127.0.0.1:53", "[::1]:53" or "host.example:53"')
        port = int(match[3]) if match[3] else default_port
        if port is None:
            raise UnitError('has no port: write "host:port"')
        if not 1 <= port <= 65_535:
            raise UnitError("has a port outside 1 to 65535")
        host = match[1] or match[2]
        value = cls(f"[{host}]:{port}" if match[1] else f"{host}:{port}")
        value.host, value.port = host, port
        return value

    @property
    def private(self) -> bool:
        """True for a loopback or private IP address or `localhost`; a name may lead anywhere."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_private
        except ValueError:
            return False


PARSERS: dict[type, Callable[[object], object]] = {
    kind: kind.parse for kind in (Duration, Size, Rate, CountRange, RateRange, HostPort)
}


def parse_unit(kind: type, value: object) -> object:
    """What a decoder calls for the types above. Raises UnitError."""
    return PARSERS[kind](value)
