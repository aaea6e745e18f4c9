"""What a broadcaster's own spool counts for a campaign: asked over the bus, to hold against what it told."""

import msgspec

from engine.bus.api import Bus, NoAnswer
from engine.model.decoding import UNDECODABLE
from engine.mta.spool.api import StateCounts

NAMES = (*StateCounts.__struct_fields__, "deferred")


async def ask_counts(bus: Bus, name: str, campaign: int, timeout_seconds: float) -> dict[str, int] | None:
    """Its counts by state; None when it does not say."""
    question = msgspec.json.encode({"command": "counts", "campaign": campaign})
    try:
        answer = msgspec.json.decode(await bus.ask(f"engine.{name}", question, timeout_seconds))
    except (NoAnswer, *UNDECODABLE):
        return None
    if not isinstance(answer, dict) or "error" in answer:
        return None
    told = answer.get("counts", answer)
    if not isinstance(told, dict):
        return None
    return {key: told[key] for key in NAMES if isinstance(told.get(key), int)}
