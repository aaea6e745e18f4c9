"""Structured logs, one configuration for every process: to stderr, so that stdout stays a report's own.

Texts from peers may hold anything; both renderers escape what a terminal would act on. The level comes
from the caller, or from EMASS_LOG (debug, info, warning, error).
"""

import logging
import os
import sys
from collections.abc import Mapping
from typing import TextIO

import structlog

LEVEL_VARIABLE = "EMASS_LOG"
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure_logs(
    default: str = "warning",
    *,
    environ: Mapping[str, str] | None = None,
    stream: TextIO | None = None,
    as_json: bool = False,
) -> None:
    """Send what is at least as grave as the level to `stream` (stderr); an unknown EMASS_LOG is ignored."""
    named = (os.environ if environ is None else environ).get(LEVEL_VARIABLE, default).lower()
    level = LEVELS.get(named, LEVELS[default])
    stream = sys.stderr if stream is None else stream
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _one_line,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )


def _one_line(logger: object, name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape control characters in every text: a peer's reply must not move the operator's cursor."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception" and not value.isprintable():
            event[key] = value.encode("unicode_escape").decode("ascii")
    return event
