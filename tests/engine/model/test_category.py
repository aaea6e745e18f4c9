"""The words for answers: each has a treatment, and only the group `address` is hard."""

from engine.model.category import TREATMENTS, Action, BounceClass, Category, Group


def test_every_category_has_a_treatment() -> None:
    assert set(TREATMENTS) == set(Category)


def test_only_a_bad_address_is_hard_and_suppressed_by_a_bounce() -> None:
    for category, treatment in TREATMENTS.items():
        bad = treatment.group is Group.ADDRESS
        assert (treatment.bounce_class is BounceClass.HARD) == bad
        assert (treatment.action is Action.SUPPRESS) == (bad or category is Category.COMPLAINT)


def test_what_is_no_bounce_has_no_class() -> None:
    assert {t.bounce_class for t in TREATMENTS.values() if t.group is Group.NONE} == {BounceClass.NONE}
