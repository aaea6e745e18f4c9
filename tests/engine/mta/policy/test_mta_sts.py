"""MTA-STS texts: the grammar of RFC 8461, and that no text makes the readers raise."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.mta.policy.mta_sts import (
    MAX_AGE_SECONDS_MAX,
    PATTERNS_MAX,
    POLICY_OCTETS_MAX,
    NoPolicy,
    StsMode,
    StsPolicy,
    allows,
    parse_policy,
    policy_id,
)

GOOD = b"version: STSv1\nmode: enforce\nmx: mx1.example.com\nmx: *.Example.net\nmax_age: 604800\n"
POLICY = StsPolicy(StsMode.ENFORCE, 604_800, ("mx1.example.com", "*.example.net"))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([b"v=STSv1; id=20260101T000000;"], "20260101T000000"),
        ([b"v=STSv1;id=1"], "1"),
        ([b"v=STSv1 ;\tid=1 ; note=a:b,c/d"], "1"),
        ([b"v=STSv1; ext=x; id=7; id=8"], "7"),
        ([b"something else", b"v=STSv1; id=1", b"v=STSv10; id=2"], "1"),
        ([], None),
        ([b"v=STSv1; id=1", b"v=STSv1; id=1"], None),
        ([b"v=STSv1"], None),
        ([b"v=STSv1;"], None),
        ([b"v=stsv1; id=1"], None),
        ([b" v=STSv1; id=1"], None),
        ([b"v=STSv1; id="], None),
        ([b"v=STSv1; id=a-b"], None),
        ([b"v=STSv1; id=" + b"a" * 33], None),
        ([b"v=STSv1; id = 1"], None),
        ([b"v=STSv1; id=1;; x=y"], None),
        ([b"v=STSv1; id=1; x"], None),
        ([b"v=STSv1; id=1; x=a b"], None),
    ],
)
def test_a_domain_has_a_policy_when_exactly_one_record_says_so(
    texts: list[bytes], expected: str | None
) -> None:
    assert policy_id(texts) == expected


@pytest.mark.parametrize(
    "octets",
    [
        GOOD,
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.removesuffix(b"\n"),
        GOOD + b"\n\r\n",
        GOOD.replace(b": ", b":"),
        GOOD.replace(b"\n", b" \t\n"),
        GOOD + b"mx: mx1.example.com\n",
        GOOD + "future_key: ä: b\n".encode(),
        GOOD + b"mode: none\nmax_age: 1\nversion: STSv2\n",
        b"max_age: 604800\nmx: mx1.example.com\nmx: *.example.net\nmode: enforce\nversion: STSv1",
    ],
)
def test_a_policy_is_read_as_it_is_meant(octets: bytes) -> None:
    assert parse_policy(octets) == POLICY


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "no version STSv1"),
        (b"<html><body>not here</body></html>", "line 1 is no key and value"),
        (GOOD.replace(b"STSv1", b"STSv2"), "no version STSv1"),
        (GOOD.replace(b"enforce", b"Enforce"), "no mode that we know"),
        (GOOD.replace(b"mode: enforce\n", b""), "no mode that we know"),
        (GOOD.replace(b"604800", b"-1"), "no max_age"),
        (GOOD.replace(b"604800", b"1e9"), "no max_age"),
        (GOOD.replace(b"604800", "٣".encode()), "no max_age"),
        (GOOD.replace(b"604800", b"12345678901"), "no max_age"),
        (GOOD.replace(b"mx1", b"a.*"), "line 3 names no host"),
        (GOOD.replace(b"mx1.example.com", b""), "line 3 names no host"),
        (GOOD.replace(b"mx1.example.com", b".example.com"), "line 3 names no host"),
        (GOOD.replace(b"mx1.example.com", b"mx1.example.com."), "line 3 names no host"),
        (GOOD.replace(b"mx1", "mä".encode()), "line 3 names no host"),
        (b"version: STSv1\nmode: testing\nmax_age: 1\n", "no mx"),
        (GOOD + b"\xff", "not UTF-8"),
        (GOOD + b"mx: a" + b"\nmx: a".join(b"%d" % n for n in range(PATTERNS_MAX)), "more than 100 mx"),
        (GOOD + b"x" * POLICY_OCTETS_MAX, "more than 65,536 octets"),
    ],
)
def test_what_does_not_fit_is_no_policy_and_says_why(octets: bytes, why: str) -> None:
    assert parse_policy(octets) == NoPolicy(why)


def test_a_policy_that_is_taken_back_needs_no_host() -> None:
    assert parse_policy(b"version: STSv1\nmode: none\nmax_age: 86400") == StsPolicy(StsMode.NONE, 86_400)


def test_no_policy_lives_longer_than_a_year() -> None:
    told = parse_policy(GOOD.replace(b"604800", b"9999999999"))
    assert isinstance(told, StsPolicy)
    assert told.max_age_seconds == MAX_AGE_SECONDS_MAX


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        ("mx1.example.com", True),
        ("MX1.Example.com.", True),
        ("mx2.example.com", False),
        ("example.com", False),
        ("a.example.net", True),
        ("example.net", False),
        ("a.b.example.net", False),
        ("a.notexample.net", False),
        ("net", False),
        ("", False),
    ],
)
def test_a_wildcard_stands_for_one_label_on_the_left(host: str, fits: bool) -> None:
    assert allows(POLICY, host) is fits


LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
NAME = st.lists(LABEL, min_size=2, max_size=4).map(".".join)
POLICIES = st.builds(
    StsPolicy,
    st.sampled_from([StsMode.ENFORCE, StsMode.TESTING]),
    st.integers(0, MAX_AGE_SECONDS_MAX),
    st.lists(NAME | NAME.map("*.{}".format), min_size=1, max_size=5, unique=True).map(tuple),
)


@settings(max_examples=40)
@given(POLICIES, st.sampled_from(["\n", "\r\n"]))
def test_a_policy_is_read_back_from_its_lines(policy: StsPolicy, end: str) -> None:
    assert parse_policy(end.join(policy.lines).encode()) == policy


@settings(max_examples=40)
@given(POLICIES, NAME)
def test_a_host_fits_exactly_when_it_or_its_parent_is_listed(policy: StsPolicy, host: str) -> None:
    parent = host.split(".", 1)[1]
    assert allows(policy, host) is (host in policy.mx or f"*.{parent}" in policy.mx)


@given(st.binary(max_size=300), st.integers(0, len(GOOD)))
def test_no_octets_make_the_readers_raise(noise: bytes, place: int) -> None:
    for octets in (noise, GOOD[:place] + noise + GOOD[place:]):
        told = parse_policy(octets)
        if isinstance(told, NoPolicy):
            assert told.why.isprintable()
        else:
            assert all(line.isascii() and line.isprintable() for line in told.lines)
    found = policy_id([b"v=STSv1;" + noise])
    assert found is None or found.isalnum()
