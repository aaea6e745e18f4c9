"""How many connections stand to each remote address, over all sites and sources of this engine.

Many sites may share the servers behind them, and none of them knows of the others: a receiver counts us by
its own address. Only addresses with a connection (or a dial under way) are kept, so there are never more
than connections. Touches nothing; a crash of a connection must give its slot back (`Slot.leave` in its
`finally`), or the address keeps one place less until the next start.
"""


class Slot:
    """One place at an address, from before the dial until the session closes."""

    __slots__ = ("_address", "_counts")

    def __init__(self, counts: dict[str, int], address: str) -> None:
        self._counts: dict[str, int] | None = counts
        self._address = address

    def __repr__(self) -> str:
        return f"<Slot at {self._address}{'' if self._counts is not None else ', left'}>"

    def leave(self) -> None:
        """Give it back. A second time is no matter."""
        counts, self._counts = self._counts, None
        if counts is None:
            return
        left = counts[self._address] - 1
        if left:
            counts[self._address] = left
        else:
            del counts[self._address]


class RemoteAddresses:
    """`limit` is for one address."""

    __slots__ = ("_counts", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._counts: dict[str, int] = {}

    def __repr__(self) -> str:
        most = max(self._counts.values(), default=0)
        return f"<RemoteAddresses: {len(self._counts)}, at most {most}/{self.limit} at one>"

    def count(self, address: str) -> int:
        return self._counts.get(address, 0)

    def enter(self, address: str, *, exempt: bool = False) -> Slot | None:
        """A place, or None when the address is at its limit. `exempt`: a relay of our own has none."""
        count = self._counts.get(address, 0)
        if count >= self.limit and not exempt:
            return None
        self._counts[address] = count + 1
        return Slot(self._counts, address)
