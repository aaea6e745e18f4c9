"""What was seen during one run, from outside of the engine: the evidence that `checks` judges.

Receivers, network, disk and saboteur tell it what happens; each fact goes into a digest at once, so that
two runs of one seed can be compared, and onto the screen when somebody watches.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import trio
from msgspec import Struct


class Receipt(Struct, frozen=True):
    """A message that a receiver took."""

    recipient: str
    message_id: str
    at: float
    wire: int
    answered: bool


class WireFacts(Struct):
    """One connection as its engine's end saw it. `messages` counts MAIL commands handed to the network."""

    number: int
    source: str
    site: str
    opened_at: float
    closed_at: float = float("inf")
    messages: int = 0


class CrashFacts(Struct, frozen=True):
    """An actor's crash; `injected`: by the saboteur, or by a disk that was told to fail."""

    actor: str
    error: str
    injected: bool


class Witness:
    """Evidence of one run. Times are virtual seconds."""

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self.receipts: list[Receipt] = []
        self.wires: list[WireFacts] = []
        self.mails: dict[tuple[str, str], list[float]] = {}  # (source, site) -> times of MAIL commands
        self.crashes: list[CrashFacts] = []
        self.errors: list[str] = []  # lines of the engine's log at level error
        self.starts: list[float] = []  # when an incarnation of the process began
        self.faults: Counter[str] = Counter()
        self.protocol_errors: Counter[str] = Counter()
        self._digest = hashlib.blake2b(digest_size=16)
        self._tell = tell

    @property
    def transcript(self) -> str:
        """The digest of everything noted so far."""
        return self._digest.hexdigest()

    def note(self, what: str, *facts: Any) -> None:
        line = f"{trio.current_time():.6f} {what} {' '.join(map(str, facts))}"
        self._digest.update(line.encode())
        if self._tell is not None:
            self._tell(line)

    def fault(self, what: str, *facts: Any) -> None:
        self.faults[what] += 1
        self.note("FAULT", what, *facts)

    # --- the network -------------------------------------------------------------------------------------

    def opened(self, source: str, site: str) -> WireFacts:
        facts = WireFacts(len(self.wires), source, site, trio.current_time())
        self.wires.append(facts)
        self.note("dials", facts.number, source, site)
        return facts

    def closed(self, facts: WireFacts) -> None:
        if facts.closed_at == float("inf"):
            facts.closed_at = trio.current_time()
            self.note("closed", facts.number)

    def sent(self, facts: WireFacts, octets: bytes) -> None:
        """Octets were handed to the network. Contents of the simulation hold no MAIL command."""
        count = octets.count(b"MAIL FROM:<")
        if count:
            facts.messages += count
            self.mails.setdefault((facts.source, facts.site), []).extend([trio.current_time()] * count)
        self.note("sent", facts.number, len(octets), count)

    def received(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)
        self.note("accepted", receipt.wire, receipt.recipient, receipt.answered)

    # --- the engine --------------------------------------------------------------------------------------

    def crashed(self, crash: CrashFacts) -> None:
        self.crashes.append(crash)
        self.note("crash", crash.actor, crash.error)
