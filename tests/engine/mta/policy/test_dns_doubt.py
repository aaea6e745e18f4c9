"""When a domain's end is believed."""

from engine.mta.policy import dns_doubt
from engine.mta.policy.dns_doubt import ASKED_MIN, DOUBT_SECONDS, GOOD_SECONDS, DnsDoubt

NOW = 5.0


def test_a_domain_that_was_never_there_is_believed_at_once() -> None:
    assert DnsDoubt().absent("typo.test", NOW) == ""


def test_a_domain_that_had_a_route_today_is_doubted_for_an_hour() -> None:
    doubt = DnsDoubt()
    doubt.found("x.test", NOW)
    assert doubt.absent("x.test", NOW + 10) == "it had a route within the last day"
    assert doubt.absent("x.test", NOW + DOUBT_SECONDS) != ""
    assert doubt.absent("x.test", NOW + 10 + DOUBT_SECONDS) == ""
    assert doubt.absent("x.test", NOW + 20 + DOUBT_SECONDS) == "", "believed once, it stays so"


def test_an_hour_of_doubt_begins_anew_after_a_good_answer() -> None:
    doubt = DnsDoubt()
    doubt.found("x.test", NOW)
    assert doubt.absent("x.test", NOW + 10)
    doubt.found("x.test", NOW + 600)
    assert doubt.absent("x.test", NOW + 10 + DOUBT_SECONDS)


def test_a_route_of_the_day_before_is_no_reason_to_doubt() -> None:
    doubt = DnsDoubt()
    doubt.found("x.test", NOW)
    assert doubt.absent("x.test", NOW + GOOD_SECONDS) == ""


def test_a_resolver_that_denies_everything_is_doubted() -> None:
    doubt = DnsDoubt()
    for number in range(ASKED_MIN):
        doubt.found(f"good{number}.test", NOW)
    denied = [doubt.absent(f"d{number}.test", NOW + 1) for number in range(20)]
    assert denied[:ASKED_MIN] == [""] * ASKED_MIN
    assert set(denied[ASKED_MIN:]) == {"the resolver says so of most domains"}
    assert doubt.absent("d19.test", NOW + 1 + DOUBT_SECONDS) == ""


def test_it_is_believed_again_when_others_are_found_but_not_about_those_in_doubt() -> None:
    doubt = DnsDoubt()
    for number in range(ASKED_MIN):
        doubt.absent(f"d{number}.test", NOW)
    assert doubt.absent("in-doubt.test", NOW)
    for number in range(30):
        doubt.found(f"good{number}.test", NOW)
    assert doubt.absent("typo.test", NOW) == ""
    assert doubt.absent("in-doubt.test", NOW + 60) == "it was doubted a while ago"


def test_memory_is_bounded(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(dns_doubt, "DOMAINS_KEPT_MAX", 3)
    doubt = DnsDoubt()
    for number in range(5):
        doubt.found(f"d{number}.test", NOW)
    assert repr(doubt) == "<DnsDoubt: 3 domains known, 0 doubted>"
    assert doubt.absent("d0.test", NOW) == "", "the longest known one was forgotten"
    assert doubt.absent("d4.test", NOW) != ""


def test_a_few_dead_domains_that_are_asked_about_all_the_time_are_believed() -> None:
    """Each of a million addresses asks; routes of the living are known and not asked for."""
    doubt = DnsDoubt()
    for number in range(15):
        doubt.found(f"good{number}.test", NOW)
    for round_ in range(100):
        assert doubt.absent("typo.test", NOW + round_) == ""
        assert doubt.absent("gone.test", NOW + round_) == ""
