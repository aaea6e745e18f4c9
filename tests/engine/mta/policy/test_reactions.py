"""What complaints call for: the table, and what repeats, calm and shares do to it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.category import TREATMENTS, Action, Category, Key
from engine.mta.policy.reactions import (
    HOUR,
    MINUTE,
    SUBJECTS_MAX,
    THRESHOLDS,
    Reaction,
    ReactionKind,
    Reactions,
    threshold_of,
)

C = Category


def see(
    reactions: Reactions, now: float, category: Category, key: Key = Key.NONE, **facts: Any
) -> Reaction | None:
    told = {
        "action": TREATMENTS[category].action,
        "rule": "r",
        "text": "no",
        "campaign": 7,
        "sending_domain": "a.test",
        "workspace": "w",
        **facts,
    }
    return reactions.observe(now, category=category, key=key, **told)


@pytest.mark.parametrize(
    ("category", "key", "count", "kind", "seconds", "subject"),
    [
        (C.RATE_LIMITED, Key.NONE, 1, ReactionKind.SLOW, 0, ""),
        (C.RATE_LIMITED, Key.IP, 1, ReactionKind.SLOW, 0, ""),
        (C.RATE_LIMITED, Key.CONNECTION, 1, ReactionKind.RECONNECT, 0, ""),
        (C.RATE_LIMITED, Key.DOMAIN, 1, ReactionKind.HOLD_DOMAIN, 5 * MINUTE, "a.test"),
        (C.RATE_LIMITED, Key.URL, 1, ReactionKind.HOLD_DOMAIN, 5 * MINUTE, "a.test"),
        (C.RATE_LIMITED, Key.WORKSPACE, 1, ReactionKind.HOLD_WORKSPACE, 5 * MINUTE, "w"),
        (C.RATE_LIMITED, Key.CAMPAIGN, 1, ReactionKind.HOLD_CAMPAIGN, 5 * MINUTE, "7"),
        (C.REPUTATION_BLOCK, Key.IP, 1, ReactionKind.REST_PATH, 15 * MINUTE, ""),
        (C.REPUTATION_BLOCK, Key.NONE, 3, ReactionKind.REST_PATH, 15 * MINUTE, ""),
        (C.REPUTATION_BLOCK, Key.DOMAIN, 1, ReactionKind.HOLD_DOMAIN, 15 * MINUTE, "a.test"),
        (C.REPUTATION_BLOCK, Key.URL, 3, ReactionKind.HOLD_CAMPAIGN, HOUR, "7"),
        (C.AUTH_FAILED, Key.DOMAIN, 3, ReactionKind.HOLD_DOMAIN, HOUR, "a.test"),
        (C.SPAM_CONTENT, Key.CAMPAIGN, 5, ReactionKind.HOLD_CAMPAIGN, HOUR, "7"),
        (C.SPAM_CONTENT, Key.URL, 3, ReactionKind.HOLD_CAMPAIGN, HOUR, "7"),
        (C.CONTENT_REFUSED, Key.CAMPAIGN, 5, ReactionKind.HOLD_CAMPAIGN, HOUR, "7"),
        (C.TOO_LARGE, Key.CAMPAIGN, 5, ReactionKind.HOLD_CAMPAIGN, HOUR, "7"),
    ],
)
def test_the_table(
    category: Category, key: Key, count: int, kind: ReactionKind, seconds: float, subject: str
) -> None:
    reactions = Reactions()
    seen = [see(reactions, float(number), category, key) for number in range(count)]
    assert seen[:-1] == [None] * (count - 1)
    last = seen[-1]
    assert last is not None
    assert (last.kind, last.seconds, last.subject, last.rule) == (kind, seconds, subject, "r")
    assert last.reason.endswith("no")


@pytest.mark.parametrize(
    ("category", "key"),
    [
        (C.RATE_LIMITED, Key.RECIPIENT),
        (C.BAD_MAILBOX, Key.NONE),
        (C.MAILBOX_FULL, Key.NONE),
        (C.GREYLISTED, Key.NONE),
        (C.POLICY, Key.NONE),
        (C.UNKNOWN, Key.NONE),
    ],
)
def test_what_concerns_one_recipient_calls_for_nothing(category: Category, key: Key) -> None:
    reactions = Reactions()
    assert [see(reactions, 1.0, category, key) for _ in range(100)] == [None] * 100


def test_a_block_rests_the_path_for_twice_as_long_while_it_repeats() -> None:
    reactions, now, rests = Reactions(), 0.0, []
    for _ in range(6):
        reaction = see(reactions, now, C.REPUTATION_BLOCK, Key.IP)
        assert reaction is not None
        assert see(reactions, now + 1, C.REPUTATION_BLOCK, Key.IP) is None, "still under way when it began"
        rests.append(reaction.seconds / MINUTE)
        now += reaction.seconds + 1
    assert rests == [15, 30, 60, 120, 120, 120]


def test_calm_is_rewarded_step_by_step() -> None:
    reactions = Reactions()
    see(reactions, 0.0, C.REPUTATION_BLOCK, Key.IP)
    second = see(reactions, 16 * MINUTE, C.REPUTATION_BLOCK, Key.IP)
    assert second is not None
    assert second.seconds == 30 * MINUTE
    later = see(reactions, 46 * MINUTE + 4 * 30 * MINUTE, C.REPUTATION_BLOCK, Key.IP)
    assert later is not None
    assert later.seconds == 30 * MINUTE, "one step forgiven"
    much_later = see(reactions, 100 * HOUR, C.REPUTATION_BLOCK, Key.IP)
    assert much_later is not None
    assert much_later.seconds == 15 * MINUTE


def test_a_stated_wait_is_longer_than_the_table() -> None:
    reaction = see(Reactions(), 0.0, C.RATE_LIMITED, Key.DOMAIN, retry_after_seconds=1_800.0)
    assert reaction is not None
    assert reaction.seconds == 1_800
    slow = see(Reactions(), 0.0, C.RATE_LIMITED, Key.IP, retry_after_seconds=60.0)
    assert slow is not None
    assert slow.seconds == 60


def test_rare_complaints_never_add_up() -> None:
    reactions = Reactions()
    assert [see(reactions, number * 400.0, C.AUTH_FAILED) for number in range(50)] == [None] * 50


def test_a_text_is_held_only_when_it_is_a_share_of_its_campaign() -> None:
    reactions = Reactions()
    reactions.attempted(0.0, 7, 10_000)
    assert [see(reactions, 1.0, C.SPAM_CONTENT) for _ in range(199)] == [None] * 199
    held = see(reactions, 1.0, C.SPAM_CONTENT)
    assert held is not None, "2 % of ten thousand"
    assert held.reason == "5 replies in 0 s: no"
    assert see(reactions, 2.0, C.SPAM_CONTENT, campaign=8) is None, "another campaign goes on"


def test_mail_without_a_campaign_or_domain_is_not_held() -> None:
    reactions = Reactions()
    assert see(reactions, 0.0, C.RATE_LIMITED, Key.DOMAIN, sending_domain="") is None
    assert [see(reactions, 0.0, C.SPAM_CONTENT, campaign=0) for _ in range(9)] == [None] * 9


@pytest.mark.parametrize(
    ("category", "action", "kind"),
    [
        (C.POLICY, Action.PAUSE_ROUTE, ReactionKind.REST_PATH),
        (C.AUTH_FAILED, Action.PAUSE_ROUTE, ReactionKind.REST_PATH),
        (C.POLICY, Action.PAUSE_DOMAIN, ReactionKind.HOLD_DOMAIN),
        (C.POLICY, Action.PAUSE_CAMPAIGN, ReactionKind.HOLD_CAMPAIGN),
        (C.REMOTE_SYSTEM_ERROR, Action.THROTTLE, ReactionKind.SLOW),
        (C.REPUTATION_BLOCK, Action.ALERT, None),
        (C.RATE_LIMITED, Action.RETRY, None),
    ],
)
def test_a_rules_own_action_counts(category: Category, action: Action, kind: ReactionKind | None) -> None:
    row = threshold_of(category, Key.NONE, action)
    assert (row.kind if row else None) is kind
    assert threshold_of(C.RATE_LIMITED, Key.CONNECTION, Action.RETRY) is not None


def test_every_row_is_of_a_category_that_reacts() -> None:
    for (category, key), row in THRESHOLDS.items():
        found = threshold_of(category, key or Key.NONE, TREATMENTS[category].action)
        assert found is not None
        assert row.seconds <= row.seconds_max
        assert row.count >= 1


def test_memory_is_bounded() -> None:
    reactions = Reactions()
    for number in range(3 * SUBJECTS_MAX):
        see(reactions, 0.0, C.AUTH_FAILED, sending_domain=f"d{number}.test")
        reactions.attempted(0.0, number)
    assert repr(reactions) == f"<Reactions: {SUBJECTS_MAX} complaints, 0 held for lately>"


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 4_000.0),
            st.sampled_from(list(Category)),
            st.sampled_from(list(Key)),
            st.sampled_from(list(Action)),
            st.one_of(st.none(), st.floats(-1e12, 1e12)),
            st.text(max_size=300),
        ),
        max_size=60,
    )
)
def test_any_reply_is_an_outcome_with_bounds(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    reactions, now = Reactions(), 0.0
    for pause, category, key, action, wait, text in steps:
        now += pause
        reaction = see(reactions, now, category, key, action=action, retry_after_seconds=wait, text=text)
        if reaction is not None:
            assert 0 <= reaction.seconds <= 86_400
            assert reaction.kind is not ReactionKind.NONE
            assert len(reaction.reason) < 200


def test_what_an_operator_has_lifted_is_called_for_again_by_the_next_complaint() -> None:
    reactions = Reactions()
    assert see(reactions, 0.0, C.REPUTATION_BLOCK, Key.IP) is not None
    assert see(reactions, 10.0, C.REPUTATION_BLOCK, Key.IP) is None
    reactions.lifted(20.0, ReactionKind.HOLD_DOMAIN, "a.test")
    assert see(reactions, 21.0, C.REPUTATION_BLOCK, Key.IP) is None
    reactions.lifted(30.0, ReactionKind.REST_PATH)
    again = see(reactions, 31.0, C.REPUTATION_BLOCK, Key.IP)
    assert again is not None
    assert again.kind is ReactionKind.REST_PATH


def test_a_block_for_now_rests_the_path_for_a_minute_and_longer_each_time() -> None:
    reactions, now, rests = Reactions(), 0.0, []
    for _ in range(8):
        reaction = see(reactions, now, C.REPUTATION_BLOCK, Key.IP, for_now=True)
        assert reaction is not None
        assert reaction.kind is ReactionKind.REST_PATH
        rests.append(reaction.seconds / MINUTE)
        now += reaction.seconds + 1
    assert rests == [1, 2, 4, 8, 16, 32, 64, 120]
