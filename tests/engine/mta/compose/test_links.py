"""Which links are tracked, and that nothing else of the template changes."""

import pytest

from engine.mta.compose.links import add_pixel, find_links

TOKEN = "t" * 40
HOST = "click.example.org"


def rewritten(html: str) -> tuple[str, list[str]]:
    return find_links(html, HOST, "mail.example.org", TOKEN)


@pytest.mark.parametrize(
    ("html", "target"),
    [
        ('<a href="https://x.example/">x</a>', "https://x.example/"),
        ("<A class=b HREF='http://x.example/?a=1&amp;b=2'>x</A>", "http://x.example/?a=1&b=2"),
        ("<a href=https://x.example/p>x</a>", "https://x.example/p"),
        ('<area href = "https://x.example">', "https://x.example"),
        ('<v:roundrect style="a" href="https://x.example">', "https://x.example"),
        ('<a title="a > b" href="https://x.example">', "https://x.example"),
        ('<a class="{{ x }}" {% if a > b %}id=1{% endif %} href="https://x.example">', "https://x.example"),
        ('<a href="\n https://x.example ">x</a>', "https://x.example"),
        ('<!--[if mso]><a href="https://x.example">x</a><![endif]-->', "https://x.example"),
    ],
)
def test_static_web_links_are_tracked(html: str, target: str) -> None:
    text, targets = rewritten(html)
    assert targets == [target]
    assert f'"https://{HOST}/c/{TOKEN}/0"' in text
    assert "x.example" not in text
    assert text.count("\n") == html.count("\n")


@pytest.mark.parametrize(
    "html",
    [
        '<a href="https://x.example/{{ id }}">x</a>',
        '<a href="{{ unsubscribe_url }}">x</a>',
        '<a href="https://mail.example.org/u/anything">x</a>',
        '<a href="mailto:a@x.example">x</a>',
        '<a href="tel:+49123">x</a>',
        '<a href="#top">x</a>',
        '<a href="/relative">x</a>',
        '<a href="https:///nohost">x</a>',
        '<a href="https://[bad">x</a>',
        '<a data-href="https://x.example">x</a>',
        '<abbr href="https://x.example">x</abbr>',
        '<link href="https://x.example/a.css">',
        '<img src="https://x.example/a.png">',
        "{% raw %}<a href='https://x.example'>{% endraw %}",
        "{{ \"<a href='https://x.example'>\" }}",
    ],
)
def test_other_links_stay_as_they_are(html: str) -> None:
    assert rewritten(html) == (html, [])


def test_links_are_numbered_in_order_and_each_occurrence_counts() -> None:
    text, targets = rewritten("".join(f'<a href="https://{host}.example">x</a>' for host in "aba"))
    assert targets == ["https://a.example", "https://b.example", "https://a.example"]
    assert [f"{TOKEN}/{n}" in text for n in range(4)] == [True, True, True, False]


def test_without_a_tracking_host_targets_are_listed_and_links_stay() -> None:
    html = '<a href="https://x.example">x</a>'
    assert find_links(html, "", "", TOKEN) == (html, ["https://x.example"])


@pytest.mark.parametrize(
    ("html", "before"), [("<body>x</BODY></html>", "</BODY></html>"), ("x", ""), ("{{ '</body>' }}", "")]
)
def test_the_pixel_stands_before_the_end_of_the_body(html: str, before: str) -> None:
    text = add_pixel(html, HOST, TOKEN)
    pixel = f'<img src="https://{HOST}/o/{TOKEN}.gif" width="1" height="1" alt="" border="0">'
    assert text == html.removesuffix(before) + pixel + before
