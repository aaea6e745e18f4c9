"""Whether DNS is believed when it says that a domain takes no mail: what bounces cannot be taken back.

An answer that a domain does not exist, has a null MX or points nowhere ends all mail for it. Such answers
also come from a zone that was broken for ten minutes, and from a resolver that has lost its own way out
and denies everything. So two kinds are doubted for an hour: of a domain that had a route within the last
day, and of any domain while most domains asked about are of that sort. Each counts once, however often it is
asked about: a list with three dead domains and a million addresses is no broken resolver. Mail waits
meanwhile; whoever says the same an hour later is believed. Pure; times are monotonic seconds, a restart
forgets.
"""

from typing import TypeVar

T = TypeVar("T")

GOOD_SECONDS = 86_400.0  # a route this recent makes its end doubtful
DOUBT_SECONDS = 3_600.0  # longer than most accidents in a zone file last, shorter than any expiry
DOMAINS_KEPT_MAX = 200_000  # some 120 octets each; the longest known one makes room
ASKED_KEPT = 50  # domains
ASKED_MIN = 10  # fewer say nothing about the resolver
ABSENT_SHARE_MAX = 0.5  # the oldest lists have one dead domain in five


class DnsDoubt:
    """What one engine remembers of answers about domains."""

    __slots__ = ("_asked", "_good", "_since")

    def __init__(self) -> None:
        self._good: dict[str, float] = {}  # when it last had a route
        self._since: dict[str, float] = {}  # since when it is said to take no mail, not believed yet
        self._asked: dict[str, bool] = {}  # domains, the last asked about last; whether they take no mail

    def __repr__(self) -> str:
        return f"<DnsDoubt: {len(self._good)} domains known, {len(self._since)} doubted>"

    def found(self, domain: str, now: float) -> None:
        """It has a route."""
        self._since.pop(domain, None)
        _put(self._good, domain, now, DOMAINS_KEPT_MAX)
        _put(self._asked, domain, False, ASKED_KEPT)

    def absent(self, domain: str, now: float) -> str:
        """DNS says that it takes no mail. Why that is not believed yet; "" = it is."""
        since = self._since.get(domain)
        if since is None:
            _put(self._asked, domain, True, ASKED_KEPT)
            if not self._why(domain, now):
                return ""
            since = now
            _put(self._since, domain, now, DOMAINS_KEPT_MAX)
        if now - since >= DOUBT_SECONDS:
            del self._since[domain]
            self._good.pop(domain, None)
            return ""
        return self._why(domain, now) or "it was doubted a while ago"

    def _why(self, domain: str, now: float) -> str:
        if now - self._good.get(domain, -GOOD_SECONDS) < GOOD_SECONDS:
            return "it had a route within the last day"
        asked = len(self._asked)
        if asked >= ASKED_MIN and sum(self._asked.values()) > asked * ABSENT_SHARE_MAX:
            return "the resolver says so of most domains"
        return ""


def _put(kept: dict[str, T], domain: str, value: T, kept_max: int) -> None:
    kept.pop(domain, None)
    if len(kept) >= kept_max:
        del kept[next(iter(kept))]
    kept[domain] = value
