"""TLS sessions that may be resumed, so that the next connection to a host needs no certificate again.

A session is kept under the host, its port and what was demanded of it, and is only ever offered to a
handshake with the same demand: one that was verified never serves one that was not, nor the other way,
and a demand whose TLSA records changed starts anew. Bounded in number and in age, since resuming checks
no certificate. The latest session of a key wins: TLS 1.3 servers send fresh tickets all the time. A
connection that fails with one has it forgotten. Touches nothing; lost on a crash, which costs handshakes.
"""

import ssl
from collections import OrderedDict
from collections.abc import Hashable

SESSIONS_MAX = 4_000  # hosts; one session with its certificate and ticket is some 4 kB
SESSION_SECONDS_MAX = 3_600.0  # an expired or withdrawn certificate is trusted no longer than this


class TlsSessions:
    """`taken` and `resumed` count how often one was offered, and how often the peer agreed."""

    __slots__ = ("_kept", "_sessions_max", "resumed", "taken")

    def __init__(self, sessions_max: int = SESSIONS_MAX) -> None:
        self._kept: OrderedDict[Hashable, tuple[ssl.SSLSession, float]] = OrderedDict()
        self._sessions_max = sessions_max
        self.taken = 0
        self.resumed = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"<TlsSessions {len(self._kept)} kept, {self.resumed:,} of {self.taken:,} resumed>"

    def take(self, key: Hashable, now: float) -> ssl.SSLSession | None:
        """A session to offer; it stays, since several connections may resume from one."""
        found = self._kept.get(key)
        if found is None:
            return None
        session, until = found
        if now >= until:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        self.taken += 1
        return session

    def keep(self, key: Hashable, session: ssl.SSLSession, now: float) -> None:
        """Offer this one from now on. The peer says how long it is good (`timeout`), we say at most."""
        seconds = min(float(session.timeout), SESSION_SECONDS_MAX)
        self._kept[key] = session, now + seconds
        self._kept.move_to_end(key)
        if len(self._kept) > self._sessions_max:
            self._kept.popitem(last=False)

    def forget(self, key: Hashable) -> None:
        self._kept.pop(key, None)
