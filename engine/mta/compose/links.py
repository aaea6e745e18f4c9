"""Finds the links of an HTML template and points them at the tracking host.

Only static http(s) targets of `<a>`, `<area>` and Outlook's `<v:...>` shapes count: each occurrence
gets the next number, and the landing server looks the target up by (campaign, number), so its
redirect is never open. Links with dynamic parts, other schemes, anchors and everything on the
unsubscribe host stay as the author wrote them (RFC 8058: an unsubscribe URL is never tracked).
Line numbers of the source do not change. Pure; nothing here raises.
"""

import html
import re
from urllib.parse import urlsplit

from engine.mta.compose.lexer import Mask

_TAG = re.compile(r"<(?:a|area|v:\w+)(?=[\s/])(?:[^>\"']|\"[^\"]*\"|'[^']*')*>", re.IGNORECASE)
_HREF = re.compile(r"(?<=[\s\"'/])href\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>\"']+))", re.IGNORECASE)
_BODY_END = re.compile(r"</body\s*>", re.IGNORECASE)


def find_links(source: str, tracking_host: str, unsubscribe_host: str, token: str) -> tuple[str, list[str]]:
    """The template with its links rewritten (when there is a tracking host), and the targets by number.

    `token` is the text that stands for the message's click token.
    """
    mask = Mask(source)
    targets: list[str] = []

    def rewrite_href(href: re.Match[str]) -> str:
        group = href.lastindex or 0
        written = href[group]
        if mask.has_marker(written):
            return href[0]
        target = html.unescape(written).strip()
        if not _is_trackable(target, unsubscribe_host):
            return href[0]
        targets.append(target)
        if not tracking_host:
            return href[0]
        kept_lines = "\n" * href[0].count("\n")
        before = href[0][: href.start(group) - href.start()].rstrip("\"'")
        return f'{before}"https://{tracking_host}/c/{token}/{len(targets) - 1}"{kept_lines}'

    text = _TAG.sub(lambda tag: _HREF.sub(rewrite_href, tag[0], count=1), mask.text)
    return mask.restore(text), targets


def _is_trackable(target: str, unsubscribe_host: str) -> bool:
    try:
        parts = urlsplit(target)
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.netloc)
        and parts.hostname != (unsubscribe_host or None)
    )


def add_pixel(source: str, tracking_host: str, token: str) -> str:
    """The template with an image of one pixel before the last `</body>`, else at the end."""
    pixel = f'<img src="https://{tracking_host}/o/{token}.gif" width="1" height="1" alt="" border="0">'
    mask = Mask(source)
    ends = list(_BODY_END.finditer(mask.text))
    at = ends[-1].start() if ends else len(mask.text)
    return mask.restore(mask.text[:at] + pixel + mask.text[at:])
