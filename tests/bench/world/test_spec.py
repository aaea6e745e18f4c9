"""What follows from a world's description alone: addresses, DNS, predictions."""

import msgspec
import pytest

from bench.world.demo import demo_world
from bench.world.manners import Manners, Moment, Trouble, bounced, busy, hang_up, mailbox_full
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec


def one_provider(*troubles, **manners):
    site = Site((Host("mx1.box.test"), Host("mx2.box.test", 20)), {"box.test": 3, "too.test": 1})
    provider = ProviderSpec("box", (site,), Manners(troubles=troubles, **manners))
    return WorldSpec(
        name="w",
        providers=(provider,),
        null_mx={"null.test": 1},
        missing={"gone.test": 1},
        failing={"ill.test": 1},
    )


def test_a_spec_survives_json():
    spec = demo_world(seed=7)
    assert msgspec.json.decode(msgspec.json.encode(spec), type=WorldSpec) == spec


def test_hosts_have_loopback_addresses_and_domains_share_their_mx():
    spec = one_provider()
    records = spec.records()
    assert spec.addresses_of_hosts == {"mx1.box.test": "127.83.0.1", "mx2.box.test": "127.83.0.2"}
    assert records["box.test"] == records["too.test"] == {"MX": ["10 mx1.box.test.", "20 mx2.box.test."]}
    assert records["null.test"] == {"MX": ["0 ."]}
    assert "gone.test" not in records


def test_three_hundred_hosts_have_three_hundred_addresses():
    hosts = tuple(Host(f"mx{number}.box.test") for number in range(300))
    spec = WorldSpec(name="w", providers=(ProviderSpec("p", (Site(hosts, {"box.test": 1}),)),))
    assert len(set(spec.addresses_of_hosts.values())) == 300


def test_a_domain_in_two_sites_is_a_mistake():
    site = Site((Host("mx.box.test"),), {"box.test": 1})
    with pytest.raises(AssertionError):
        _ = WorldSpec(name="w", providers=(ProviderSpec("p", (site, site)),)).domains


@pytest.mark.parametrize(
    ("troubles", "manners", "domain", "expected"),
    [
        ((), {}, "box.test", ("delivered", "", True)),
        ((), {}, "null.test", ("bounced", "null_mx", True)),
        ((), {}, "gone.test", ("bounced", "no_such_domain", True)),
        ((), {}, "ill.test", ("deferred", "dns", False)),
        ((), {"greylist_seconds": 2.0}, "box.test", ("delivered", "greylisted", False)),
        ((bounced(1),), {}, "box.test", ("bounced", "no_such_user", True)),
        ((bounced(1),), {"greylist_seconds": 2.0}, "box.test", ("bounced", "no_such_user", False)),
        ((busy(1, 3.0),), {}, "box.test", ("delivered", "mailbox_busy", False)),
        ((busy(1, 3.0), bounced(1)), {}, "box.test", ("bounced", "no_such_user", False)),
        ((mailbox_full(1),), {}, "box.test", ("deferred", "mailbox_full", False)),
        ((hang_up(Moment.REPLY, 1),), {}, "box.test", ("delivered", "hang_up_reply", False)),
        ((Trouble("x", Moment.CONTENT, 0, "554 no", only="z"),), {}, "box.test", ("delivered", "", True)),
    ],
)
def test_the_end_of_each_recipient_is_foreseen(troubles, manners, domain, expected):
    prediction = one_provider(*troubles, **manners).predict(f"Anna@{domain}")
    assert (prediction.final, prediction.reason, prediction.at_once) == expected


def test_expectations_add_up():
    spec = demo_world()
    recipients = [person.email for person in spec.addresses(3000)]
    expected = spec.expected(recipients)
    assert sum(expected.final.values()) == 3000
    assert sum(sum(states.values()) for states in expected.domains.values()) == 3000
    assert set(expected.final) == {"delivered", "bounced"}
    assert 0.93 < expected.final["delivered"] / 3000 < 0.99
