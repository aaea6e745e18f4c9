"""What every set of suppressions promises: the same tests run on the store and on its twin in memory.

A test module subclasses `SuppressionsContract` and gives it a fixture `suppressions`: one that is empty
and runs.
"""

from engine.model.content import MessageClass
from engine.mta.policy.suppression import (
    EVERYWHERE,
    Reason,
    Scope,
    ScopeKind,
    SuppressionEntry,
    SuppressionOrder,
)
from engine.mta.policy.suppression_codec import AddressHasher, domain_key, subscriber_key
from engine.mta.spool.suppressions import Suppressions

HASHER = AddressHasher(bytes(range(32)))
SHOP = Scope(ScopeKind.WORKSPACE, "shop")
NEWS = Scope(ScopeKind.LIST, "shop", "news.example.org")


def add(
    *keys: bytes,
    scope: Scope = EVERYWHERE,
    reason: Reason = Reason.MANUAL,
    at_ms: int = 1,
    source: str = "ann",
) -> SuppressionOrder:
    return SuppressionOrder(
        adds=True, keys=keys, at_ms=at_ms, scope=scope, reason=reason, source=source, key_check=HASHER.check
    )


def remove(*keys: bytes, at_ms: int = 9) -> SuppressionOrder:
    return SuppressionOrder(adds=False, keys=keys, at_ms=at_ms, key_check=HASHER.check)


def blocked(
    suppressions: Suppressions,
    recipient: str = "ann@x.test",
    *,
    subscriber: int = 17,
    workspace: str = "shop",
    list_id: str = "news.example.org",
    message_class: MessageClass = MessageClass.BULK,
) -> SuppressionEntry | None:
    domain = recipient.rpartition("@")[2]
    return suppressions.blocked(recipient, domain, subscriber, workspace, list_id, message_class)


class SuppressionsContract:
    """The promises of `engine.mta.spool.suppressions.Suppressions`."""

    async def test_an_empty_set_blocks_nobody(self, suppressions: Suppressions) -> None:
        assert blocked(suppressions) is None
        assert (suppressions.keys(), suppressions.version, suppressions.positions()) == (0, 0, {})

    async def test_an_address_is_blocked_in_every_spelling_once_it_is_applied(
        self, suppressions: Suppressions
    ) -> None:
        applied = await suppressions.apply(add(HASHER.key_of("ann@x.test")))
        assert (applied.changed, applied.added, applied.removed) == (1, 1, 0)
        for recipient in ("ann@x.test", "ANN@x.test", '"ann"@x.test'):
            assert str(blocked(suppressions, recipient)) == "manual (installation)"
        for other in ("ann+1@x.test", "bob@x.test", "ann@y.test"):
            assert blocked(suppressions, other) is None

    async def test_a_domain_is_blocked_for_everybody_in_it(self, suppressions: Suppressions) -> None:
        await suppressions.apply(add(domain_key("X.test")))
        assert blocked(suppressions, "bob@x.test") is not None
        assert blocked(suppressions, "bob@mail.x.test") is None
        await suppressions.apply(remove(domain_key("x.test")))
        assert blocked(suppressions, "bob@x.test") is None

    async def test_a_subscriber_is_blocked_at_every_address_within_the_workspace(
        self, suppressions: Suppressions
    ) -> None:
        await suppressions.apply(add(subscriber_key("shop", 17), scope=NEWS, reason=Reason.UNSUBSCRIBED))
        assert str(blocked(suppressions)) == "unsubscribed (list news.example.org)"
        assert blocked(suppressions, "ann@new.test") is not None
        assert blocked(suppressions, subscriber=18) is None
        assert blocked(suppressions, workspace="club") is None
        assert blocked(suppressions, workspace="", list_id="") is None
        assert blocked(suppressions, subscriber=0) is None
        assert blocked(suppressions, list_id="offers.example.org") is None
        assert blocked(suppressions, message_class=MessageClass.TRANSACTIONAL) is None

    async def test_every_scope_of_a_key_is_asked(self, suppressions: Suppressions) -> None:
        key = HASHER.key_of("ann@x.test")
        await suppressions.apply(add(key, scope=NEWS, reason=Reason.UNSUBSCRIBED))
        await suppressions.apply(add(key, scope=SHOP, reason=Reason.COMPLAINED))
        assert len(suppressions.standing(key)) == 2
        assert suppressions.keys() == 1
        assert str(blocked(suppressions, list_id="offers.example.org")) == "complained (workspace shop)"
        assert blocked(suppressions, workspace="club") is None

    async def test_the_version_moves_with_what_changes_and_with_nothing_else(
        self, suppressions: Suppressions
    ) -> None:
        order = add(HASHER.key_of("ann@x.test"))
        await suppressions.apply(order)
        version = suppressions.version
        assert version > 0
        again = await suppressions.apply(order)
        unknown = await suppressions.apply(remove(HASHER.key_of("bob@x.test")))
        assert (again.changed, unknown.changed, suppressions.version) == (0, 0, version)
        await suppressions.apply(remove(HASHER.key_of("ann@x.test")))
        assert suppressions.version > version

    async def test_what_is_removed_gets_mail_again_and_an_old_removal_takes_nothing(
        self, suppressions: Suppressions
    ) -> None:
        key = HASHER.key_of("ann@x.test")
        await suppressions.apply(add(key))
        removed = await suppressions.apply(remove(key))
        assert (removed.changed, removed.removed, suppressions.keys()) == (1, 1, 0)
        assert blocked(suppressions) is None
        await suppressions.apply(add(key, at_ms=10))
        await suppressions.apply(remove(key, at_ms=9))
        assert blocked(suppressions) is not None

    async def test_an_order_of_many_keys_is_applied_whole(self, suppressions: Suppressions) -> None:
        keys = [HASHER.key_of(f"a{number}@x.test") for number in range(3_700)]
        applied = await suppressions.apply(add(*keys, subscriber_key("shop", 1), domain_key("y.test")))
        assert (applied.changed, applied.added, suppressions.keys()) == (3_702, 3_702, 3_702)
        assert all(blocked(suppressions, f"a{number}@x.test") for number in range(0, 3_700, 100))
        assert (await suppressions.apply(remove(*keys))).removed == 3_700

    async def test_how_far_the_bus_was_read_is_kept(self, suppressions: Suppressions) -> None:
        await suppressions.reached("landing", 3)
        await suppressions.reached("landing", 4)
        await suppressions.reached("bounce", 1)
        assert suppressions.positions() == {"landing": 4, "bounce": 1}
