"""Rates, times and names of sites as people read them."""

import re

_SITE = re.compile(r"[\w.-]+(?:\+[\w.~-]+)+")


def rate_words(per_second: float | None) -> str:
    """ "20/s", "6/min"; None = "unlimited"."""
    if per_second is None:
        return "unlimited"
    if per_second >= 100:
        return f"{per_second:,.0f}/s"
    return f"{per_second:.3g}/s" if per_second >= 1 else f"{per_second * 60:.3g}/min"


def seconds_words(seconds: float) -> str:
    """ "45 s", "12 min", "2.5 h", "3.5 d"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5_400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3_600:.1f} h" if seconds < 2 * 86_400 else f"{seconds / 86_400:.1f} d"


def site_words(text: str) -> str:
    """The text with each site of several hosts as the domain they share, or as its first host."""
    return _SITE.sub(lambda found: _shared(found[0]), text)


def _shared(site: str) -> str:
    hosts = site.split("+")
    labels = [host.split(".")[::-1] for host in hosts]
    shared = []
    for same in zip(*labels, strict=False):
        if len(set(same)) > 1:
            break
        shared.append(same[0])
    if len(shared) >= 2:
        return ".".join(reversed(shared))
    return f"{hosts[0]} (+{len(hosts) - 1})"
