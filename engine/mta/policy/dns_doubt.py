"""Whether DNS is believed when it says that a domain takes no mail: what bounces cannot be taken back.

An answer that a domain does not exist, has a null MX or points nowhere ends all mail for it. Such answers
also come from a zone that was broken for ten minutes, and from a resolver that has lost its own way out
and denies everything. So two kinds are doubted for an hour: of a domain that had a route within the last
day, and of any domain while most answers are of that sort. Mail waits meanwhile; whoever says the same an
hour later is believed. Pure; times are monotonic seconds, a restart forgets.
"""

from collections import deque

GOOD_SECONDS = 86_400.0  # a route this recent makes its end doubtful
DOUBT_SECONDS = 3_600.0  # longer than most accidents in a zone file last, shorter than any expiry
DOMAINS_KEPT_MAX = 200_000  # some 120 octets each; the longest known one makes room
ANSWERS_KEPT = 50
ANSWERS_MIN = 10  # fewer say nothing about the resolver
ABSENT_SHARE_MAX = 0.5  # the oldest lists have one dead domain in five


class DnsDoubt:
    """What one engine remembers of answers about domains."""

    __slots__ = ("_absent", "_good", "_since")

    def __init__(self) -> None:
        self._good: dict[str, float] = {}  # when it last had a route
        self._since: dict[str, float] = {}  # since when it is said to take no mail, not believed yet
        self._absent: deque[bool] = deque(maxlen=ANSWERS_KEPT)

    def __repr__(self) -> str:
        return f"<DnsDoubt: {len(self._good)} domains known, {len(self._since)} doubted>"

    def found(self, domain: str, now: float) -> None:
        """It has a route."""
        self._since.pop(domain, None)
        _put(self._good, domain, now)
        self._absent.append(False)

    def absent(self, domain: str, now: float) -> str:
        """DNS says that it takes no mail. Why that is not believed yet; "" = it is."""
        since = self._since.get(domain)
        if since is None:
            self._absent.append(True)
            if not self._why(domain, now):
                return ""
            since = now
            _put(self._since, domain, now)
        if now - since >= DOUBT_SECONDS:
            del self._since[domain]
            self._good.pop(domain, None)
            return ""
        return self._why(domain, now) or "it was doubted a while ago"

    def _why(self, domain: str, now: float) -> str:
        if now - self._good.get(domain, -GOOD_SECONDS) < GOOD_SECONDS:
            return "it had a route within the last day"
        answers = len(self._absent)
        if answers >= ANSWERS_MIN and sum(self._absent) > answers * ABSENT_SHARE_MAX:
            return "the resolver says so of most domains"
        return ""


def _put(times: dict[str, float], domain: str, now: float) -> None:
    times.pop(domain, None)
    if len(times) >= DOMAINS_KEPT_MAX:
        del times[next(iter(times))]
    times[domain] = now
