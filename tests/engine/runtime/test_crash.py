"""What is kept of a crash."""

import io
from typing import Any

import structlog

from engine.runtime.crash import CRASH_TEXT_MAX, Crash, describe_crash, leaf_of, log_crash


def test_a_plain_exception_keeps_its_type_and_text() -> None:
    assert describe_crash("a", 3, ValueError("bad"), 7.0) == Crash("a", 3, "ValueError", "bad", 7.0)


def test_a_group_of_one_is_told_by_its_leaf() -> None:
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [KeyError("k")])])
    crash = describe_crash("a", 1, group, 0.0)
    assert (crash.error_type, crash.text) == ("KeyError", "'k'")


def test_a_group_of_several_names_them_all() -> None:
    crash = describe_crash("a", 1, ExceptionGroup("g", [ValueError("x"), OSError("y")]), 0.0)
    assert (crash.error_type, crash.text) == ("ExceptionGroup", "ValueError: x; OSError: y")


def test_the_text_is_bounded() -> None:
    assert len(describe_crash("a", 1, ValueError("x" * 10_000), 0.0).text) == CRASH_TEXT_MAX


def test_the_log_line_carries_the_actor_and_the_traceback() -> None:
    out = io.StringIO()
    before: dict[str, Any] = structlog.get_config()
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    try:
        try:
            raise ValueError("bad")
        except ValueError as error:
            log_crash(describe_crash("spooler", 2, error, 1.0), error)
    finally:
        structlog.configure(**before)
    line = out.getvalue()
    assert '"actor": "spooler"' in line
    assert "test_the_log_line_carries" in line
    assert "ValueError: bad" in line


def test_a_leaf_is_found_however_deep_it_lies() -> None:
    inner = KeyError("k")
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [inner]), ValueError("second")])
    assert leaf_of(group) is leaf_of(inner) is inner
