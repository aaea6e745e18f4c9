"""Who must not get mail: what a suppression is, what it stops, and how orders about it are merged.

A suppression stands under a key (an address by its keyed hash, a subscriber of a workspace, a recipient
domain) for a scope (the installation, a workspace, a list), with a reason, since when, and by whom.
Every reason stops every class of mail but one: who is `unsubscribed` still gets transactional mail. Of
one scope and reason there is one entry; it keeps the first time and the latest word.

Orders may come twice and in any order: a removal takes only what was said before it, so an old one that
is read again never takes back a newer suppression. At the limits of a key we rather suppress too much.
Pure: keys and records are octets (`suppression_codec`), times are arguments.
"""

from collections.abc import Iterable
from enum import IntEnum

from msgspec import Struct
from msgspec.structs import replace

from engine.model.content import MessageClass

ENTRIES_MAX = 200  # of one key; a record stays below LMDB's page count where reads get slow (some 10 kB)
NAME_OCTETS_MAX = 120  # of a workspace or list id; with the rest of its key it fits LMDB's 511
SOURCE_OCTETS_MAX = 120  # who said it and where; more is no provenance but a text
ORDER_KEYS_MAX = 20_000  # 380 kB with address keys: far below the bus's 1 MB


class SuppressionError(ValueError):
    """A key, scope or order that makes no sense; the message says why."""


class Reason(IntEnum):
    """Why. The numbers are on disk and on the bus: never reused."""

    UNSUBSCRIBED = 1
    COMPLAINED = 2
    HARD_BOUNCE = 3
    MANUAL = 4
    IMPORTED = 5
    ERASED = 6

    def stops(self, message_class: MessageClass) -> bool:
        """Who unsubscribed from a list still wants the receipt of what they buy."""
        return self is not Reason.UNSUBSCRIBED or message_class is not MessageClass.TRANSACTIONAL

    @property
    def words(self) -> str:
        return self.name.lower().replace("_", " ")


def check_name(name: str) -> str:
    """A workspace or list id that fits a record. Raises SuppressionError."""
    if "\0" in name or len(name.encode()) > NAME_OCTETS_MAX:
        raise SuppressionError(f"{name[:40]!r} is no name: up to {NAME_OCTETS_MAX} octets without NUL")
    return name


class ScopeKind(IntEnum):
    """How far a suppression reaches. The numbers are on disk and on the bus: never reused."""

    INSTALLATION = 0
    WORKSPACE = 1
    LIST = 2


class Scope(Struct, frozen=True, order=True, array_like=True, gc=False):
    """`workspace` is set but for the installation, `list_id` for a list alone."""

    kind: ScopeKind = ScopeKind.INSTALLATION
    workspace: str = ""
    list_id: str = ""

    def __post_init__(self) -> None:
        wanted = (self.kind is not ScopeKind.INSTALLATION, self.kind is ScopeKind.LIST)
        if (bool(self.workspace), bool(self.list_id)) != wanted:
            raise SuppressionError(f"a scope of kind {self.kind.name.lower()} does not have these names")
        check_name(self.workspace)
        check_name(self.list_id)

    def __str__(self) -> str:
        match self.kind:
            case ScopeKind.INSTALLATION:
                return "installation"
            case ScopeKind.WORKSPACE:
                return f"workspace {self.workspace}"
            case ScopeKind.LIST:
                return f"list {self.list_id}"

    def covers(self, workspace: str, list_id: str) -> bool:
        """Whether mail of that workspace and list is within it."""
        if self.kind is ScopeKind.INSTALLATION:
            return True
        if self.workspace != workspace:
            return False
        return self.kind is ScopeKind.WORKSPACE or self.list_id == list_id


EVERYWHERE = Scope()


class SuppressionEntry(Struct, frozen=True, array_like=True, gc=False):
    """One suppression of a key. Times are wall time in whole milliseconds: the first word, and the latest."""

    scope: Scope
    reason: Reason
    since_ms: int
    at_ms: int
    source: str = ""

    def __str__(self) -> str:
        """For events and reports; names no address."""
        return f"{self.reason.words} ({self.scope})"

    def stops(self, workspace: str, list_id: str, message_class: MessageClass) -> bool:
        """Whether mail of that workspace, list and class must not go."""
        return self.reason.stops(message_class) and self.scope.covers(workspace, list_id)


