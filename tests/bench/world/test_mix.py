"""The mix of a real list: proportions, reserved names, limits that scale with the list and the time."""

import msgspec
import pytest

from bench.world.mix import KINDS, TAIL_DOMAINS, TAIL_SITES, real_list
from bench.world.optimum import bounds, optimum_seconds
from bench.world.process import load_spec


def recipients(spec, number):
    return [person.email for person in spec.addresses(number)]


def test_every_name_is_reserved_and_the_tail_is_long():
    spec = real_list(1_000, 10.0)
    assert all(name.endswith((".example", ".test")) for name in [*spec.domains, *spec.addresses_of_hosts])
    assert len(spec.providers) == len(KINDS) + TAIL_SITES
    assert sum(name.endswith(".test") and ".firm" in name for name in spec.domains) == TAIL_DOMAINS
    assert sum(spec.domains.values()) == pytest.approx(100.0, rel=0.01)


@pytest.mark.parametrize(("messages", "seconds"), [(10_000, 10.0), (10_000, 150.0), (500, 30.0)])
def test_the_slowest_providers_need_about_the_time_asked_for(messages, seconds):
    spec = real_list(messages, seconds)
    assert optimum_seconds(spec, recipients(spec, messages)) == pytest.approx(seconds, rel=0.12)


def test_some_providers_are_done_early_and_none_needs_much_longer():
    spec = real_list(5_000, 60.0)
    each = sorted(bound.seconds for bound in bounds(spec, recipients(spec, 5_000)).values())
    assert each[0] < 20.0
    assert each[-1] < 70.0


def test_one_or_two_in_a_hundred_are_unknown_and_a_few_boxes_are_full():
    spec = real_list(10_000, 60.0)
    expected = spec.expected(recipients(spec, 10_000))
    assert 100 <= expected.reasons["no_such_user"] <= 200
    assert 10 <= expected.reasons["mailbox_full"] <= 60
    assert expected.final.keys() == {"delivered", "bounced"}


def test_limits_of_every_kind_are_there():
    manners = [provider.manners for provider in real_list(200_000, 150.0).providers]
    assert any(each.rate_window_seconds for each in manners)
    assert any(each.rate_per_minute and not each.rate_window_seconds for each in manners)
    assert any(each.tarpit_per_connection for each in manners)
    assert any(each.greylist_seconds for each in manners)
    assert {each.connections_max for each in manners} >= {2, 25}
    assert {each.messages_per_connection for each in manners} >= {5, 1_000}
    assert len({each.reputation.block_gate for each in manners if each.reputation}) == 3


def test_what_the_providers_say_over_a_limit_defers_the_mail():
    for kind in KINDS:
        for line in (kind.rate_reply, kind.block_reply, kind.connections_reply):
            assert line[0] == "4"
            assert any(
                word in line.lower()
                for word in ("rate", "too many", "unusual", "temporarily deferred", "reputation", "throttled")
            )


def test_the_mix_crosses_to_another_process(tmp_path):
    spec = real_list(1_000, 10.0)
    path = tmp_path / "spec.json"
    path.write_bytes(msgspec.json.encode(spec))
    assert load_spec(str(path)) == spec
