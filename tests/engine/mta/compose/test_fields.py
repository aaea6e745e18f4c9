"""The header set of each class of mail, and what a content may not put into it."""

import pytest

from engine.model.content import MessageClass
from engine.mta.compose.errors import ContentError
from engine.mta.compose.fields import build_layout
from tests.fakes.letters import content

FULL = {
    "reply_to": "answers@example.org",
    "list_help": "https://example.org/help",
    "cfbl_domain": "fbl.example.org",
    "headers": (("X-Mailru-Msgtype", "news"),),
}
MARKETING = (
    "From To Reply-To Subject Date Message-ID MIME-Version Content-Type Content-Transfer-Encoding List-Id "
    "List-Unsubscribe List-Unsubscribe-Post List-Help Feedback-ID CFBL-Address CFBL-Feedback-ID Precedence "
    "Auto-Submitted X-Mailru-Msgtype"
)
TRANSACTIONAL = (
    "From To Reply-To Subject Date Message-ID MIME-Version Content-Type Content-Transfer-Encoding "
    "CFBL-Address CFBL-Feedback-ID Auto-Submitted X-Mailru-Msgtype"
)


def layout(**changes: object) -> dict[str, str]:
    built = build_layout(content(**changes), "text/plain", "7bit", static_subject=None)
    lines = built.wire.replace("\r\n ", " ").split("\r\n")
    return dict(line.split(": ", 1) for line in lines[:-1])


@pytest.mark.parametrize(
    ("message_class", "names"), [(MessageClass.BULK, MARKETING), (MessageClass.TRANSACTIONAL, TRANSACTIONAL)]
)
def test_each_class_has_its_fields(message_class: MessageClass, names: str) -> None:
    assert " ".join(layout(message_class=message_class, **FULL)) == names


def test_the_fields_of_a_marketing_message_say_what_receivers_want() -> None:
    fields = layout(**FULL)
    assert fields["List-Id"] == "Example News <news.example.org>"
    assert fields["List-Unsubscribe"] == (
        "<https://mail.example.org/u/%(unsubscribe_token)s>, "
        "<mailto:u-%(unsubscribe_token)s@bounce.example.org>"
    )
    assert fields["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert fields["CFBL-Address"] == "fbl@fbl.example.org; report=arf"
    assert fields["Precedence"] == "bulk"
    parts = fields["Feedback-ID"].split(":")
    assert parts[:3] == ["c77", "w-default", "bulk"]
    assert 5 <= len(parts[3]) <= 15
    assert len(set(parts)) == 4


def test_without_hosts_there_are_no_fields_that_need_them() -> None:
    names = set(layout(unsubscribe_host="", list_id=""))
    assert not names & {"List-Unsubscribe", "List-Unsubscribe-Post", "List-Id", "CFBL-Address", "List-Help"}


def test_percent_signs_are_text() -> None:
    built = build_layout(content(from_name="100%(to)s"), "a", "b", static_subject="5% off")
    wire = built.wire % dict.fromkeys(["to", "date", "reply_token", "unsubscribe_token"], "x")
    assert '"100%(to)s"' in wire
    assert "Subject: 5% off\r\n" in wire


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"from_address": "nobody"}, "from_address"),
        ({"from_address": "jürgen@example.org"}, "from_address"),
        ({"from_name": "a\r\nBcc: b@c.example"}, "from_name"),
        ({"from_name": "x" * 3000}, "from_name"),
        ({"reply_to": "a@b, c@d"}, "reply_to"),
        ({"list_id": "no brackets>"}, "list_id"),
        ({"list_name": "a\nb"}, "list_name"),
        ({"list_help": "javascript:x"}, "list_help"),
        ({"list_help": "https://a>\r\nX: y"}, "list_help"),
        ({"unsubscribe_host": "https://x.example/"}, "unsubscribe_host"),
        ({"cfbl_domain": "nodot"}, "cfbl_domain"),
        ({"sending_domain": "a b"}, "sending_domain"),
        ({"headers": (("Bcc", "x@y.example"),)}, "headers.Bcc"),
        ({"headers": (("Content-Type", "x"),)}, "headers.Content-Type"),
        ({"headers": (("List-Unsubscribe", "x"),)}, "headers.List-Unsubscribe"),
        ({"headers": (("X Y", "x"),)}, "headers.X Y"),
        ({"headers": (("X\r\nY", "x"),)}, "headers"),
        ({"headers": (("X-A", "x\r\nBcc: y@z.example"),)}, "headers.X-A"),
        ({"headers": (("X-A", "1"), ("x-a", "2"))}, "headers.x-a"),
    ],
)
def test_what_cannot_stand_in_a_header_is_refused(changes: dict[str, object], part: str) -> None:
    with pytest.raises(ContentError) as caught:
        layout(**changes)
    assert caught.value.part == part
