"""A crash as a fact, and its way into the log.

A `Crash` is text and numbers only: it may be kept and shown for ever without keeping the dead actor's
frames alive. The hook gets the exception as well, once, for its traceback. Touches: the log.
"""

from collections.abc import Callable

import structlog
from msgspec import Struct

CRASH_TEXT_MAX = 500  # characters; a panel line, not a report: the log has the whole


class Crash(Struct, frozen=True):
    """One incarnation's end by an exception. `when` is wall seconds."""

    name: str
    incarnation: int
    error_type: str
    text: str
    when: float


CrashHook = Callable[[Crash, Exception], None]


def describe_crash(name: str, incarnation: int, error: Exception, when: float) -> Crash:
    """The lasting facts of `error`; an exception group is told by its leaves."""
    leaves = leaves_of(error)
    error_type = type(leaves[0]).__name__ if len(leaves) == 1 else type(error).__name__
    text = str(leaves[0]) if len(leaves) == 1 else "; ".join(f"{type(e).__name__}: {e}" for e in leaves)
    return Crash(name, incarnation, error_type, text[:CRASH_TEXT_MAX], when)


def leaves_of(error: BaseException) -> list[BaseException]:
    """The exceptions inside nested groups, in order; the error itself when it is no group."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for member in error.exceptions for leaf in leaves_of(member)]
    return [error]


def leaf_of(error: BaseException) -> BaseException:
    """The first exception inside nested groups: where there is one only, or the others follow from it."""
    return leaves_of(error)[0]


def log_crash(crash: Crash, error: Exception) -> None:
    """The usual hook: one error line with the traceback."""
    structlog.get_logger("engine.runtime").error(
        "actor crashed",
        actor=crash.name,
        incarnation=crash.incarnation,
        error_type=crash.error_type,
        error=crash.text,
        exc_info=error,
    )
