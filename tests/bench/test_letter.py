"""The letter of the benches: the size asked for, fields that fit its rows, classes."""

import pytest

from bench.letter import bench_content, bench_row
from engine.model.content import MessageClass


@pytest.mark.parametrize("message_bytes", [3_000, 10_000, 40_000])
def test_the_html_grows_with_the_octets_asked_for(message_bytes):
    html = bench_content(1, message_bytes).html
    assert html is not None
    assert message_bytes * 0.3 < len(html) + 600 < message_bytes * 0.7


def test_a_row_has_a_value_for_each_field():
    content = bench_content(3, 3_000, workspace="oak")
    assert (content.campaign, content.workspace) == (3, "oak")
    assert len(bench_row(7)) == len(content.fields)
    assert bench_row(7) != bench_row(8)


def test_a_transactional_letter_has_nothing_to_unsubscribe_from():
    content = bench_content(1, 3_000, message_class=MessageClass.TRANSACTIONAL)
    assert content.html is not None
    assert "unsubscribe" not in content.html
