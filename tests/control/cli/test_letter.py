"""Letters: what is checked before anything is sent, and how mistakes name their place."""

from email import message_from_bytes, policy
from pathlib import Path

import pytest

from control.cli.csv_source import CsvSource, inspect_csv
from control.cli.errors import InputError
from control.cli.letter import check_content, default_list_id, parse_sender, read_letter, render_sample, slug
from control.cli.people import Person
from engine.model.content import Content


def source(folder: Path) -> CsvSource:
    path = folder / "people.csv"
    path.write_bytes(b"email,First Name,City,Plan\na@example.org,Ann,Rome,x\n")
    return inspect_csv(path)


def content(subject: str = "Hi", html: str | None = "<p>Hello</p>", text: str | None = None) -> Content:
    return Content(
        campaign=7,
        name="n",
        from_address="ann@example.org",
        subject=subject,
        html=html,
        text=text,
        return_path_domain="example.org",
        unsubscribe_host="news.example.org",
    )


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("ann@example.org", "", "ann@example.org"),
        (" <ann@example.org> ", "", "ann@example.org"),
        ("Ann Lee <ann@EXAMPLE.org>", "Ann Lee", "ann@example.org"),
        ('"Lee, \\"Ann\\"" <ann@example.org>', 'Lee, "Ann"', "ann@example.org"),
        ("Jörg <joerg@bücher.example>", "Jörg", "joerg@xn--bcher-kva.example"),
    ],
)
def test_a_sender_is_an_address_with_or_without_a_name(text: str, name: str, address: str) -> None:
    sender = parse_sender(text)
    assert (sender.name, str(sender.address)) == (name, address)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Ann",
        "Ann <ann>",
        "<a@b.example",
        "a@b.example, c@d.example",
        "A <a@b.example> x",
        "A\rB <a@b.example>",
    ],
)
def test_what_is_no_sender_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--from"):
        parse_sender(text)


@pytest.mark.parametrize(
    ("octets", "problem"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"a\nb\xff", "line 2: is not UTF-8"),
        (b"x" * 5_000_001, "larger"),
    ],
)
def test_a_letter_that_cannot_be_read_is_a_clear_error(
    tmp_path: Path, octets: bytes | None, problem: str
) -> None:
    path = tmp_path / "letter.html"
    if octets is not None:
        path.write_bytes(octets)
    with pytest.raises(InputError, match=problem) as caught:
        read_letter(path)
    assert str(path) in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_letter(tmp_path: Path) -> None:
    path = tmp_path / "letter.html"
    path.write_bytes(b"\xef\xbb\xbf<p>\xc3\xbc</p>")
    assert read_letter(path) == "<p>ü</p>"


def test_only_columns_that_the_letter_uses_become_fields(tmp_path: Path) -> None:
    checked = check_content(
        content("{{ city }}", "<p>{% if first_name %}{{ first_name }}{% endif %} {{ email }}</p>"),
        source(tmp_path),
        {},
    )
    assert checked.fields == ("first_name", "city")


@pytest.mark.parametrize(
    ("letter", "place", "problem"),
    [
        (content(html="<p>\n{{ frist_name }}</p>"), "letter.html line 2", "did you mean first_name"),
        (content(html="<p>\n\n{% if %}</p>"), "letter.html line 3", ""),
        (content(text="{{ nothing }}"), "letter.txt line 1", "nothing"),
        (content(subject="{{ x y }}"), "--subject", ""),
        (
            content(html="{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}"),
            "letter.html",
            "too long",
        ),
    ],
)
def test_a_mistake_in_a_letter_names_file_and_line(
    tmp_path: Path, letter: Content, place: str, problem: str
) -> None:
    files = {"html": Path("letter.html"), "text": Path("letter.txt")}
    with pytest.raises(InputError) as caught:
        check_content(letter, source(tmp_path), files)
    assert str(caught.value).startswith(place)
    assert problem in str(caught.value)


def test_a_sample_is_the_message_that_person_would_get(tmp_path: Path) -> None:
    checked = check_content(content("Hi {{ first_name }}", "<p>{{ city }}</p>"), source(tmp_path), {})
    sample = render_sample(
        checked, Person(2, 1, "b@example.org", ("Bo", "Köln"), "example.org"), 1_700_000_000.0
    )
    message = message_from_bytes(sample, policy=policy.default)
    assert message["subject"] == "Hi Bo"
    body = message.get_body(("plain",))
    assert body is not None
    assert "Köln" in body.get_content()


@pytest.mark.parametrize(
    ("name", "result"),
    [("People 2026", "people-2026"), ("Größte Liste!", "grosste-liste"), ("名前", "list"), ("", "list")],
)
def test_a_slug_is_safe_in_file_names_and_list_ids(name: str, result: str) -> None:
    assert slug(name) == result


def test_a_list_id_comes_from_list_and_domain() -> None:
    assert default_list_id(Path("/x/My News.csv"), "example.org") == "my-news.example.org"