class SuppressionOrder(Struct, frozen=True, kw_only=True):
    """One word about many keys; what travels on the bus. `keys` in any order, at most ORDER_KEYS_MAX.

    An addition names scope and reason. A removal may leave either open: then it takes all of them.
    `key_check` is that of the hasher that made the address keys (see `suppression_codec`).
    """

    adds: bool
    keys: tuple[bytes, ...]
    at_ms: int  # wall time
    scope: Scope | None = None
    reason: Reason | None = None
    source: str = ""
    key_check: bytes = b""

    def __post_init__(self) -> None:
        if self.adds and (self.scope is None or self.reason is None):
            raise SuppressionError("an addition names its scope and its reason")
        if self.at_ms < 0:
            raise SuppressionError("the time of an order is before 1970")
        if len(self.keys) > ORDER_KEYS_MAX:
            raise SuppressionError(f"an order has {len(self.keys)} keys, more than {ORDER_KEYS_MAX}")
        if len(self.source.encode()) > SOURCE_OCTETS_MAX:
            raise SuppressionError(f"the source of an order has more than {SOURCE_OCTETS_MAX} octets")

    @property
    def entry(self) -> SuppressionEntry:
        """What an addition puts under each of its keys."""
        assert self.adds
        assert self.scope is not None
        assert self.reason is not None
        return SuppressionEntry(self.scope, self.reason, self.at_ms, self.at_ms, self.source)

    def takes(self, entry: SuppressionEntry) -> bool:
        """Whether a removal takes this entry: not one that was said after it."""
        assert not self.adds
        return (
            entry.at_ms <= self.at_ms
            and (self.scope is None or self.scope == entry.scope)
            and (self.reason is None or self.reason is entry.reason)
        )


def merge(standing: tuple[SuppressionEntry, ...], order: SuppressionOrder) -> tuple[SuppressionEntry, ...]:
    """What stands under a key after an order; the same tuple when nothing changes."""
    if not order.adds:
        left = tuple(entry for entry in standing if not order.takes(entry))
        return standing if len(left) == len(standing) else left
    new = order.entry
    known = {(entry.scope, entry.reason): entry for entry in standing}
    if (new.scope, new.reason) not in known and len(standing) >= ENTRIES_MAX:
        new = replace(new, scope=EVERYWHERE)  # no room for another list: better none than one too many
    place = (new.scope, new.reason)
    old = known.get(place)
    if old is not None:
        latest = new if new.at_ms > old.at_ms else old
        new = replace(latest, since_ms=min(old.since_ms, new.since_ms))
        if new == old:
            return standing
    known[place] = new
    return tuple(sorted(known.values(), key=lambda entry: (entry.scope, entry.reason)))


def find_blocking(
    entries: Iterable[SuppressionEntry], workspace: str, list_id: str, message_class: MessageClass
) -> SuppressionEntry | None:
    """The first entry that stops such mail, if any does."""
    for entry in entries:
        if entry.stops(workspace, list_id, message_class):
            return entry
    return None


def parse_scope(text: str) -> Scope:
    """`installation`, `workspace:W` or `list:W/L`. Raises SuppressionError."""
    kind, _, rest = text.partition(":")
    workspace, slash, list_id = rest.partition("/")
    match kind:
        case "installation" if not rest:
            return EVERYWHERE
        case "workspace" if rest:
            return Scope(ScopeKind.WORKSPACE, rest)
        case "list" if workspace and slash and list_id:
            return Scope(ScopeKind.LIST, workspace, list_id)
        case _:
            raise SuppressionError(
                f"{text[:60]!r} is no scope: write installation, workspace:NAME or list:WORKSPACE/LIST-ID"
            )


def describe_scope(scope: Scope) -> str:
    """As `parse_scope` reads it."""
    match scope.kind:
        case ScopeKind.INSTALLATION:
            return "installation"
        case ScopeKind.WORKSPACE:
            return f"workspace:{scope.workspace}"
        case ScopeKind.LIST:
            return f"list:{scope.workspace}/{scope.list_id}"
