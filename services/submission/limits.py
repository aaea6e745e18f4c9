"""How much one client may do: messages by account, connections by address, guesses by whoever guesses,
and all of them together the memory.

Plain objects with `now` (monotonic seconds) as an argument. Wrong passwords make an address wait, and an
account from that address, twice as long each time; other addresses of the account are not locked out by
somebody else's guesses. An address of IPv6 stands for its /64, which one customer has whole. All maps are
bounded: the oldest entry goes.
"""

import ipaddress
from collections import OrderedDict

KEYS_MAX = 20_000  # addresses or accounts that are remembered; an entry is some 200 octets
FREE_FAILURES = 5  # people mistype
FIRST_LOCK_SECONDS = 2.0
LOCK_SECONDS_MAX = 900.0
FAILURE_MEMORY_SECONDS = 3_600.0  # without a failure for so long, all is forgotten
ADDRESS_FREE_FAILURES = 20  # several people behind one address
ACCOUNTS_IN_ROOM = 4  # so many at least; a quarter of 256 MB is six of the largest messages


class RateLimit:
    """So many in so many seconds for each key, all of them at once if nothing was taken before (GCRA)."""

    def __init__(self, count: int, seconds: float) -> None:
        assert count > 0
        self._step = seconds / count
        self._burst = seconds
        self._until: OrderedDict[str, float] = OrderedDict()

    def __repr__(self) -> str:
        return f"<RateLimit one in {self._step:g} s, {len(self._until)} keys>"

    def take(self, key: str, now: float) -> bool:
        """Whether one more may go now; it is counted then."""
        until = max(now, self._until.get(key, 0.0))
        if until + self._step > now + self._burst + 1e-9:
            return False
        self._until[key] = until + self._step
        self._until.move_to_end(key)
        if len(self._until) > KEYS_MAX:
            self._until.popitem(last=False)
        return True


class Connections:
    """How many are open, in all and of each address."""

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._by_address: dict[str, int] = {}
        self.open = 0

    def __repr__(self) -> str:
        return f"<Connections {self.open} of {len(self._by_address)} addresses>"

    def enter(self, address: str) -> bool:
        """Count one in; False = it is one too many and was not counted."""
        key = block_of(address)
        held = self._by_address.get(key, 0)
        if self.open >= self._most or held >= self._most_per_address:
            return False
        self.open += 1
        self._by_address[key] = held + 1
        return True

    def leave(self, address: str) -> None:
        key = block_of(address)
        self.open -= 1
        self._by_address[key] -= 1
        if not self._by_address[key]:
            del self._by_address[key]


class Room:
    """How many octets of messages a worker holds at once, while they come and until they are answered.

    Of those a quarter for one account: whoever is slow on purpose fills no more.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._by_account: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Room {self._held} of {self._most} octets>"

    def left(self, account: str) -> int:
        """For that account."""
        share = self._most // ACCOUNTS_IN_ROOM
        return min(self._most - self._held, share - self._by_account.get(account, 0))

    def lease(self, account: str) -> "Lease":
        return Lease(self, account)

    def add(self, account: str, octets: int) -> None:
        self._held += octets
        self._by_account[account] = self._by_account.get(account, 0) + octets
        if not self._by_account[account]:
            del self._by_account[account]


class Lease:
    """What one message holds of a room."""

    def __init__(self, room: Room, account: str) -> None:
        self._room = room
        self._account = account
        self._octets = 0

    def __repr__(self) -> str:
        return f"<Lease of {self._octets} octets for {self._account} in {self._room!r}>"

    def take(self, octets: int) -> bool:
        """So many more; False = there is no room, and none is taken."""
        if octets > self._room.left(self._account):
            return False
        self._octets += octets
        self._room.add(self._account, octets)
        return True

    def end(self) -> None:
        """Give all of it back; twice is no harm."""
        self._room.add(self._account, -self._octets)
        self._octets = 0


class Guesses:
    """Wrong passwords, and how long who gave them has to wait."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[int, float]] = (
            OrderedDict()
        )  # key -> count, the last one's time

    def __repr__(self) -> str:
        return f"<Guesses of {len(self._failures)} keys>"

    def wait_seconds(self, address: str, account: str, now: float) -> float:
        """0 = may try now."""
        return max(self._wait(key, free, now) for key, free in _keys(address, account))

    def failed(self, address: str, account: str, now: float) -> None:
        for key, _ in _keys(address, account):
            count, at = self._failures.get(key, (0, now))
            count = 0 if now - at > FAILURE_MEMORY_SECONDS else count
            self._failures[key] = (count + 1, now)
            self._failures.move_to_end(key)
            if len(self._failures) > KEYS_MAX:
                self._failures.popitem(last=False)

    def succeeded(self, address: str, account: str) -> None:
        """Forgets the account's failures from there, not the address's: one good account is no licence."""
        (key, _), _ = _keys(address, account)
        self._failures.pop(key, None)

    def _wait(self, key: str, free: int, now: float) -> float:
        count, at = self._failures.get(key, (0, 0.0))
        if count < free:
            return 0.0
        lock = min(LOCK_SECONDS_MAX, FIRST_LOCK_SECONDS * 2.0 ** min(count - free, 20))
        return max(0.0, at + lock - now)


def _keys(address: str, account: str) -> tuple[tuple[str, int], tuple[str, int]]:
    block = block_of(address)
    return (f"{block} {account}", FREE_FAILURES), (block, ADDRESS_FREE_FAILURES)


def block_of(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 one; other text is itself."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
