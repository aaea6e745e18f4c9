"""Sample contents, keys and envelopes for tests and benches of compose."""

import hashlib
from typing import Any

from engine.model.content import Content
from engine.model.envelope import Envelope
from engine.mta.compose import TokenKeys
from engine.mta.compose.token import KINDS

NOW = 1_795_500_000.25  # a moment in November 2026
FIELDS = ("first_name", "city", "plan", "balance", "code")
ROW = ("Grete", "Bad Homburg", "Premium", "1,204.50", "XK-2231-A")
_PARAGRAPH = (
    '<p style="margin:0 0 16px;font:16px/24px Arial,sans-serif;color:#222">Our workshop has been busy all '
    "month: new bindings, a better glue, and a paper that takes ink without bleeding. Come and see it, or "
    "read the long story with all the pictures on our pages; we answer every question that you send.</p>\n"
)


def token_keys(*, current: int = 3, ids: tuple[int, ...] = (3,)) -> TokenKeys:
    return TokenKeys(
        current,
        {
            key_id: {kind: hashlib.sha256(f"{key_id}{kind}".encode()).digest() for kind in KINDS}
            for key_id in ids
        },
    )


def content(**changes: Any) -> Content:
    """A small marketing letter; any field of Content may be changed."""
    facts: dict[str, Any] = {
        "campaign": 77,
        "name": "autumn",
        "from_address": "news@example.org",
        "from_name": "Example Workshop",
        "subject": "Hello {{ first_name }}",
        "html": "<html><body><p>Dear {{ first_name }},</p>\n</body></html>\n",
        "fields": FIELDS,
        "return_path_domain": "bounce.example.org",
        "list_id": "news.example.org",
        "list_name": "Example News",
        "unsubscribe_host": "mail.example.org",
    }
    return Content(**(facts | changes))


def envelope(recipient: str = "grete@example.net", row: tuple[str, ...] = ROW, **changes: Any) -> Envelope:
    facts: dict[str, Any] = {
        "spool_id": 1,
        "campaign": 77,
        "subscriber": 4711,
        "recipient": recipient,
        "domain": recipient.rpartition("@")[2],
        "row": row,
        "accepted_at": NOW - 60,
        "expires_at": NOW + 86_400,
    }
    return Envelope(**(facts | changes))


def big_letter(**changes: Any) -> Content:
    """The letter of the performance budget: about 10 KB, five values, ten tracked links, text and HTML."""
    links = "".join(
        f'<p><a href="https://shop.example.org/p/{n}?from=mail&amp;nr={n}">Item {n}</a></p>\n'
        for n in range(10)
    )
    html = (
        "<!doctype html>\n<html><head><title>News</title></head><body>\n"
        "<h1>Hello {{ first_name }}</h1>\n" + _PARAGRAPH * 7 + "<p>Your plan: <b>{{ plan }}</b>, balance "
        "{{ balance }} EUR.</p>\n" + _PARAGRAPH * 7 + links + "<p>See you in {{ city }}. Your code is "
        "<code>{{ code }}</code>.</p>\n"
        + _PARAGRAPH
        * 4
        + '<p><a href="{{ unsubscribe_url }}">Unsubscribe</a></p>\n'
        "</body></html>\n"
    )
    text = (
        "Hello {{ first_name }}\n\n"
        + "Our workshop has been busy all month, and there is much to tell.\n" * 20
        + "\nYour plan: {{ plan }}, balance {{ balance }} EUR.\nSee you in {{ city }}. "
        "Your code is {{ code }}.\n"
        "\nUnsubscribe: {{ unsubscribe_url }}\n"
    )
    facts: dict[str, Any] = {
        "subject": "{{ first_name }}, new at the workshop",
        "html": html,
        "text": text,
        "tracking_host": "click.example.org",
    }
    return content(**(facts | changes))
