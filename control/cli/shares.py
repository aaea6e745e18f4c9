"""`--broadcasters a=2,b=1`: who gets work of a job, and by what weight. Pure; raises InputError."""

from control.cli.errors import InputError
from control.job.outcomes import BROADCASTERS_MAX
from engine.bus.api import check_name

WEIGHT_MAX = 1_000.0


def parse_shares(text: str) -> dict[str, float]:
    """ "a=2,b" is {"a": 2.0, "b": 1.0}; empty = every broadcaster that lives, alike."""
    shares: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, weight_text = part.partition("=")
        try:
            weight = float(weight_text) if equals else 1.0
            name = check_name(name.strip())
        except ValueError:
            raise InputError(f"--broadcasters {part}: write NAME or NAME=WEIGHT") from None
        if not 0 < weight <= WEIGHT_MAX:
            raise InputError(f"--broadcasters {part}: a weight is above 0 and at most {WEIGHT_MAX:g}")
        if name in shares:
            raise InputError(f"--broadcasters {part}: {name} stands there twice")
        shares[name] = weight
    if len(shares) > BROADCASTERS_MAX:
        raise InputError(f"--broadcasters: {len(shares)} are too many, at most {BROADCASTERS_MAX}")
    return shares
