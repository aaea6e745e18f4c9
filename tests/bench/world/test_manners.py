"""Who is hit by a trouble follows from the seed alone, in the share that was asked for."""

import pytest

from bench.world.manners import Moment, Trouble, bounced, busy, fraction, hang_up


def test_a_fraction_depends_on_seed_kind_and_recipient_only():
    assert fraction(1, "a@b.test", "x") == fraction(1, "a@b.test", "x")
    different = {
        fraction(1, "a@b.test", "x"),
        fraction(2, "a@b.test", "x"),
        fraction(1, "c@b.test", "x"),
        fraction(1, "a@b.test", "y"),
    }
    assert len(different) == 4


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_a_trouble_hits_about_its_share(share):
    trouble = bounced(share)
    hit = sum(trouble.hits(1, f"r{number}@box.test") for number in range(5000))
    assert hit / 5000 == pytest.approx(share, abs=0.02)


def test_only_hits_exactly_the_recipients_that_begin_so():
    trouble = Trouble("forced", Moment.RCPT, 0.0, "550 no", only="permfail")
    assert trouble.hits(1, "permfail7@box.test")
    assert not trouble.hits(1, "anna@box.test")


def test_only_a_trouble_without_times_and_seconds_lasts():
    assert bounced(1.0).lasts
    assert not busy(1.0, 3.0).lasts
    assert not hang_up(Moment.REPLY, 1.0).lasts
