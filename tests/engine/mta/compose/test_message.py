"""Whole messages, judged by the standard library's parser: structure, text, and no way in for values."""

import re
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.content import Content, MessageClass
from engine.mta.compose import CompiledContent, ContentError, RenderError, compile_content, verify
from engine.mta.compose.headers import one_line
from engine.mta.compose.mime import normalise
from tests.engine.mta.compose.test_mime import AWKWARD
from tests.fakes.letters import NOW, big_letter, content, envelope, token_keys

KEYS = token_keys()
DOMAIN = "bounce.example.org"


def compiled(letter: Content) -> CompiledContent:
    return compile_content(letter, KEYS, random=bytes(range(32)))


def message_of(letter: CompiledContent, **changes: object) -> bytes:
    message = letter.compose(envelope(**changes), NOW).finish()  # type: ignore[arg-type]
    assert_wire(message)
    return message


def parsed(message: bytes) -> EmailMessage:
    return cast(EmailMessage, message_from_bytes(message.replace(b"\r\n", b"\n"), policy=default))


def assert_wire(message: bytes) -> None:
    assert message.isascii()
    assert message.endswith(b"\r\n")
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\0", message)
    head, _, body = message.partition(b"\r\n\r\n")
    assert all(len(line) <= 998 for line in head.split(b"\r\n"))
    assert all(len(line) <= 76 for line in body.split(b"\r\n"))
    assert not any(line.startswith(b".") for line in message.split(b"\r\n"))


def text_of(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode().replace("\r\n", "\n")


ROWS = st.lists(
    st.one_of(
        AWKWARD,
        st.sampled_from(
            [
                "\r\nBcc: evil@x.example\r\n\r\nbody",
                "\r\n.\r\nMAIL FROM:<evil@x.example>\r\n",
                "\n--=_\nContent-Type: text/html\n\n<script>",
                "=0D=0A.=0D=0A",
                "a" * 3000,
                "{{ city }}{% if %}",
                "%(to)s %s",
                "=?utf-8?q?=0D=0ABcc:_x?=",
            ]
        ),
    ),
    min_size=5,
    max_size=5,
).map(tuple)
SMALL = "Dear {{ first_name }},\n.{{ city }}\n{{ plan }}{{ balance }} end\n"
LETTERS = {
    "bare": compiled(content(html="<p>" + SMALL, text=SMALL, subject="{{ first_name }} {{ code }}")),
    "blocks": compiled(
        content(
            html="{% if 1 %}<p>{% endif %}" + SMALL,
            text="{% if 1 %}{% endif %}" + SMALL,
            subject="{{ first_name ~ ' ' ~ code }}",
        )
    ),
    "plain": compiled(
        content(
            html="{% macro m() %}{% endmacro %}<p>" + SMALL,
            text="{% macro m() %}{% endmacro %}" + SMALL,
            subject="{{ first_name }} {{ code }}",
        )
    ),
}


@pytest.mark.slow
@settings(max_examples=150)
@given(st.sampled_from(sorted(LETTERS)), ROWS)
def test_no_value_leaves_its_place(way: str, row: tuple[str, ...]) -> None:
    compose = LETTERS[way]
    subject = one_line(f"{row[0]} {row[4]}".encode("utf-8", "replace").decode())
    if len(subject) > 2000:
        with pytest.raises(RenderError, match="subject"):
            compose.compose(envelope(row=row), NOW)
        return
    message = parsed(message_of(compose, row=row))
    benign = parsed(message_of(compose))
    assert message.keys() == benign.keys()
    assert message["To"] == "grete@example.net"
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/alternative",
        "text/plain",
        "text/html",
    ]
    assert not message.defects
    # The parser itself takes white space between encoded words and around commas its own way.
    assert "".join(str(message["Subject"]).split()) == "".join(subject.split())
    first, city, plan, balance, _ = map(normalise, row)
    assert text_of(message, "plain") == f"Dear {first},\n.{city}\n{plan}{balance} end\n"
    html = text_of(message, "html")
    assert html.count("<") == 1
    assert html.count("\n") == sum(value.count("\n") for value in (first, city, plan, balance)) + 3


