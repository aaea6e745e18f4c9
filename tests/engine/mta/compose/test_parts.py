"""Which names templates may use, and how the parts of a content come about."""

import pytest

from engine.mta.compose.errors import ContentError
from engine.mta.compose.parts import CLICK_TOKEN, Parts, known_names
from tests.fakes.letters import content

ATOM = "k7qwertyuiopasdfghjklzxcvbnm234567aeiouy"
LINK = '<body><a href="https://x.example/a">a</a></body>'


def parts(**changes: object) -> Parts:
    letter = content(**changes)
    return Parts(letter, ATOM, known_names(letter))


def test_landing_addresses_are_known_where_their_hosts_are_configured() -> None:
    known = known_names(content(unsubscribe_host="u.example", tracking_host=""))
    assert [name for name, reason in known.items() if not reason and name not in content().fields] == [
        "email",
        "unsubscribe_url",
        "preferences_url",
    ]
    assert known["web_version_url"] == "it needs tracking_host to be configured"


@pytest.mark.parametrize("fields", [("a", "a"), ("unsubscribe_url",), (CLICK_TOKEN,)])
def test_fields_may_be_neither_doubled_nor_built_in(fields: tuple[str, ...]) -> None:
    with pytest.raises(ContentError, match="fields"):
        known_names(content(fields=fields))


@pytest.mark.parametrize("changes", [{"tracking_host": ""}, {"tracking_host": "", "open_pixel": True}])
def test_without_a_tracking_host_nothing_is_tracked(changes: dict[str, object]) -> None:
    made = parts(html=LINK, **changes)
    assert made.html is not None
    assert made.html.names == frozenset()
    assert made.links == ("https://x.example/a",)


def test_links_and_pixel_carry_the_click_token() -> None:
    made = parts(html=LINK, tracking_host="click.example.org", open_pixel=True)
    assert made.html is not None
    assert made.html.names == {CLICK_TOKEN}
    wire = made.html.render({CLICK_TOKEN: "T" * 40})
    assert wire.count("T" * 40) == 2
    assert ATOM not in wire


def test_the_derived_text_shows_the_authors_addresses() -> None:
    made = parts(html=LINK, tracking_host="click.example.org")
    assert made.text.render({}) == "a (https://x.example/a)\r\n"


def test_a_text_given_is_used_as_it_is() -> None:
    made = parts(html=None, text="{{ city }}")
    assert made.html is None
    assert made.text.render({"city": "Ulm"}) == "Ulm=\r\n"


@pytest.mark.parametrize(
    ("changes", "part", "message"),
    [
        ({"html": None}, "content", "neither"),
        ({"html": "\n{{ nope }}", "tracking_host": "c.example"}, "html", "line 2: no column fills"),
        ({"text": "{{ nope }}"}, "text", "line 1: no column fills"),
        ({"html": "<b {% if city %}>{% endif %}</b>"}, "html", "no text can be derived"),
        ({"html": "x", "tracking_host": "https://c.example"}, "tracking_host", "not valid"),
    ],
)
def test_what_is_wrong_with_a_part_is_told_with_its_place(
    changes: dict[str, object], part: str, message: str
) -> None:
    with pytest.raises(ContentError, match=message) as caught:
        parts(**changes)
    assert caught.value.part == part
