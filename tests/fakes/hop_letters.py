"""A thousand people and four letters that mail servers and mail readers have broken before.

Each letter comes with what its reader is meant to see, computed here without any code of ours:
minijinja renders the template as text, `email` of the standard library reads the message. Names, cities
and notes are ASCII, umlauts, Japanese, emoji and right-to-left text, some of it shaped like markup, like
template syntax or like SMTP's final dot. `intended` says what one person's letter holds,
`read_letter` what a message that arrived holds; the two must be equal.
"""

import re
from email import message_from_bytes, policy
from email.message import EmailMessage

from minijinja import Environment
from msgspec import Struct

from engine.model.content import Content, DkimAlgorithm, DkimIdentity
from engine.model.envelope import ChunkEntry

DOMAIN = "letters.example"
UNSUBSCRIBE_HOST = "news.letters.example"
RECIPIENT_DOMAINS = 40
LONG_OCTETS = 60_000  # a long newsletter; most clients show it whole, Gmail clips at 102 KB
WIDE_CHARS = 2_000  # twice what a line may have on the wire (RFC 5322 2.1.1)
FIELDS = ("first_name", "city", "note")
RSA = DkimIdentity(DOMAIN, "r2026", "rsa")
ED25519 = DkimIdentity(DOMAIN, "e2026", "ed25519", DkimAlgorithm.ED25519_SHA256)

_NAMES = (
    "Ann", "Jürgen Größe", "花子", "Zoë 🌷", "שרה", "يوسف", "O'Brien & Sons", "👩‍👩‍👧‍👦 Family", "Łukasz",
    "佐藤 太郎とその長い名前の家族一同より心をこめて", "Мария", "x" * 70, "{{ 7 * 7 }}",
    "=?utf-8?q?no?=", "Müller <b>",
)  # fmt: skip
_CITIES = ("", "Bad Homburg", "京都", "Αθήνα", "القاهرة", "Zürich", "חיפה", "San Francisco 🌉", "São Paulo")
_NOTES = (
    "plain words",
    ".",
    "..two dots",
    "first line\nsecond line\n.\nfourth line",
    "<script>alert('&amp;')</script> & \"quoted\"",
    "From here on, nothing",
    "\u202eright to left\u202c and עברית in between",
    "=3D stays, =\nand so does this ",
    "桜" * 60,
    "🎉🎊" * 30,
    "\ttab and trailing blanks   ",
    "",
)

