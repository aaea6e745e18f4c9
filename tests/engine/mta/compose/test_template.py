"""Templates: both ways give the same text, and what cannot work is refused early with its place."""

import quopri
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.mta.compose.errors import ContentError, RenderError
from engine.mta.compose.mime import normalise
from engine.mta.compose.template import Template
from tests.engine.mta.compose.test_mime import AWKWARD, assert_wire

ATOM = "q2qwertyuiopasdfghjklzxcvbnm234567aeiouy"
KNOWN = {"x": "", "y": "", "first_name": ""}


def decoded(template: Template, **values: str) -> str:
    wire = template.render(values)
    assert_wire(wire)
    return quopri.decodestring(wire.encode()).decode().replace("\r\n", "\n")


def rendered(source: str, *, html: bool = True, **values: str) -> str:
    return decoded(Template("html", source, html=html), **values)


@pytest.mark.parametrize(
    ("source", "fast"),
    [
        ("plain", True),
        ("a {{ x }} b", True),
        ("a {{ x|upper }} {% if x == 'a' %}.b{% endif %}", True),
        ("{% for c in x %}{{ loop.index }}{{ c }} {% endfor %}", True),
        ("{% set z = x ~ '!' %}{{ z }}", True),
        ("{% set a, b = x, x %}{{ a }}{{ b }}", True),
        ("{% with z = x %}{{ z }}{% endwith %}", True),
        ("{{ x|replace('a', '<') }}{{ [x, '<b>']|join(', ') }}", True),
        ("{{ [x, '<b>'|safe]|join(', ') }}", False),
        ("{% raw %}{{ x }}{% endraw %}", True),
        ("{% set z %}a = {{ x }}é{% endset %}{{ z|length }} {{ z }}", False),
        ("{% set z | upper %}a = {{ x }}é{% endset %}{{ z }}", False),
        ("{% set z | replace(from='a', to='b') %}a{% endset %}{{ z }}", False),
        ("{% macro m(a) %}<b>{{ a }}</b>=é{% endmacro %}{{ m(x) }}", False),
        ("{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}= é {{ x }}{% endcall %}", False),
        ("{% filter upper %}é = {{ x }}{% endfilter %}", False),
        (
            "{% for a in [[x]] recursive %}é{% if a != x %}{{ loop(a) }}{% endif %}{% endfor %}",
            False,
        ),
    ],
)
def test_static_text_is_encoded_once_unless_an_expression_could_see_it(source: str, fast: bool) -> None:
    template = Template("html", source, html=True)
    samples = [{"x": "a"}, {"x": ""}, {"x": ".<é&\n"}]
    template.check_samples([{name: sample[name] for name in template.names} for sample in samples])
    assert template.fast is fast


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("<a href=\"{{ x }}\">", '<a href="&lt;&#34;&#39;&amp;é">'),
        ("{{ x|safe }}", "<\"'&é"),
        ("{{ x|e }}", "&lt;&quot;&#x27;&amp;é"),
        ("{% set z %}<i>{{ x }}</i>{% endset %}{{ z }}", "<i>&lt;&#34;&#39;&amp;é</i>"),
        ("{% macro m(a) %}<i>{{ a }}</i>{% endmacro %}{{ m(x) }}", "<i>&lt;&#34;&#39;&amp;é</i>"),
        ("{{ [x, '<b>'|safe]|join('.') }}", "&lt;&#34;&#39;&amp;é.<b>"),
        ("{{ x|replace('é', '&') ~ 1 }}", "&lt;&#34;&#39;&amp;&amp;1"),
        ("{{ none }}{{ true }}{{ 1.5 }}{{ 2 }}", "true1.52"),
        ("a{#- c -#} b {%- raw %} {{ x }} {% endraw -%} c", "ab {{ x }} c"),
    ],
)  # fmt: skip
def test_html_values_are_escaped_once(source: str, expected: str) -> None:
    assert rendered(source, x="<\"'&é") == expected


def test_text_values_are_not_escaped() -> None:
    assert rendered("{{ x }}{% set z %}{{ x }}{% endset %}{{ z }}", html=False, x="<&") == "<&<&"


