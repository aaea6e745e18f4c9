"""What is wrong with a content is said in one line, with its part and place."""

from engine.mta.compose.errors import ContentError, RenderError


def test_a_content_error_names_part_line_and_hint():
    error = ContentError("html", 7, "uses a name that no column fills", "did you mean first_name?")
    text = str(error)
    assert "html" in text
    assert "7" in text
    assert "first_name" in text
    assert "\n" not in text


def test_a_part_without_lines_has_no_line_number():
    assert "line" not in str(ContentError("campaign", 0, "has no content"))


def test_a_render_error_is_its_message():
    assert (
        str(RenderError("the merge row has 1 value for 2 fields")) == "the merge row has 1 value for 2 fields"
    )
