"""The letter that benches send: personalised, with links, as many octets as asked for. Always the same."""

import random

from engine.model.content import Content, DkimIdentity, MessageClass

DOMAIN = "bench.example"
FRAME_OCTETS = 2_200  # headers, boundaries and the lines that hold the merge fields
PARTS_FACTOR = 2.05  # a paragraph stands there once as HTML, once as text
_FILLER = (
    "garden letter morning water silver window river market paper stone summer bridge evening quiet "
    "village harbour orchard lantern meadow journey winter kitchen singer mountain feather copper"
)


def bench_content(
    campaign: int,
    message_bytes: int,
    *,
    dkim: tuple[DkimIdentity, ...] = (),
    workspace: str = "default",
    message_class: MessageClass = MessageClass.BULK,
) -> Content:
    """A content whose composed messages have about `message_bytes` octets; its rows are `bench_row`s."""
    words, known = random.Random(7), _FILLER.split()
    filler = []
    octets = max(0, message_bytes - FRAME_OCTETS)
    number = 0
    while octets > 0:
        number += 1
        line = " ".join(words.choice(known) for _ in range(24))
        link = f' <a href="https://{DOMAIN}/page/{number}">Read more</a>' if number % 5 == 0 else ""
        paragraph = f"<p>{line}.{link}</p>\n"
        filler.append(paragraph)
        octets -= int(len(paragraph) * PARTS_FACTOR)
    html = (
        "<html><body><h1>Hello {{ first_name }}!</h1>\n"
        "<p>Dear {{ first_name }} {{ last_name }}, here is what is new in {{ city }}.</p>\n"
        + "".join(filler)
        + "<p>Your code is {{ code }}.</p>\n"
        '<p><a href="{{ unsubscribe_url }}">Unsubscribe</a></p></body></html>\n'
    )
    if message_class is MessageClass.TRANSACTIONAL:  # nothing to unsubscribe from
        html = html.replace('<p><a href="{{ unsubscribe_url }}">Unsubscribe</a></p>', "")
    return Content(
        campaign=campaign,
        name="bench",
        message_class=message_class,
        workspace=workspace,
        from_address=f"news@{DOMAIN}",
        from_name="The Bench",
        subject="{{ first_name }}, your letter",
        html=html,
        fields=("first_name", "last_name", "city", "code"),
        return_path_domain=f"bounce.{DOMAIN}",
        sending_domain=DOMAIN,
        list_id=f"news.{DOMAIN}",
        list_help=f"https://{DOMAIN}/help",
        unsubscribe_host=f"go.{DOMAIN}",
        tracking_host=f"go.{DOMAIN}",
        dkim=dkim,
    )


def bench_row(number: int) -> tuple[str, ...]:
    """The merge row of the recipient with this number."""
    return (f"Anna{number}", "Lindqvist", "Bad Homburg", f"{number:012d}")
