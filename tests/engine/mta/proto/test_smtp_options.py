"""Facts with a little behaviour."""

from itertools import permutations

from engine.model.reply import Verb
from engine.mta.proto.smtp_options import Knowledge, PipeliningVerdict, TimeLimits


def test_default_time_limits_are_those_of_rfc_5321_4_5_3_2() -> None:
    limits = TimeLimits()
    seconds = [limits.seconds(verb) for verb in (Verb.BANNER, Verb.MAIL, Verb.RCPT, Verb.DATA, Verb.CONTENT)]
    assert seconds == [300, 300, 300, 120, 600]
    assert limits.block == 180
    assert all(limits.seconds(verb) > 0 for verb in Verb)


def test_a_site_is_odd_when_flights_are_refused() -> None:
    assert PipeliningVerdict(inside=Knowledge.REFUSED).odd
    assert not PipeliningVerdict(across=Knowledge.REFUSED).odd


def test_connections_of_a_site_that_end_in_any_order_leave_one_verdict() -> None:
    start = PipeliningVerdict(inside=Knowledge.WORKS, served=10)
    works = PipeliningVerdict(inside=Knowledge.WORKS, across=Knowledge.WORKS, served=15)
    refuses = PipeliningVerdict(inside=Knowledge.WORKS, across=Knowledge.REFUSED, served=12, note="503")
    nothing = PipeliningVerdict(inside=Knowledge.WORKS, served=11)
    expected = PipeliningVerdict(inside=Knowledge.WORKS, across=Knowledge.REFUSED, served=18, note="503")
    for order in permutations([works, refuses, nothing]):
        site = start
        for learned in order:
            site = site.after(start, learned)
        assert site == expected
