"""What a suppression stops, how far it reaches, and how words about it are merged."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.content import MessageClass
from engine.mta.policy.suppression import (
    ENTRIES_MAX,
    EVERYWHERE,
    ORDER_KEYS_MAX,
    Reason,
    Scope,
    ScopeKind,
    SuppressionEntry,
    SuppressionError,
    SuppressionOrder,
    describe_scope,
    find_blocking,
    merge,
    parse_scope,
)

SHOP = Scope(ScopeKind.WORKSPACE, "shop")
NEWS = Scope(ScopeKind.LIST, "shop", "news.example.org")
SCOPES = (EVERYWHERE, SHOP, NEWS)
KEYS = (b"A" + bytes(16),)


def add(scope: Scope, reason: Reason, at_ms: int = 1, source: str = "ann") -> SuppressionOrder:
    return SuppressionOrder(adds=True, keys=KEYS, at_ms=at_ms, scope=scope, reason=reason, source=source)


def remove(at_ms: int, scope: Scope | None = None, reason: Reason | None = None) -> SuppressionOrder:
    return SuppressionOrder(adds=False, keys=KEYS, at_ms=at_ms, scope=scope, reason=reason)


def merged(*orders: SuppressionOrder) -> tuple[SuppressionEntry, ...]:
    standing: tuple[SuppressionEntry, ...] = ()
    for order in orders:
        standing = merge(standing, order)
    return standing


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("message_class", MessageClass)
def test_everything_stops_every_class_but_unsubscribed_the_transactional_one(
    reason: Reason, message_class: MessageClass
) -> None:
    passes = reason is Reason.UNSUBSCRIBED and message_class is MessageClass.TRANSACTIONAL
    entry = SuppressionEntry(EVERYWHERE, reason, 1, 1)
    assert entry.stops("shop", "news.example.org", message_class) is not passes


@pytest.mark.parametrize(
    ("scope", "workspace", "list_id", "covered"),
    [
        (EVERYWHERE, "shop", "news.example.org", True),
        (EVERYWHERE, "", "", True),
        (SHOP, "shop", "offers.example.org", True),
        (SHOP, "club", "news.example.org", False),
        (NEWS, "shop", "news.example.org", True),
        (NEWS, "shop", "offers.example.org", False),
        (NEWS, "club", "news.example.org", False),
        (NEWS, "shop", "", False),
    ],
)
def test_a_scope_covers_what_it_names(scope: Scope, workspace: str, list_id: str, covered: bool) -> None:
    assert scope.covers(workspace, list_id) is covered


def test_the_words_of_an_entry_name_reason_and_scope() -> None:
    told = [str(SuppressionEntry(scope, Reason.HARD_BOUNCE, 1, 1, "ann")) for scope in SCOPES]
    assert told == [
        "hard bounce (installation)",
        "hard bounce (workspace shop)",
        "hard bounce (list news.example.org)",
    ]


def test_the_entry_that_stops_is_found_among_others() -> None:
    standing = merged(add(NEWS, Reason.UNSUBSCRIBED), add(SHOP, Reason.COMPLAINED))
    found = find_blocking(standing, "shop", "offers.example.org", MessageClass.TRANSACTIONAL)
    assert found is not None
    assert (found.scope, found.reason) == (SHOP, Reason.COMPLAINED)
    assert find_blocking(standing, "club", "news.example.org", MessageClass.BULK) is None


def test_the_same_word_again_keeps_the_first_time_and_the_latest_source() -> None:
    (entry,) = merged(add(SHOP, Reason.MANUAL, 5, "ann"), add(SHOP, Reason.MANUAL, 9, "bob"))
    assert (entry.since_ms, entry.at_ms, entry.source) == (5, 9, "bob")
    standing = (entry,)
    assert merge(standing, add(SHOP, Reason.MANUAL, 9, "bob")) is standing


def test_scopes_and_reasons_stand_beside_each_other() -> None:
    standing = merged(*(add(scope, reason) for scope in SCOPES for reason in Reason))
    assert len(standing) == len(SCOPES) * len(Reason)
    left = merge(standing, remove(2, scope=NEWS))
    assert {entry.scope for entry in left} == {EVERYWHERE, SHOP}
    left = merge(left, remove(2, reason=Reason.MANUAL))
    assert Reason.MANUAL not in {entry.reason for entry in left}
    assert merge(left, remove(2)) == ()


def test_an_old_removal_that_is_read_again_takes_nothing_that_was_said_since() -> None:
    standing = merged(add(SHOP, Reason.COMPLAINED, 5), remove(6), add(SHOP, Reason.COMPLAINED, 7))
    assert merge(standing, remove(6)) is standing
    assert len(standing) == 1


@given(st.permutations([add(SHOP, Reason.MANUAL, at, f"at {at}") for at in range(1, 6)]))
def test_the_order_of_additions_does_not_matter(orders: list[SuppressionOrder]) -> None:
    (entry,) = merged(*orders)
    assert (entry.since_ms, entry.at_ms, entry.source) == (1, 5, "at 5")


def test_whatever_the_order_a_newer_word_survives_a_removal() -> None:
    orders = (add(SHOP, Reason.MANUAL, 1), remove(2), add(SHOP, Reason.MANUAL, 3))
    assert all(len(merged(*each)) == 1 for each in permutations(orders))


def test_with_no_room_for_another_list_the_whole_installation_is_suppressed() -> None:
    lists = [Scope(ScopeKind.LIST, "shop", f"l{number}.example.org") for number in range(ENTRIES_MAX)]
    standing = merged(*(add(scope, Reason.UNSUBSCRIBED) for scope in lists))
    assert len(standing) == ENTRIES_MAX
    assert merge(standing, add(lists[0], Reason.UNSUBSCRIBED)) is standing
    wider = merge(standing, add(NEWS, Reason.UNSUBSCRIBED))
    assert find_blocking(wider, "shop", "news.example.org", MessageClass.BULK) is not None


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_is_written_as_it_is_read(scope: Scope) -> None:
    assert parse_scope(describe_scope(scope)) == scope


@pytest.mark.parametrize(
    "text", ["", "shop", "workspace:", "list:shop", "list:/x", "list:shop/", "installation:x", "w" * 200]
)
def test_a_scope_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SuppressionError, match="no scope"):
        parse_scope(text)


def test_names_that_fit_no_record_are_refused() -> None:
    with pytest.raises(SuppressionError, match="no name"):
        Scope(ScopeKind.WORKSPACE, "w" * 121)
    with pytest.raises(SuppressionError, match="does not have"):
        Scope(ScopeKind.LIST, "shop")
    with pytest.raises(SuppressionError, match="does not have"):
        Scope(ScopeKind.INSTALLATION, "shop")


def test_orders_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SuppressionError, match="names its scope"):
        SuppressionOrder(adds=True, keys=KEYS, at_ms=1)
    with pytest.raises(SuppressionError, match="20001 keys"):
        SuppressionOrder(adds=False, keys=KEYS * (ORDER_KEYS_MAX + 1), at_ms=1)
    with pytest.raises(SuppressionError, match="source"):
        add(EVERYWHERE, Reason.MANUAL, source="x" * 121)
    with pytest.raises(SuppressionError, match="1970"):
        remove(-1)
