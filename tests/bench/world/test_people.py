"""Recipients are distinct, deliverable and the same for the same seed."""

from bench.world.people import people
from engine.model.address import parse_address

DOMAINS = {"big.test": 9.0, "small.test": 1.0}


def test_recipients_are_distinct_and_deterministic():
    some = people(2000, DOMAINS, seed=3)
    assert some == people(2000, DOMAINS, seed=3)
    assert some != people(2000, DOMAINS, seed=4)
    assert len({person.email for person in some}) == 2000


def test_addresses_parse_and_names_keep_their_letters():
    some = people(500, DOMAINS)
    assert all(str(parse_address(person.email)) == person.email for person in some)
    assert any(not person.first_name.isascii() for person in some)


def test_domains_come_in_proportion_to_their_weights():
    big = sum(person.email.endswith("@big.test") for person in people(4000, DOMAINS))
    assert 3450 < big < 3750
