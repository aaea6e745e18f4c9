"""Holds end by themselves, concern one provider, and never pile up."""

from engine.mta.policy.holds import HOLDS_MAX, Hold, Holds, Subject


def hold(value: str = "7", until: float = 100.0, subject: Subject = Subject.CAMPAIGN) -> Hold:
    return Hold("google", subject, value, until, "its content is refused as spam")


def test_a_held_campaign_is_held_at_that_provider_only() -> None:
    holds = Holds()
    assert holds.put(hold())
    assert holds.of("google", "default", 7, "a.example", 10.0) == hold()
    assert holds.of("yahoo", "default", 7, "a.example", 10.0) is None
    assert holds.of("google", "default", 8, "a.example", 10.0) is None


def test_a_sending_domain_and_a_workspace_are_held_by_name() -> None:
    holds = Holds()
    holds.put(hold("a.example", subject=Subject.DOMAIN))
    holds.put(hold("shop", subject=Subject.WORKSPACE))
    assert holds.of("google", "default", 1, "a.example", 0.0) is not None
    assert holds.of("google", "shop", 1, "b.example", 0.0) is not None
    assert holds.of("google", "default", 1, "b.example", 0.0) is None


def test_a_hold_ends_by_itself() -> None:
    holds = Holds()
    holds.put(hold(until=100.0))
    assert holds.of("google", "default", 7, "", 100.0) is None
    assert not holds


def test_the_later_end_counts() -> None:
    holds = Holds()
    assert holds.put(hold(until=100.0))
    assert not holds.put(hold(until=50.0))
    assert holds.put(hold(until=200.0))
    assert [each.until for each in holds.all(0.0)] == [200.0]


def test_an_operator_lifts_a_hold() -> None:
    holds = Holds()
    holds.put(hold())
    assert holds.lift("google", Subject.CAMPAIGN, "7") == hold()
    assert holds.lift("google", Subject.CAMPAIGN, "7") is None
    assert holds.of("google", "default", 7, "", 0.0) is None


def test_the_number_of_holds_is_bounded() -> None:
    holds = Holds()
    for number in range(HOLDS_MAX + 5):
        holds.put(hold(str(number), until=1_000.0 + number))
    kept = holds.all(0.0)
    assert len(kept) == HOLDS_MAX
    assert kept[0].until == 1_005.0, "those that end first made room"


def test_a_hold_reads_as_a_sentence() -> None:
    assert str(hold()) == "campaign 7 at google: its content is refused as spam"
