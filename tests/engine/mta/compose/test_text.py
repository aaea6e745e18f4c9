"""The derived text part reads well, and its template tags go on working."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minijinja import Environment

from engine.mta.compose.text import text_from_html


def rendered(source: str, **values: str) -> str:
    env = Environment(pycompat=False, keep_trailing_newline=True, undefined_behavior="strict")
    return env.render_str(source, **values)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One</p>\n<p>Two\n  words</p>", "One\n\nTwo words\n"),
        ("a<br>b<br><br>c", "a\nb\n\nc\n"),
        ("<h1>News</h1><p>Hi</p>", "News\n====\n\nHi\n"),
        ("<h2>A heading</h2>text", "A heading\n---------\n\ntext\n"),
        ("<h3>Small</h3><p>x</p>", "Small\n\nx\n"),
        ("<ul><li>a</li><li>b</li></ul><p>c</p>", "- a\n- b\n\nc\n"),
        ("<ol><li>a<li>b</ol>", "1. a\n2. b\n"),
        ("<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>", "- a\n  - b\n- c\n"),
        ('<a href="https://x.example/a?b=1&amp;c=2">Go</a> now', "Go (https://x.example/a?b=1&c=2) now\n"),
        ('<a href="https://x.example/">https://x.example/</a>', "https://x.example/\n"),
        ('<a href="https://x.example">x.example</a>', "x.example\n"),
        ('<a href="mailto:a@x.example">a@x.example</a>', "a@x.example\n"),
        ('<a href="#top">up</a>', "up\n"),
        ('<a href="https://x.example"><img alt="Logo"></a>', "Logo (https://x.example)\n"),
        ("&lt;b&gt; &amp; caf&eacute; &#128512;&nbsp;x", "<b> & café 😀 x\n"),
        ("<style>p{}</style><script>1</script><title>t</title>x<!-- c -->", "x\n"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc\n"),
        ("<pre>a\n  b</pre>", "a\n  b\n"),
        ("<p>a</p><hr><p>b</p>", "a\n\n" + "-" * 40 + "\n\nb\n"),
        ("<div>a</div><div>b</div>", "a\nb\n"),
        ("<b>bold</b><i>er</i> word", "bolder word\n"),
        ("<![if !mso]><p>x</p><![endif]>", "x\n"),
        ("", "\n"),
    ],
)
def test_html_becomes_readable_text(html: str, text: str) -> None:
    assert text_from_html(html) == text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>Dear {{ x }},</p>", "Dear {{ x }},\n"),
        (
            '<a href="https://e.example/{{ x }}?a={{ y }}">Go</a>',
            "Go (https://e.example/{{ x }}?a={{ y }})\n",
        ),
        ("<p>A</p>{% if x %}<p>B</p>{% endif %}<p>C</p>", "A{% if x %}\n\nB{% endif %}\n\nC\n"),
        ("<p title='{% if x %}a{% endif %}'>A</p>", "A\n"),
        ("<!-- {% if x %} -->b<style>{% endif %}</style>", "{% if x %}b{% endif %}\n"),
        ("a {{- x -}} b{# c #}", "a {{ x }} b\n"),
        ("<h1>Hi {{ x }}</h1>", "Hi {{ x }}\n===========\n"),
    ],
)
def test_tags_stay(html: str, text: str) -> None:
    assert text_from_html(html) == text


@pytest.mark.parametrize("text", ["{{ x }}", "{% if %}", "{# c #}", "{"])
def test_text_that_looks_like_a_tag_once_decoded_stays_text(text: str) -> None:
    entities = text.replace("{", "&#123;")
    assert rendered(text_from_html(f"<p>{entities}</p>")) == text + "\n"
    assert rendered(text_from_html("<p>{% raw %}{{ x }}{% endraw %}</p>")) == "{{ x }}\n"


def test_a_loop_over_items_keeps_one_line_each() -> None:
    html = "<ul>\n{% for c in x %}\n<li>{{ c }}</li>\n{% endfor %}\n</ul><p>end</p>"
    assert rendered(text_from_html(html), x="ab").strip() == "- a\n- b\n\nend"


FRAGMENTS = [
    *(
        "<p>",
        "</p>",
        "<a href='u'>",
        "</a>",
        "<ul>",
        "<li>",
        "</ul>",
        "<td",
        "text ",
        ">",
        "<",
        "&#x",
        "&amp;",
    ),
    *(
        "{{ x }}",
        "{% if x %}",
        "</h1>",
        "<h1>",
        "<pre>",
        "</pre>",
        "<!--",
        "-->",
        "<script>",
        "\n",
        "<![CDATA[",
    ),
]


@pytest.mark.slow
@settings(max_examples=100)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=15).map("".join))
def test_broken_html_never_fails(html: str) -> None:
    assert text_from_html(html).endswith("\n")
