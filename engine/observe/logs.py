"""Structured logs, one configuration for every process: to stderr, so that stdout stays a report's own.

One line for each fact: an event, always in the same words, with what belongs to it as named values. Texts
from peers may hold anything; both renderers escape what a terminal would act on, and recipients' addresses
are masked whoever let them in: a log goes further than the queue. The level comes from the caller, or from
EMASS_LOG (debug, info, warning, error); EMASS_LOG_FORMAT=json makes each line a JSON object.
"""

import logging
import os
import re
import sys
from collections.abc import Mapping
from typing import TextIO

import structlog

LEVEL_VARIABLE = "EMASS_LOG"
FORMAT_VARIABLE = "EMASS_LOG_FORMAT"
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

# The names of a relay's site and path hold an "@" of their own, and never an address.
PLAIN_KEYS = frozenset({"event", "level", "logger", "timestamp", "path", "site", "source"})
_LOCAL_PART = re.compile(r"""("[^"\n]{1,64}"|[^\s"'<>()\[\]@,;:=/\\]{1,64})@(?=[^\s@])""")


def configure_logs(
    default: str = "warning",
    *,
    environ: Mapping[str, str] | None = None,
    stream: TextIO | None = None,
    as_json: bool = False,
) -> None:
    """Send what is at least as grave as the level to `stream` (stderr).

    The environment's word counts more than the caller's; one that is unknown is ignored.
    """
    environ = os.environ if environ is None else environ
    level = LEVELS.get(environ.get(LEVEL_VARIABLE, default).lower(), LEVELS[default])
    as_json = {"json": True, "text": False}.get(environ.get(FORMAT_VARIABLE, "").lower(), as_json)
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _name_logger,
            _mask_addresses,
            _one_line,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_NamedLoggers(sys.stderr if stream is None else stream),
        cache_logger_on_first_use=False,
    )


def masked(text: str) -> str:
    """The text without the local parts of the addresses in it: "***@example.org"."""
    return _LOCAL_PART.sub("***@", text) if "@" in text else text


class _NamedLogger(structlog.PrintLogger):
    """Prints lines, and knows what it was asked for as."""

    def __init__(self, stream: TextIO, name: str) -> None:
        super().__init__(stream)
        self.name = name


class _NamedLoggers:
    """Makes loggers that keep the name given to `structlog.get_logger`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, *names: str) -> _NamedLogger:
        return _NamedLogger(self._stream, names[0] if names else "")


def _name_logger(logger: object, name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Say who tells it."""
    if isinstance(logger, _NamedLogger) and logger.name:
        event["logger"] = logger.name
    return event


def _mask_addresses(
    logger: object, name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    for key, value in event.items():
        if isinstance(value, str) and key not in PLAIN_KEYS:
            event[key] = masked(value)
    return event


def _one_line(logger: object, name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape control characters in every text: a peer's reply must not move the operator's cursor."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception" and not value.isprintable():
            event[key] = value.encode("unicode_escape").decode("ascii")
    return event