@settings(max_examples=60)
@given(AWKWARD, AWKWARD)
def test_static_text_arrives_as_it_was_written(html: str, text: str) -> None:
    html, text = html.replace("{", ""), text.replace("{", "")
    message = parsed(message_of(compiled(content(html=html, text=text, subject="s"))))
    assert text_of(message, "html") == normalise(html)
    assert text_of(message, "plain") == normalise(text)


@pytest.mark.parametrize(
    ("text", "received"),
    [("abc", "abc\n"), ("abc\n", "abc\n"), ("", "\n"), ("a\n\n", "a\n\n"), ("=", "=\n"), ("a ", "a \n")],
)
def test_a_text_only_message_ends_in_one_line_end(text: str, received: str) -> None:
    message = parsed(message_of(compiled(content(html=None, text=text))))
    assert message.get_content_type() == "text/plain"
    assert text_of(message, "plain") == received


def test_a_marketing_letter_from_end_to_end() -> None:
    letter = compiled(
        big_letter(open_pixel=True, cfbl_domain="fbl.example.org", fields=(*content().fields, "email"))
    )
    draft = letter.compose(envelope(row=(*envelope().row, "Grete@Example.net")), NOW)
    message = parsed(draft.finish())
    assert draft.size == len(draft.finish())
    assert draft.digests == ()
    assert str(message["From"]) == "Example Workshop <news@example.org>"
    assert str(message["Subject"]) == "Grete, new at the workshop"
    assert message["Date"].datetime.timestamp() == int(NOW)

    def token(kind: str, text: str, before: str) -> None:
        found = re.search(re.escape(before) + "([a-z2-7]{40})", text)
        assert found
        payload = verify(kind, KEYS, found[1], DOMAIN)  # type: ignore[arg-type]
        assert payload
        assert (payload.campaign, payload.subscriber, payload.single) == (77, 4711, False)
        assert payload.day == int(NOW - 60) // 86_400

    html, text = text_of(message, "html"), text_of(message, "plain")
    token("b", draft.mail_from, "b-")
    token("r", str(message["Message-ID"]), "<r-")
    token("u", str(message["List-Unsubscribe"]), "https://mail.example.org/u/")
    token("u", str(message["List-Unsubscribe"]), "<mailto:u-")
    token("u", html, 'href="https://mail.example.org/u/')
    token("u", text, "Unsubscribe: https://mail.example.org/u/")
    token("f", str(message["CFBL-Feedback-ID"]), "")
    token("c", html, "https://click.example.org/o/")
    assert draft.mail_from.endswith("@bounce.example.org")
    numbers = re.findall(r'href="https://click\.example\.org/c/[a-z2-7]{40}/(\d+)"', html)
    assert [letter.links[int(number)] for number in numbers] == [
        f"https://shop.example.org/p/{n}?from=mail&nr={n}" for n in range(10)
    ]


def test_an_envelope_keeps_its_tokens_over_attempts_and_processes() -> None:
    first = compile_content(content(), KEYS).compose(envelope(), NOW)
    again = compile_content(content(), KEYS).compose(envelope(attempt=2), NOW + 7_200)
    other = compile_content(content(), KEYS).compose(envelope(subscriber=5), NOW)
    assert first.mail_from == again.mail_from != other.mail_from
    ids = [parsed(draft.finish())["Message-ID"] for draft in (first, again, other)]
    assert ids[0] == ids[1] != ids[2]
    assert first.unsigned != again.unsigned


def test_without_a_subscriber_the_spool_id_tells_messages_apart() -> None:
    draft = compiled(content()).compose(envelope(subscriber=0, spool_id=(1 << 60) + 9), NOW)
    payload = verify("b", KEYS, draft.mail_from[2:42], DOMAIN)
    assert payload
    assert (payload.single, payload.subscriber) == (True, 9)


