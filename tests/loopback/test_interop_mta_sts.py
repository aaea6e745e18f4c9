"""MTA-STS (RFC 8461) against real Postfix and Exim: policies over HTTPS by names of a private DNS.

One engine writes to a domain for each case; a case is a zone, its policy, the server behind it, and what has
to become of the mail. A second engine over the same data then lives in a world where every policy has
vanished from DNS and its host: what was learnt still holds.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import trio
from msgspec import Struct

from bench.peers import exim, postfix
from bench.peers.certificate import Authority
from bench.peers.dnssec import Zone
from bench.peers.receiver import POLL_SECONDS
from engine.model.event import Deferred, Delivered
from tests.fakes.hop_engine import Told, misdelivered, write_to
from tests.fakes.tls_world import (
    ENGINE,
    HTTPS_PORT,
    SMTP_PORT,
    Case,
    mail_servers,
    mx_at,
    policy_of,
    policy_world,
    require_peers,
    require_ports,
    sts_at,
)

pytestmark = [pytest.mark.slow, pytest.mark.peers]

POSTFIX, EXIM, LAPSED, UNTRUSTED, PLAIN = (f"127.0.3.{number}" for number in range(1, 6))
DNS, STRANGE = "127.0.3.53", "127.0.3.54"
SECONDS = 40.0
READERS_EACH = 15  # of domains that share an MX set

TRUSTED = Authority("The Authority", chained=True)
OTHER = Authority("Another Authority")
NAMES = ("match", "pattern", "outside", "badhost", "none", "shared", "vanish")
ON_POSTFIX = TRUSTED.issue(*[f"mx.{name}.test" for name in NAMES])
ON_EXIM = TRUSTED.issue("mx.eximmatch.test")

VERIFIED = ("TLSv1.", "verified", "sts")
UNVERIFIED = ("verified", "sts")


def _zone(name: str, address: str) -> Zone:
    return Zone(f"{name}.test", mx_at(address) + sts_at(DNS), signed=False)


def _of_shared(name: str) -> Zone:
    return Zone(f"{name}.test", f"@ IN MX 10 mx.shared.test.\n{sts_at(DNS)}", signed=False)


CASES = (
    Case(_zone("match", POSTFIX), True, VERIFIED),
    Case(_zone("eximmatch", EXIM), True, VERIFIED),
    Case(_zone("pattern", POSTFIX), True, VERIFIED),
    Case(_zone("outside", POSTFIX), False, ("MTA-STS", "not in the domain's MTA-STS policy")),
    Case(_zone("wrongname", POSTFIX), False, ("does not meet MTA-STS", "certificate")),
    Case(_zone("eximwrongname", EXIM), False, ("does not meet MTA-STS", "certificate")),
    Case(_zone("untrusted", UNTRUSTED), False, ("does not meet MTA-STS", "certificate")),
    Case(_zone("lapsed", LAPSED), False, ("does not meet MTA-STS", "expired")),
    Case(_zone("stripped", PLAIN), False, ("does not meet MTA-STS", "no STARTTLS")),
    Case(_zone("testing", POSTFIX), True, ("TLSv1.",), UNVERIFIED),
    Case(_zone("testingplain", PLAIN), True),
    Case(_zone("none", POSTFIX), True, ("TLSv1.",), UNVERIFIED),
    Case(_zone("nofile", UNTRUSTED), True, ("TLSv1.",), UNVERIFIED),
    Case(
        Zone("badhost.test", mx_at(UNTRUSTED) + sts_at(STRANGE), signed=False), True, ("TLSv1.",), UNVERIFIED
    ),
    Case(_zone("vanish", POSTFIX), True, VERIFIED),
    # Three domains of one MX set: with a policy, with one that does not have it, and without.
    Case(_zone("shared", POSTFIX), True, VERIFIED),
    Case(_of_shared("broken"), False, ("not in the domain's MTA-STS policy",)),
    Case(Zone("free.test", "@ IN MX 10 mx.shared.test.\n", signed=False), True, ("TLSv1.",), UNVERIFIED),
)
SHARING = ("shared.test", "broken.test", "free.test")
POLICIES = {
    "match.test": policy_of("mx.match.test"),
    "eximmatch.test": policy_of("mx.eximmatch.test"),
    "pattern.test": policy_of("mail.pattern.test", "*.pattern.test"),
    "outside.test": policy_of("mail.outside.test", "*.mx.outside.test"),
    "testing.test": policy_of("mx.testing.test", mode="testing"),
    "testingplain.test": policy_of("mx.testingplain.test", mode="testing"),
    "none.test": policy_of(mode="none"),
    "nofile.test": "",
    "broken.test": policy_of("mx.broken.test"),
    **{
        f"{name}.test": policy_of(f"mx.{name}.test")
        for name in ("wrongname", "eximwrongname", "untrusted", "lapsed", "stripped", "vanish", "shared")
    },
}
VANISHED = Zone("vanish.test", mx_at(UNTRUSTED), signed=False)


class World(Struct, frozen=True):
    """What both engines told, and what the servers had when the first was done."""

    told: Told
    afterwards: Told
    wrong: list[str]
    recipients: set[str]


def _people() -> list[str]:
    return [
        f"reader{number}@{case.domain}"
        for case in CASES
        for number in range(READERS_EACH if case.domain in SHARING else 1)
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    require_peers("postfix", "exim", "nsd", "unbound")
    ports = [(each, SMTP_PORT) for each in (POSTFIX, EXIM, LAPSED, UNTRUSTED, PLAIN)]
    require_ports(*ports, (DNS, HTTPS_PORT), (STRANGE, HTTPS_PORT))
    folder = tmp_path_factory.mktemp("sts")
    servers = {
        POSTFIX: (postfix, ON_POSTFIX),
        EXIM: (exim, ON_EXIM),
        LAPSED: (postfix, TRUSTED.issue("mx.lapsed.test", lapsed=True)),
        UNTRUSTED: (exim, OTHER.issue("mx.untrusted.test", "mx.vanish.test")),
        PLAIN: (postfix, False),
    }
    live = partial(_live, folder / "data")
    with mail_servers(folder / "servers", servers) as receivers:
        with (
            policy_world(folder / "first", [case.zone for case in CASES], TRUSTED, POLICIES, DNS) as tables,
            policy_world(
                folder / "strange",
                [],
                TRUSTED,
                {"badhost.test": policy_of("mx.badhost.test")},
                STRANGE,
                policy_certificate=OTHER.issue("mta-sts.badhost.test"),
            ),
        ):
            told = live(_people(), 1, *tables)
        expected = {
            who for who in told.people for case in CASES if case.delivered and who.endswith(f"@{case.domain}")
        }
        deadline = time.monotonic() + SECONDS
        while sum(each.count() for each in receivers.values()) < len(expected):
            assert time.monotonic() < deadline, "a server has not written all it took"
            time.sleep(POLL_SECONDS)
        arrived = [one for each in receivers.values() for one in each.arrived()]
        with policy_world(folder / "second", [VANISHED], TRUSTED, {}, DNS) as tables:
            afterwards = live(["late@vanish.test"], 2, *tables)
    return World(told, afterwards, misdelivered(told, arrived), {one.recipient for one in arrived})


def _live(data: Path, people: Sequence[str], campaign: int, resolver: object, tls: object) -> Told:
    write = partial(write_to, people, data, seconds=SECONDS, campaign=campaign, engine=ENGINE)
    return trio.run(partial(write, resolver=resolver, tls=tls))


@pytest.mark.parametrize("case", CASES, ids=[case.domain for case in CASES])
def test_mta_sts_is_obeyed(case: Case, world: World) -> None:
    case.check(world.told)


def test_domains_of_one_mx_set_do_not_feel_each_others_policies(world: World) -> None:
    sites = {domain: {event.site for event in world.told.of(domain)} for domain in SHARING}
    assert sites == {domain: {"mx.shared.test"} for domain in SHARING}
    for domain, end in zip(SHARING, (Delivered, Deferred, Delivered), strict=True):
        events = world.told.of(domain)
        assert len(events) == READERS_EACH
        assert all(isinstance(event, end) for event in events)


def test_sessions_are_taken_up_again_but_never_across_policies(world: World) -> None:
    for domain, verified in (("shared.test", True), ("free.test", False)):
        resumed = [event.tls for event in world.told.of(domain) if "resumed" in event.tls]
        assert resumed
        assert all(("verified" in text) is verified for text in resumed)


def test_what_arrived_is_what_was_said_to_be_delivered(world: World) -> None:
    delivered = {case.domain for case in CASES if case.delivered}
    assert world.recipients == {who for who in world.told.people if who.partition("@")[2] in delivered}
    assert world.wrong == []


def test_a_policy_outlives_its_record_its_host_and_a_restart(world: World) -> None:
    (event,) = world.afterwards.of("vanish.test")
    assert isinstance(event, Deferred)
    assert "does not meet MTA-STS" in event.reply