_PARAGRAPH = (
    "We print on a hand press, letter by letter, and answer every question that you send; sizes, weights "
    "and prices stand beside each sheet. 紙も自分で。\n"
)
_LONG = _PARAGRAPH * (LONG_OCTETS // len(_PARAGRAPH.encode()) + 1)
_WIDE = ("wide words and no end, " * 100)[:WIDE_CHARS]


class Letter(Struct, frozen=True):
    """Templates, and the template of the text a reader sees (that of `text`, or derived from `html`)."""

    campaign: int
    name: str
    subject: str
    html: str | None
    text: str | None
    reads: str


_NORMAL_HTML = """<!doctype html>
<html><head><title>News</title></head><body>
<h1>Hello {{ first_name }}</h1>
<p>The weather{% if city %} in {{ city }}{% endif %} is <b>fine</b> &amp; dry.</p>
<ul><li>{{ note }}</li><li>Größe: 日本 🌷</li></ul>
<p><a href="https://letters.example/a?b=1&amp;c=2">Read on</a></p>
<p><a href="{{ unsubscribe_url }}">Unsubscribe</a></p>
</body></html>
"""
# By hand, from the HTML above. The underline is as long as a name of 8 letters makes the heading.
_NORMAL_READS = """Hello {{ first_name }}
==============

The weather{% if city %} in {{ city }}{% endif %} is fine & dry.

- {{ note }}
- Größe: 日本 🌷

Read on (https://letters.example/a?b=1&c=2)

Unsubscribe ({{ unsubscribe_url }})
"""
_LONG_TEXT = "Dear {{ first_name }},\n\nthis is long.\n{{ note }}\n\nLeave: {{ unsubscribe_url }}\n"
_LONG_HTML = (
    "<html><body><p>Dear {{ first_name }},</p>\n" + f"<p>{_LONG}</p>\n<p>{{{{ note }}}}</p></body></html>\n"
)
_DOTS = """.
Dear {{ first_name }},
..
.{{ note }}
{{ note }}.
.
From {{ city }} with blanks at the end  \x20
.hidden = equals =20
{{ note }}
.
"""
_WIDE_TEXT = _WIDE + " {{ first_name }} " + _WIDE + "\n{{ note }}" + _WIDE
_WIDE_HTML = f"<p>{_WIDE}{{{{ note }}}}{_WIDE}<i>{{{{ first_name }}}}</i>{'ü' * WIDE_CHARS}</p>"

LETTERS = (
    Letter(11, "normal", "{{ first_name }}, news from {{ city }}", _NORMAL_HTML, None, _NORMAL_READS),
    Letter(12, "long", "Sixty kilobytes for {{ first_name }}", _LONG_HTML, _LONG_TEXT, _LONG_TEXT),
    Letter(13, "dots", "Die größten Punkte .", None, _DOTS, _DOTS),
    Letter(14, "wide", "Wide: " + "long words " * 15 + "{{ city }}", _WIDE_HTML, _WIDE_TEXT, _WIDE_TEXT),
)
SHARES = {"normal": 0.4, "long": 0.1, "dots": 0.25, "wide": 0.25}


class Reading(Struct, frozen=True):
    """What a reader sees. `html` with its quotes and slashes in one spelling, None for text alone."""

    to: str
    subject: str
    text: str
    html: str | None


def content_of(letter: Letter) -> Content:
    """The letter as a signed campaign with one-click unsubscribe."""
    return Content(
        campaign=letter.campaign,
        name=letter.name,
        from_address=f"press@{DOMAIN}",
        from_name="Die Handpresse 活版",
        subject=letter.subject,
        html=letter.html,
        text=letter.text,
        fields=FIELDS,
        return_path_domain=f"bounce.{DOMAIN}",
        sending_domain=DOMAIN,
        list_id=f"press.{DOMAIN}",
        list_name="The Press",
        list_help=f"https://{DOMAIN}/help",
        unsubscribe_host=UNSUBSCRIBE_HOST,
        dkim=(RSA, ED25519),
    )


def entries_of(letter: Letter, messages: int) -> tuple[ChunkEntry, ...]:
    """The letter's part of `messages` people, each with an address of their own."""
    count = round(messages * SHARES[letter.name])
    entries = []
    for number in range(1, count + 1):
        # Steps without a common divisor: every name meets every city and every note.
        row = (_NAMES[number % len(_NAMES)], _CITIES[number % len(_CITIES)], _NOTES[number % len(_NOTES)])
        domain = f"d{number % RECIPIENT_DOMAINS}.example"
        entries.append(ChunkEntry(number, f"{letter.name}{number}@{domain}", row))
    return tuple(entries)


def intended(letter: Letter, entry: ChunkEntry, unsubscribe_url: str) -> Reading:
    """What this person is meant to read."""
    values = dict(zip(FIELDS, entry.row, strict=True)) | {"unsubscribe_url": unsubscribe_url}
    subject = _render(letter.subject, values, html=False)
    return Reading(
        to=entry.recipient,
        subject=subject.strip(" "),
        text=_render(letter.reads, values, html=False),
        html=None if letter.html is None else _one_spelling(_render(letter.html, values, html=True)),
    )


def read_letter(message: bytes) -> tuple[EmailMessage, Reading]:
    """What the standard library makes of a message."""
    parsed = message_from_bytes(message, policy=policy.default)
    assert isinstance(parsed, EmailMessage)
    assert not any(part.defects for part in parsed.walk())
    return parsed, Reading(
        to=str(parsed["To"]),
        subject=str(parsed["Subject"]),
        text=_body(parsed, "plain") or "",
        html=None if (html := _body(parsed, "html")) is None else _one_spelling(html),
    )


def unsubscribe_url_of(message: EmailMessage) -> str:
    """The https URI of List-Unsubscribe (RFC 8058 3.1)."""
    found = re.match(r"<(https://[^>]+)>", str(message["List-Unsubscribe"]))
    assert found is not None
    return found[1]


def _body(message: EmailMessage, kind: str) -> str | None:
    part = message.get_body((kind,))
    if part is None:
        return None
    text = part.get_content()
    assert isinstance(text, str)
    return text.replace("\r\n", "\n")


def _render(template: str, values: dict[str, str], *, html: bool) -> str:
    environment = Environment(
        auto_escape_callback=lambda _name: "html" if html else None, keep_trailing_newline=True
    )
    rendered: str = environment.render_str(template, "letter", **values)
    return rendered


def _one_spelling(html: str) -> str:
    """Quotes and slashes may be escaped or not; `<`, `>` and `&` may not differ."""
    for char, spellings in {"'": "&#39;|&#x27;", '"': "&#34;|&quot;", "/": "&#x2f;"}.items():
        html = re.sub(spellings, char, html)
    return html
