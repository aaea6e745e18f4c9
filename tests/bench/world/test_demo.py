"""The demo's world has what the demo promises to show."""

from bench.world.demo import demo_world
from bench.world.manners import Starttls


def test_the_demo_shows_every_habit():
    spec = demo_world()
    manners = [provider.manners for provider in spec.providers]
    sites = [site for provider in spec.providers for site in provider.sites]
    assert 8 <= len(spec.providers) <= 12
    assert any(len(site.domains) > 1 for site in sites)
    assert any(len(provider.sites) > 1 for provider in spec.providers)
    assert any(m.greylist_seconds for m in manners)
    assert any(m.chunking for m in manners)
    assert any(not m.pipelining for m in manners)
    assert any(not m.pipelining_across for m in manners)
    assert any(not host.listens for site in sites for host in site.hosts)
    assert {m.starttls for m in manners} >= {Starttls.ABSENT, Starttls.OFFERED, Starttls.REQUIRED}
    assert any(trouble.closes for m in manners for trouble in m.troubles)
    assert spec.null_mx
    assert spec.missing


def test_every_name_is_reserved():
    spec = demo_world()
    assert all(name.endswith((".example", ".test")) for name in [*spec.domains, *spec.addresses_of_hosts])


def test_no_mailbox_of_the_demo_stays_deferred_for_ever():
    for provider in demo_world().providers:
        assert not [t for t in provider.manners.troubles if t.lasts and not t.reply.startswith("5")]
