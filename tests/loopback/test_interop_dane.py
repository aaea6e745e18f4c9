"""DANE (RFC 7672) against real Postfix and Exim, with unbound validating a private signed root.

One engine writes to a domain for each case; a case is a zone with its TLSA records, the server behind it, and
what has to become of the mail: delivered with the right words about TLS, or kept with the right reason.
"""

import time
from collections.abc import Iterator
from functools import partial

import pytest
import trio

from bench.peers import exim, postfix
from bench.peers.certificate import Authority, tlsa
from bench.peers.dnssec import Zone
from bench.peers.receiver import POLL_SECONDS, Receiver
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

POSTFIX, EXIM, LAPSED, PLAIN = "127.0.2.1", "127.0.2.2", "127.0.2.3", "127.0.2.4"
DNS = "127.0.2.53"
SECONDS = 40.0

TRUSTED = Authority("The Authority", chained=True)
OTHER = Authority("Another Authority")
NAMES = [f"mx.{name}.test" for name in ("anchor", "between", "rescue", "insecurehost", "notlsa")]
ON_POSTFIX = TRUSTED.issue(*NAMES, "nexthop.test", whole=True)
ON_EXIM = TRUSTED.issue(*[f"mx.exim{name}.test" for name in ("match", "anchor")], whole=True)
ON_LAPSED = TRUSTED.issue("mx.lapsedanchor.test", lapsed=True, whole=True)

WRONG = tlsa(3, 1, OTHER.root)
LEAF = tlsa(3, 1, ON_POSTFIX.chain[0])
ANCHOR = tlsa(2, 1, TRUSTED.root)
UNUSABLE = tlsa(1, 1, ON_POSTFIX.chain[0])  # PKIX-EE means nothing to SMTP (RFC 7672 3.1.3)

MISMATCH = ("does not meet DANE", "no TLSA record matches the certificate")
NO_ANCHOR = ("does not meet DANE", "no TLSA record matches the chain")
OTHER_NAME = ("does not meet DANE", "the certificate is for")
EXPIRED = ("does not meet DANE", "expired")
BOGUS = ("does not meet DANE", "SERVFAIL")
NO_TLS = ("does not meet DANE", "no STARTTLS")


def _aliased() -> str:
    return mx_at(POSTFIX) + f"_25._tcp.mx IN CNAME tlsa\ntlsa IN TLSA {LEAF}\n"


def _alias_with_records(target: str, *records: str) -> str:
    """An MX host that is an alias, with records at the alias: those of the target go before them."""
    return f"@ IN MX 10 mx\nmx IN CNAME {target}\n" + "".join(
        f"_25._tcp.mx IN TLSA {each}\n" for each in records
    )


def _two_hosts() -> str:
    return mx_at(POSTFIX, LEAF, host="good").replace("MX 10", "MX 20") + mx_at(POSTFIX, LEAF, host="bad")


