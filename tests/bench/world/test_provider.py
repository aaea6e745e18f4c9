"""A provider's memory: attempts, greylisting and rates, on a clock that is only a number."""

from bench.world.manners import Manners, Moment, busy, hang_up
from bench.world.provider import Provider

WHO = "anna@box.test"


def test_a_busy_mailbox_is_free_after_its_seconds_since_the_first_attempt():
    provider = Provider("p", Manners(troubles=(busy(1.0, 3.0),)))
    met = [provider.trouble(Moment.RCPT, WHO, now) is not None for now in (10.0, 11.0, 12.9, 13.0, 20.0)]
    assert met == [True, True, True, False, False]


def test_a_hang_up_happens_as_often_as_told_for_each_recipient():
    provider = Provider("p", Manners(troubles=(hang_up(Moment.REPLY, 1.0, times=2),)))
    met = [provider.trouble(Moment.REPLY, WHO, 0.0) is not None for _ in range(4)]
    assert met == [True, True, False, False]
    assert provider.trouble(Moment.REPLY, "other@box.test", 0.0) is not None
    assert provider.tally.troubles == {"hang_up_reply": 3}


def test_greylisting_remembers_the_triplet_not_the_recipient():
    provider = Provider("p", Manners(greylist_seconds=5.0))
    assert provider.greylisted("127.0.0.1", b"a@x", WHO, 0.0)
    assert provider.greylisted("127.0.0.1", b"a@x", WHO, 4.9)
    assert not provider.greylisted("127.0.0.1", b"a@x", WHO, 5.0)
    assert provider.greylisted("127.0.0.2", b"a@x", WHO, 5.0)
    assert provider.greylisted("127.0.0.1", b"b@x", WHO, 5.0)


def test_connections_are_counted_for_each_source_and_in_all():
    provider = Provider("p", Manners())
    for source in ("127.0.0.1", "127.0.0.1", "127.0.0.2"):
        provider.opened(source)
    provider.closed("127.0.0.1")
    assert provider.open_connections == 2
    told = provider.statistics()
    assert (told["connections"], told["connections_peak"], told["blocks"]) == (3, 2, 0)
    assert told["sources"]["127.0.0.2"]["connections_peak"] == 1


def test_a_provider_serves_its_domains_and_without_any_all():
    assert Provider("p", Manners()).serves("a@anything.test")
    provider = Provider("p", Manners(), domains=frozenset({"box.test"}))
    assert provider.serves(WHO)
    assert not provider.serves("a@other.test")