FRAGMENTS = st.lists(
    st.one_of(
        AWKWARD.map(lambda text: text.replace("{", "")),
        st.sampled_from(["{{ x }}", "{{- x }}", "{{ y|upper -}}", "{% if x %}", "{% endif %}", "{# c #}"]),
        st.sampled_from(
            ["{% for c in y %}", "{% endfor %}", "{% set z %}", "{% endset %}{{ z }}", "{{ '.' }}"]
        ),
    ),
    max_size=8,
).map("".join)


@settings(max_examples=200)
@given(FRAGMENTS, AWKWARD, AWKWARD, st.booleans())
def test_the_fast_and_the_plain_way_give_the_same_text(source: str, x: str, y: str, html: bool) -> None:
    source = normalise(source)
    try:
        fast = Template("html", source, html=html)
    except ContentError:
        return
    plain = Template("html", source + "{% macro unused() %}{% endmacro %}", html=html)
    assert not plain.fast
    values = {"x": x, "y": y}
    assert decoded(fast, **values) == decoded(plain, **values)


@settings(max_examples=100)
@given(AWKWARD, AWKWARD)
def test_static_text_and_values_come_back_as_they_were(static: str, value: str) -> None:
    static = normalise(static).replace("{", "")
    assert rendered(static + "{{ x }}" + static, html=False, x=value) == static + normalise(value) + static


def compile_and_check(source: str, known: dict[str, str]) -> None:
    template = Template("html", source, html=True)
    template.check_names(known)
    template.check_samples([dict.fromkeys(template.names, "1")])


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ("a\n{{ x }", 2, "unexpected"),
        ("a\nb\n{% if x %}", 3, "unexpected end"),
        ("\n{{ x|nope }}", 2, "filter nope is unknown"),
        ("\n{{ nope(x) }}", 2, "nope"),
        ("{% include 'other' %}", 1, "other"),
        (
            "\n{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
            2,
            "runs too long",
        ),
        ("\n{{ firstname }}", 2, "no column fills the placeholder 'firstname' (did you mean first_name?)"),
        ("{{ debug() }}", 1, "debug"),
        ("{{ unsubscribe_url }}", 1, "needs a host"),
    ],
)
def test_authors_errors_name_the_line(source: str, line: int, message: str) -> None:
    known = KNOWN | {"unsubscribe_url": "needs a host"}
    with pytest.raises(ContentError, match="html") as caught:
        compile_and_check(source, known)
    assert caught.value.line == line
    assert message in str(caught.value)


def test_what_depends_on_the_values_is_the_recipients_error_and_quotes_none_of_them() -> None:
    template = Template("html", "é{{ 'm' }}\n{{ (x|int) + 1 }}", html=True)
    template.check_samples([{"x": "secret"}])
    assert decoded(template, x="1") == "ém\n2"
    with pytest.raises(RenderError) as caught:
        template.render({"x": "secret"})
    assert "line 2" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("capture", ["", "{% macro m() %}{% endmacro %}"])
def test_a_loop_over_a_long_value_runs_out_of_fuel(capture: str) -> None:
    template = Template(
        "html", capture + "{% for a in x %}{% for b in x %}k{% endfor %}{% endfor %}", html=True
    )
    started = time.perf_counter()
    with pytest.raises(RenderError, match="too long"):
        template.render({"x": "k" * 5_000})
    assert time.perf_counter() - started < 5


@pytest.mark.slow
def test_a_loop_that_prints_megabytes_runs_out_of_fuel() -> None:
    template = Template("html", "{% for a in range(9999) %}{{ x }}" + "y" * 1000 + "{% endfor %}", html=True)
    with pytest.raises(RenderError, match="too long"):
        template.render({"x": "k" * 100_000})


def test_one_long_value_is_no_loop() -> None:
    assert rendered("{% if x %}{{ x }}{% endif %}", x="k" * 1_000_000) == "k" * 1_000_000


@pytest.mark.parametrize("capture", ["", "{% set z %}{% endset %}", "{% if x %}{% endif %}"])
def test_an_atom_stands_for_its_value(capture: str) -> None:
    template = Template(
        "html", f"{capture}{'y' * 50}{ATOM}/1 {{{{ x }}}}", html=True, atom=ATOM, atom_name="t"
    )
    assert "t" in template.names
    assert decoded(template, x="1", t="Z" * 40) == "y" * 50 + "Z" * 40 + "/1 1"