CASES = (
    Case(Zone("match.test", mx_at(POSTFIX, LEAF)), True, ("TLSv1.", "dane")),
    Case(Zone("matchcert.test", mx_at(POSTFIX, tlsa(3, 0, ON_POSTFIX.chain[0]))), True, ("dane",)),
    Case(Zone("match512.test", mx_at(POSTFIX, tlsa(3, 1, ON_POSTFIX.chain[0], 2))), True, ("dane",)),
    Case(Zone("matchwhole.test", mx_at(POSTFIX, tlsa(3, 0, ON_POSTFIX.chain[0], 0))), True, ("dane",)),
    Case(Zone("rollover.test", mx_at(POSTFIX, WRONG, LEAF)), True, ("dane",)),
    Case(Zone("aliased.test", _aliased()), True, ("dane",)),
    Case(Zone("mismatch.test", mx_at(POSTFIX, WRONG)), False, MISMATCH),
    Case(Zone("anchor.test", mx_at(POSTFIX, ANCHOR)), True, ("dane",)),
    Case(Zone("between.test", mx_at(POSTFIX, tlsa(2, 0, TRUSTED.between[0]))), True, ("dane",)),
    Case(Zone("anchorname.test", mx_at(POSTFIX, ANCHOR)), False, OTHER_NAME),
    Case(Zone("otheranchor.test", mx_at(POSTFIX, tlsa(2, 1, OTHER.root))), False, NO_ANCHOR),
    Case(Zone("eximmatch.test", mx_at(EXIM, tlsa(3, 1, ON_EXIM.chain[0]))), True, ("TLSv1.", "dane")),
    Case(Zone("eximanchor.test", mx_at(EXIM, ANCHOR)), True, ("dane",)),
    Case(Zone("eximmismatch.test", mx_at(EXIM, WRONG)), False, MISMATCH),
    Case(Zone("lapsed.test", mx_at(LAPSED, tlsa(3, 1, ON_LAPSED.chain[0]))), True, ("dane",)),
    Case(Zone("lapsedanchor.test", mx_at(LAPSED, ANCHOR)), False, EXPIRED),
    Case(Zone("unusable.test", mx_at(POSTFIX, UNUSABLE)), True, ("TLSv1.",), ("dane",)),
    Case(Zone("unusableplain.test", mx_at(PLAIN, UNUSABLE)), False, NO_TLS),
    Case(Zone("stripped.test", mx_at(PLAIN, LEAF)), False, NO_TLS),
    Case(Zone("bogus.test", mx_at(POSTFIX, LEAF), spoiled=(("_25._tcp.mx", "TLSA"),)), False, BOGUS),
    Case(Zone("nextbest.test", _two_hosts(), spoiled=(("_25._tcp.bad", "TLSA"),)), True, ("dane",)),
    Case(Zone("bogusmx.test", mx_at(POSTFIX, LEAF), spoiled=(("@", "MX"),)), False, ("dns", "SERVFAIL")),
    Case(Zone("bogushost.test", mx_at(POSTFIX, LEAF), spoiled=(("mx", "A"),)), False, ("dns", "SERVFAIL")),
    Case(Zone("insecure.test", mx_at(POSTFIX, WRONG), signed=False), True, ("TLSv1.",), ("dane",)),
    Case(Zone("insecurehost.test", "@ IN MX 10 mx.insecure.test.\n"), True, ("TLSv1.",), ("dane",)),
    Case(Zone("notlsa.test", mx_at(POSTFIX)), True, ("TLSv1.",), ("dane",)),
    Case(Zone("notlsaplain.test", mx_at(PLAIN)), True),
    Case(Zone("nexthop.test", mx_at(POSTFIX, ANCHOR)), True, ("dane",)),
    Case(Zone("aliashost.test", "@ IN MX 10 mx\nmx IN CNAME mx.match.test.\n"), True, ("dane",)),
    Case(Zone("aliasfirst.test", _alias_with_records("mx.notlsa.test.", LEAF)), True, ("dane",)),
    Case(Zone("aliasplain.test", _alias_with_records("mx.mismatch.test.", LEAF)), False, MISMATCH),
    Case(Zone("rescue.test", mx_at(POSTFIX, WRONG) + sts_at(DNS)), False, MISMATCH),
)  # fmt: skip
POLICIES = {"rescue.test": policy_of("mx.rescue.test")}


class World:
    """What the engine told, and the servers' mailboxes."""

    def __init__(self, told: Told, receivers: dict[str, Receiver]) -> None:
        self.told = told
        self.arrived = [one for receiver in receivers.values() for one in receiver.arrived()]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    require_peers("postfix", "exim", "nsd", "unbound")
    require_ports(*[(each, SMTP_PORT) for each in (POSTFIX, EXIM, LAPSED, PLAIN)], (DNS, HTTPS_PORT))
    folder = tmp_path_factory.mktemp("dane")
    servers = {
        POSTFIX: (postfix, ON_POSTFIX),
        EXIM: (exim, ON_EXIM),
        LAPSED: (postfix, ON_LAPSED),
        PLAIN: (postfix, False),
    }
    people = [f"reader@{case.domain}" for case in CASES]
    with (
        mail_servers(folder / "servers", servers) as receivers,
        policy_world(folder / "world", [case.zone for case in CASES], TRUSTED, POLICIES, DNS) as (
            resolver,
            tls,
        ),
    ):
        write = partial(write_to, people, folder / "data", seconds=SECONDS)
        told = trio.run(partial(write, engine=ENGINE, resolver=resolver, tls=tls))
        deadline = time.monotonic() + SECONDS
        while sum(receiver.count() for receiver in receivers.values()) < sum(
            case.delivered for case in CASES
        ):
            assert time.monotonic() < deadline, "a server has not written all it took"
            time.sleep(POLL_SECONDS)
        yield World(told, receivers)


@pytest.mark.parametrize("case", CASES, ids=[case.domain for case in CASES])
def test_dane_is_obeyed(case: Case, world: World) -> None:
    case.check(world.told)


def test_what_arrived_is_what_was_said_to_be_delivered(world: World) -> None:
    assert {one.recipient for one in world.arrived} == {
        f"reader@{case.domain}" for case in CASES if case.delivered
    }
    assert misdelivered(world.told, world.arrived) == []
