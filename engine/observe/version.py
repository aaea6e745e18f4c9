"""Which release of e-MASS runs here, as logs, metrics and status rows say it."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def own_version() -> str:
    """The installed distribution's version; "unknown" when it runs from a bare folder."""
    try:
        return version("emass")
    except PackageNotFoundError:
        return "unknown"
