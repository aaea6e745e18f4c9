"""Logs go to stderr, at a level and in a form that the environment may change, in one line whatever a peer
wrote, and without the addresses of recipients."""

import io
import json

import pytest
import structlog

from engine.observe.logs import configure_logs, masked


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


def test_the_environment_chooses_json() -> None:
    told = json.loads(logged("error", environ={"EMASS_LOG_FORMAT": "JSON"}))
    assert told["logger"] == "x"
    assert "event" not in logged("error", environ={"EMASS_LOG_FORMAT": "text"}, as_json=True)


def test_an_unknown_form_leaves_the_callers() -> None:
    assert json.loads(logged("error", environ={"EMASS_LOG_FORMAT": "xml"}, as_json=True))


def test_no_address_is_logged_whoever_let_it_in() -> None:
    stream = io.StringIO()
    configure_logs(environ={}, stream=stream, as_json=True)
    log = structlog.get_logger("site")
    try:
        raise RuntimeError("cannot write to reader@example.org")
    except RuntimeError:
        log.exception(
            "site suspended", site="smart@relay.example:587", why="550 <reader@example.org> unknown"
        )
    told = json.loads(stream.getvalue())
    assert told["site"] == "smart@relay.example:587"
    assert told["why"] == "550 <***@example.org> unknown"
    assert "reader" not in told["exception"].replace("test_logs", "").split("RuntimeError: ")[1]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a.b+c@example.org", "***@example.org"),
        ("RCPT TO:<a@b.example>", "RCPT TO:<***@b.example>"),
        ('"two words"@example.org said', "***@example.org said"),
        ("ö@xn--bcher-kva.example, x@y.example", "***@xn--bcher-kva.example, ***@y.example"),
        ("user@[192.0.2.1]", "***@[192.0.2.1]"),
        ("nobody here", "nobody here"),
        ("@ sign, a @ b", "@ sign, a @ b"),
    ],
)
def test_the_local_part_is_what_is_masked(text: str, seen: str) -> None:
    assert masked(text) == seen


def test_a_peers_endless_line_is_masked_in_no_time() -> None:
    assert masked("a" * 100_000 + "@x").endswith("***@x")
    assert len(masked("a@" * 50_000)) < 500_000