def test_transactional_mail_carries_no_list_fields_but_may_link_to_the_landing_server() -> None:
    letter = content(
        message_class=MessageClass.TRANSACTIONAL,
        html="{{ preferences_url }}{{ web_version_url }}",
        tracking_host="c.example",
    )
    message = parsed(message_of(compiled(letter)))
    assert not [name for name in message if name.startswith(("List-", "Precedence", "Feedback"))]
    assert re.fullmatch(
        r"https://mail\.example\.org/p/[a-z2-7]{40}https://c\.example/v/[a-z2-7]{40}",
        text_of(message, "html"),
    )


def test_email_is_the_recipient_unless_a_column_says_otherwise() -> None:
    assert text_of(parsed(message_of(compiled(content(html="{{ email }}")))), "html") == "grete@example.net"
    letter = compiled(content(html="{{ email }}", fields=("email",), subject="s"))
    assert text_of(parsed(message_of(letter, row=("G@X.example",))), "html") == "G@X.example"


def test_tls_on_the_whole_way_is_the_content_s_to_require() -> None:
    assert not compile_content(content(), KEYS).compose(envelope(), NOW).require_tls
    assert compile_content(content(require_tls=True), KEYS).compose(envelope(), NOW).require_tls


def test_a_local_part_beyond_ascii_asks_for_smtputf8_and_leaves_the_message_7_bit() -> None:
    draft = compiled(content()).compose(envelope("jürgen@example.net"), NOW)
    assert draft.smtputf8
    assert_wire(draft.finish())
    assert parsed(draft.finish())["To"].groups[0].display_name == "jürgen@example.net"
    assert not compiled(content()).compose(envelope('"a b"@example.net'), NOW).smtputf8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row": ("a",)}, "1 values for 5 fields"),
        ({"row": ("a",) * 6}, "6 values for 5 fields"),
        ({"recipient": "a@b.example\r\nBcc: x@y.example"}, "no address"),
        ({"recipient": "a@b.example, c@d.example"}, "no address"),
        ({"recipient": "a@b.example\0"}, "no address"),
        ({"subscriber": 1 << 48}, "token"),
        ({"accepted_at": 1e12}, "token"),
        ({"row": ("x" * 4_000_000, "x" * 4_000_000, "x" * 4_000_000, "", "")}, "larger"),
    ],
)
def test_an_envelope_that_does_not_fit_is_a_render_error(changes: dict[str, object], message: str) -> None:
    letter = compiled(content(subject="s", html="{{ first_name }}{{ city }}{{ plan }}", text="t"))
    with pytest.raises(RenderError, match=message):
        letter.compose(envelope(**changes), NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"campaign": -1}, "campaign"),
        ({"return_path_domain": "nodot"}, "return_path_domain"),
        ({"subject": "{{ nope }}"}, "subject"),
        ({"html": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"}, "html"),
        ({"text": "{{ first_name|nope }}"}, "text"),
        ({"unsubscribe_host": "a b.example"}, "unsubscribe_host"),
    ],
)
def test_a_content_that_cannot_be_sent_is_refused(changes: dict[str, object], part: str) -> None:
    with pytest.raises(ContentError) as caught:
        compiled(content(**changes))
    assert caught.value.part == part


def test_random_parts_differ_per_compile_and_the_boundary_is_in_no_part() -> None:
    messages = [compile_content(big_letter(), KEYS).compose(envelope(), NOW).finish() for _ in range(3)]
    boundaries = {parsed(message).get_boundary() for message in messages}
    assert len(boundaries) == 3
    message = message_of(compiled(content(html="=_", text="--=_")))
    boundary = parsed(message).get_boundary()
    assert boundary
    assert message.count(boundary.encode()) == 4


def test_a_repr_tells_the_way() -> None:
    assert repr(LETTERS["plain"]) == "<CompiledContent 77 'autumn', plain, 0 links>"
    assert LETTERS["bare"].fast
    assert LETTERS["blocks"].fast
