"""What is held back at one provider, and why: a campaign, a sending domain, a workspace.

A receiver that complains of a text, a signature or a link complains of whoever sent that, not of the
address it came from. So those are held there while everything else goes on. A hold ends by itself; one
put on what is held already lasts until the later of both. Pure; times are monotonic seconds.
"""

from enum import Enum

from msgspec import Struct

HOLDS_MAX = 10_000  # of one engine; the one that ends first makes room


class Subject(Enum):
    """Whose mail is held."""

    DOMAIN = "domain"  # a sending domain
    CAMPAIGN = "campaign"
    WORKSPACE = "workspace"


class Hold(Struct, frozen=True):
    provider: str
    subject: Subject
    value: str
    until: float
    reason: str

    def __str__(self) -> str:
        return f"{self.subject.value} {self.value} at {self.provider}: {self.reason}"


class Holds:
    """All holds of one engine."""

    __slots__ = ("_holds",)

    def __init__(self) -> None:
        self._holds: dict[tuple[str, Subject, str], Hold] = {}

    def __repr__(self) -> str:
        return f"<Holds: {len(self._holds)}>"

    def __bool__(self) -> bool:
        return bool(self._holds)

    def put(self, hold: Hold) -> bool:
        """True when it is new or lasts longer than what was there."""
        key = (hold.provider, hold.subject, hold.value)
        known = self._holds.get(key)
        if known is not None and known.until >= hold.until:
            return False
        if known is None and len(self._holds) >= HOLDS_MAX:
            del self._holds[min(self._holds, key=lambda each: self._holds[each].until)]
        self._holds[key] = hold
        return True

    def lift(self, provider: str, subject: Subject, value: str) -> Hold | None:
        """Take one away (an operator's word); the hold, or None when there was none."""
        return self._holds.pop((provider, subject, value), None)

    def of(
        self, provider: str, workspace: str, campaign: int, sending_domain: str, now: float
    ) -> Hold | None:
        """The hold that keeps this mail from this provider now, if any."""
        if not self._holds:
            return None
        for subject, value in (
            (Subject.CAMPAIGN, str(campaign)),
            (Subject.DOMAIN, sending_domain),
            (Subject.WORKSPACE, workspace),
        ):
            hold = self._holds.get((provider, subject, value))
            if hold is None:
                continue
            if hold.until > now:
                return hold
            del self._holds[provider, subject, value]
        return None

    def all(self, now: float) -> list[Hold]:
        """What is held now, the one that ends first in front."""
        for key in [key for key, hold in self._holds.items() if hold.until <= now]:
            del self._holds[key]
        return sorted(self._holds.values(), key=lambda hold: hold.until)
