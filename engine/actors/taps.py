"""Who listens to which sessions: taps that operators have put on, asked by each dial while one is there.

A tap takes the next N sessions that match, and keeps what they say (`mta.net.tap`) until it is fetched. One
that nobody fetches from for a while ends by itself. Nothing is kept over a restart. Touches no wire itself.
"""

from collections.abc import Mapping
from itertools import count

import trio
from msgspec import Struct

from engine.actors.memory import Place
from engine.model.reply import TransportFailure
from engine.mta.net.network import Wire
from engine.mta.net.tap import Listener, Tape, TapedWire, TapeLine

TAPS_MAX = 8
SESSIONS_MAX = 100  # of one tap
FORGOTTEN_SECONDS = 30.0  # without a reader
BODY_OCTETS_MAX = 100_000


class Match(Struct, frozen=True):
    """Which sessions; "" = any. `site` may be a host of it, `host` is an MX host's name or address.

    `domain` is a recipient domain, `pooled` what it is called over pools of its own.
    """

    site: str = ""
    source: str = ""
    host: str = ""
    domain: str = ""
    pooled: tuple[str, ...] = ()


class Tap:
    """One operator's ear."""

    def __init__(self, match: Match, tape: Tape, sessions: int, now: float) -> None:
        self.match = match
        self.tape = tape
        self.left = sessions  # that it still takes
        self.open = 0  # of its sessions
        self.fetched_at = now

    def __repr__(self) -> str:
        return f"<Tap {self.match}: {self.left} to come, {self.open} open>"


class TooManyTaps(Exception):
    """TAPS_MAX taps are on already."""


class Taps:
    """All taps of one engine. `routes` is destination -> path."""

    def __init__(self, routes: Mapping[str, str]) -> None:
        self._routes = routes
        self._taps: dict[int, Tap] = {}
        self._numbers = count(1)
        self._sessions = count(1)

    def __bool__(self) -> bool:
        return bool(self._taps)

    def __repr__(self) -> str:
        return f"<Taps: {list(self._taps.values())}>"

    def put(self, match: Match, tape: Tape, sessions: int) -> int:
        """The number of a new tap. Raises TooManyTaps."""
        self._forget()
        if len(self._taps) >= TAPS_MAX:
            raise TooManyTaps(f"{TAPS_MAX} traces run already")
        number = next(self._numbers)
        self._taps[number] = Tap(match, tape, sessions, trio.current_time())
        return number

    def fetch(self, number: int, limit: int) -> tuple[list[TapeLine], bool] | None:
        """The next lines of a tap, and whether more may come; None = there is no such tap."""
        tap = self._taps.get(number)
        if tap is None:
            return None
        tap.fetched_at = trio.current_time()
        lines = tap.tape.fetch(limit)
        return lines, bool(lines or tap.left or tap.open)

    def dropped(self, number: int) -> int:
        tap = self._taps.get(number)
        return 0 if tap is None else tap.tape.dropped

    def remove(self, number: int) -> None:
        tap = self._taps.pop(number, None)
        if tap is not None:
            tap.tape.stopped = True

    def wrap(
        self, dialled: Wire | TransportFailure, path: str, place: Place, host: str, address: str
    ) -> Wire | TransportFailure:
        """What was dialled, listened to if a tap wants it. A dial that failed is told, and is no session."""
        self._forget()
        for tap in self._taps.values():
            if tap.left and self._matches(tap.match, path, place, host, address):
                listener = Listener(tap.tape, next(self._sessions), trio.current_time)
                where = f"{host} [{address}] from {place.source}"
                if isinstance(dialled, TransportFailure):
                    listener.note(f"no connection to {where}: {dialled}")
                    return dialled
                tap.left -= 1
                tap.open += 1
                listener.note(f"connected to {where}")
                return _Counted(dialled, listener, tap)
        return dialled

    def _matches(self, match: Match, path: str, place: Place, host: str, address: str) -> bool:
        return (
            match.site in ("", place.site, *place.hosts)
            and match.source in ("", place.source)
            and match.host in ("", host, address)
            and (not match.domain or self._goes_to(path, match))
        )

    def _goes_to(self, path: str, match: Match) -> bool:
        return any(self._routes.get(each) == path for each in (match.domain, *match.pooled))

    def _forget(self) -> None:
        now = trio.current_time()
        for number, tap in list(self._taps.items()):
            if now - tap.fetched_at > FORGOTTEN_SECONDS:
                self.remove(number)


class _Counted(TapedWire):
    """A taped wire whose end its tap hears of, once."""

    def __init__(self, wire: Wire, listener: Listener, tap: Tap) -> None:
        super().__init__(wire, listener)
        self._tap: Tap | None = tap

    def close(self) -> None:
        super().close()
        if self._tap is not None:
            self._tap.open -= 1
            self._tap = None
