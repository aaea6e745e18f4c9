"""Whose mailboxes stand behind MX hosts: all hosts, the longest suffix, the later layer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config.shaping import ProviderRule, builtin_shaping
from engine.mta.policy.provider import Providers, describe_provider, plain_name, suffixes_of, suffixes_shared

GIANT = ProviderRule(name="giant", mx=("giant.test", "giantmail.test"))
EAST = ProviderRule(name="giant-east", mx=("east.giant.test",))
EXACT = ProviderRule(name="exact", hosts=("mx7.giant.test",), domains=("vanity.test", "bücher.test"))
PROVIDERS = Providers([("built-in", (GIANT, EAST, EXACT))])
BUILT_IN = Providers([("built-in", builtin_shaping().provider)])


@pytest.mark.parametrize(
    ("hosts", "domain", "name"),
    [
        (["mx1.giant.test"], "", "giant"),
        (["MX1.Giant.TEST."], "", "giant"),  # however it is written
        (["giant.test"], "", "giant"),
        (["mx1.giant.test", "mx2.giantmail.test"], "", "giant"),
        (["mx1.giant.test", "backup.other.test"], "", ""),  # all hosts, or it is nobody's
        (["notgiant.test"], "", ""),  # a suffix of names, not of letters
        (["mx.east.giant.test"], "", "giant-east"),  # the longest suffix
        (["mx.east.giant.test", "mx1.giant.test"], "", "giant"),  # which all share
        (["mx7.giant.test"], "", "exact"),
        (["mx7.giant.test", "mx8.giant.test"], "", "giant"),
        ([], "", ""),
        ([], "vanity.test", "exact"),
        (["mx1.giant.test"], "vanity.test", "exact"),  # wherever its mail goes
        (["mx1.giant.test"], "BÜCHER.test", "exact"),
        (["mx1.giant.test"], "sub.vanity.test", "giant"),
    ],
)
def test_a_provider_is_found_by_all_hosts_or_by_its_domain(hosts: list[str], domain: str, name: str) -> None:
    assert PROVIDERS.find(hosts, domain) == name


def test_a_later_layer_replaces_a_provider_of_the_same_name() -> None:
    mine = ProviderRule(name="giant", mx=("new.test",))
    both = Providers([("built-in", (GIANT, EAST)), ("mine", (mine,))])
    assert both.find(["mx1.giant.test"]) == ""
    assert both.find(["mx1.new.test"]) == "giant"
    assert both.known["giant"].layer == "mine"
    assert repr(both) == "<Providers 2>"


def test_of_two_providers_with_one_suffix_the_later_layers_wins() -> None:
    mine = ProviderRule(name="mine", mx=("giant.test",))
    assert Providers([("built-in", (GIANT,)), ("mine", (mine,))]).find(["mx1.giant.test"]) == "mine"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("gmail-smtp-in.l.google.com", "google"),
        ("aspmx2.googlemail.com", "google"),
        ("outlook-com.olc.protection.outlook.com", "outlook"),
        ("example-org.mail.protection.outlook.com", "microsoft"),
        ("example-org.x-v1.mx.microsoft", "microsoft-dane"),
        ("mta5.am0.yahoodns.net", "yahoo"),
        ("mx01.mail.icloud.com", "apple"),
        ("mx00.emig.gmx.net", "gmx"),
        ("smtp-in.orange.fr", "orange"),
        ("mxa-00000000.gslb.pphosted.com", "proofpoint"),
        ("eu-smtp-inbound-1.mimecast.com", "mimecast"),
        ("ec2-192-0-2-1.eu-west-1.compute.amazonaws.com", ""),
        ("mail.example.org", ""),
    ],
)
def test_hosts_of_the_world_are_known(host: str, name: str) -> None:
    assert BUILT_IN.find([host]) == name


def test_a_provider_says_by_what_it_is_known() -> None:
    assert describe_provider(GIANT) == "mx giant.test, giantmail.test"
    assert describe_provider(EXACT) == "hosts mx7.giant.test; domains vanity.test, bücher.test"


@settings(max_examples=40)
@given(st.text(max_size=20))
def test_any_text_has_a_plain_form_without_outer_dots(text: str) -> None:
    plain = plain_name(text)
    assert plain == plain.strip(".")
    assert all(suffixes_of(plain))
    assert PROVIDERS.find([text], text) in {"", *PROVIDERS.known}


def test_suffixes_come_longest_first() -> None:
    assert list(suffixes_of("a.b.c")) == ["a.b.c", "b.c", "c"]
    assert suffixes_shared(["x.b.test", "Y.b.test"]) == ["b.test", "test"]
    assert suffixes_shared(["x.test", "x.other"]) == []
    assert suffixes_shared([]) == []
