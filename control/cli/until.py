"""`--until`: when `emass send` stops looking on. What is not over by then waits in the data folder."""

from msgspec import Struct

from control.cli.errors import InputError
from engine.config import Duration, UnitError

DEFAULT_SECONDS = 30 * 60.0  # interfaces: finished or 30 minutes


class Until(Struct, frozen=True):
    """Stop when all is finished; `first_pass` = when each was tried once; at the latest after `seconds`."""

    first_pass: bool = False
    seconds: float | None = DEFAULT_SECONDS


def parse_until(text: str | None) -> Until:
    """`first-pass`, `finished` (however long it takes) or a duration. Raises InputError."""
    match text:
        case None:
            return Until()
        case "first-pass":
            return Until(first_pass=True, seconds=None)
        case "finished":
            return Until(seconds=None)
    try:
        return Until(seconds=float(Duration.parse(text)))
    except UnitError:
        raise InputError(
            f'--until {text}: write first-pass, finished or a duration such as "15 min"'
        ) from None
