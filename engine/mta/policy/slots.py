"""Connections that all sites of one provider share over one source: who may open, who gives one up.

Providers count connections by sender address, not by the MX set that a domain happens to have: ten
thousand hosted domains are ten thousand sites and one door. `Slots` counts what is open per path and
remembers who waits, in order. While others wait with nothing, a path keeps at most its fair part, and a
path that has as much as its part gives a place up after `SLICE_SECONDS`, so that a limit of 2 serves
three hundred sites in turn. Pure; without a limit everybody may open.
"""

SLICE_SECONDS = 5.0  # a connection's set-up is worth some 0.5 s: a tenth is lost to taking turns


class Slots:
    """The places of one (source, provider)."""

    __slots__ = ("_open", "_since", "_waiting", "limit")

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._open: dict[str, int] = {}  # by path
        self._since: dict[str, float] = {}  # when a path got its first place
        self._waiting: dict[str, None] = {}  # in order of arrival

    def __repr__(self) -> str:
        of = "" if self.limit is None else f" of {self.limit}"
        return f"<Slots {self.taken}{of} open on {len(self._open)} paths, {len(self._waiting)} waiting>"

    @property
    def taken(self) -> int:
        return sum(self._open.values())

    def may_open(self, path: str) -> int:
        """How many more connections `path` may open now. One that gets 0 stands in line from now on."""
        if self.limit is None:
            return 1_000_000
        free = self.limit - self.taken
        mine = self._open.get(path, 0)
        if free > 0 and not mine:  # those before us in line have the first right to what is free
            before = 0
            for other in self._waiting:
                if other == path:
                    break
                before += other not in self._open
            free -= before
        elif free > 0:
            free -= sum(other not in self._open for other in self._waiting if other != path)
            free = min(free, max(0, self._part(path) - mine) if self._waiting.keys() - {path} else free)
        if free <= 0:
            self._waiting.setdefault(path)
            return 0
        return free

    def opened(self, path: str, now: float) -> None:
        self._open[path] = self._open.get(path, 0) + 1
        self._since.setdefault(path, now)
        self._waiting.pop(path, None)

    def closed(self, path: str) -> None:
        left = self._open.get(path, 0) - 1
        if left > 0:
            self._open[path] = left
        else:
            self._open.pop(path, None)
            self._since.pop(path, None)

    def hand_over(self, path: str, to: "Slots") -> None:
        """`path` is of another provider now: what it has open counts there."""
        count, since = self._open.pop(path, 0), self._since.pop(path, 0.0)
        self._waiting.pop(path, None)
        if count:
            to._open[path], to._since[path] = count, since

    def content(self, path: str) -> None:
        """`path` has nothing to do: it leaves the line."""
        self._waiting.pop(path, None)

    def must_yield(self, path: str, now: float) -> bool:
        """Whether `path` should end one of its connections, because others have none."""
        if self.limit is None or self.taken < self.limit:
            return False
        if not any(other not in self._open for other in self._waiting):
            return False
        mine = self._open.get(path, 0)
        if mine > self._part(path):
            return True
        return mine > 0 and now - self._since[path] >= SLICE_SECONDS

    def _part(self, path: str) -> int:
        """The fair part of one path that has or wants connections."""
        assert self.limit is not None
        takers = len(self._open.keys() | self._waiting.keys() | {path})
        return max(1, self.limit // takers)
