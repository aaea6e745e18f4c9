"""Logs go to stderr, at a level that the environment may change, in one line whatever a peer wrote."""

import io
import json

import pytest
import structlog

from engine.observe.logs import configure_logs


@pytest.fixture(autouse=True)
def _restored():
    yield
    structlog.reset_defaults()


def logged(level: str, **settings: object) -> str:
    stream = io.StringIO()
    configure_logs(stream=stream, **settings)
    getattr(structlog.get_logger("x"), level)("something happened", why="a\x1b[2Jb\nc")
    return stream.getvalue()


def test_what_is_less_grave_than_the_level_is_not_shown():
    assert logged("info", environ={}) == ""


def test_the_environment_lowers_the_level():
    assert "something happened" in logged("info", environ={"EMASS_LOG": "INFO"})


def test_an_unknown_level_leaves_the_default():
    assert logged("info", environ={"EMASS_LOG": "loud"}) == ""


def test_a_peers_text_cannot_move_the_cursor_or_break_the_line():
    text = logged("warning", environ={})
    assert "\x1b" not in text
    assert text.count("\n") == 1


def test_json_lines_are_json():
    told = json.loads(logged("error", environ={}, as_json=True))
    assert told["event"] == "something happened"
    assert told["level"] == "error"
