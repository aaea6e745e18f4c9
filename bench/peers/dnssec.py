"""A private, signed DNS: a root of its own, the top level below it, and the zones that a test wants.

Zones are built and signed here (dnspython, ECDSA P-256, NSEC), written as master files, and served by a
real server (`nsd`) to a real validating resolver (`unbound`); `private_dns` starts both. A zone may be
unsigned (its parent then proves that it is), and the signatures of single record sets may be spoiled, which
a validating resolver answers with SERVFAIL. Nothing leaves loopback.
"""

import datetime
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dns.dnssec
import dns.name
import dns.rdataset
import dns.rdatatype
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec
from dns.dnssectypes import Algorithm
from dns.rdtypes.ANY.DNSKEY import DNSKEY
from msgspec import Struct

from bench.peers import nsd, unbound

TTL_SECONDS = 300
SIGNED_DAYS = 7
KEY_FLAGS = 257  # one key for everything, with the bit of an entry point

_HEAD = """\
$ORIGIN {origin}
$TTL {ttl}
@ IN SOA ns.{origin} hostmaster.{origin} 1 3600 600 86400 {ttl}
@ IN NS ns
ns IN A {host}
"""
_ROOT_HEAD = """\
$ORIGIN .
$TTL {ttl}
. IN SOA ns.root. hostmaster.root. 1 3600 600 86400 {ttl}
. IN NS ns.root.
ns.root. IN A {host}
"""


class Zone(Struct, frozen=True):
    """One zone right below a top level ("signed.test"), its records as lines of a master file.

    `spoiled` names record sets by (owner relative to the zone, type) whose signatures will not verify.
    """

    name: str
    records: str
    signed: bool = True
    spoiled: tuple[tuple[str, str], ...] = ()


class Signer:
    """One zone's key."""

    def __init__(self, origin: dns.name.Name) -> None:
        self.origin = origin
        self._private = ec.generate_private_key(ec.SECP256R1())
        self.public: DNSKEY = dns.dnssec.make_dnskey(
            self._private.public_key(), Algorithm.ECDSAP256SHA256, flags=KEY_FLAGS
        )

    def delegation(self) -> str:
        """The DS record for the parent, as a line of its master file."""
        return f"{self.origin} IN DS {dns.dnssec.make_ds(self.origin, self.public, 'SHA256')}"

    def sign(self, zone: dns.zone.Zone) -> None:
        """Sign all of a zone, from a day ago on: clocks need not agree to the second."""
        now = datetime.datetime.now(datetime.UTC)
        dns.dnssec.sign_zone(
            zone,
            keys=[(self._private, self.public)],
            inception=now - datetime.timedelta(days=1),
            expiration=now + datetime.timedelta(days=SIGNED_DAYS),
        )


def build(zones: Sequence[Zone], host: str) -> tuple[dict[str, str], str]:
    """(master file of every zone by its name, "." among them, and the root's trust anchor as a DS line)."""
    files: dict[str, str] = {}
    delegations: dict[str, list[str]] = {}
    for zone in zones:
        origin = dns.name.from_text(zone.name)
        above = delegations.setdefault(zone.name.rpartition(".")[2], [])
        above += [f"{origin} IN NS ns.{origin}", f"ns.{origin} IN A {host}"]
        parsed = _parse(origin, _HEAD.format(origin=origin, ttl=TTL_SECONDS, host=host) + zone.records)
        if zone.signed:
            signer = Signer(origin)
            signer.sign(parsed)
            above.append(signer.delegation())
            for owner, kind in zone.spoiled:
                _spoil(parsed, owner, kind)
        files[zone.name] = parsed.to_text(relativize=False)
    root_lines: list[str] = []
    for top, lines in delegations.items():
        origin = dns.name.from_text(top)
        signer = Signer(origin)
        parsed = _parse(
            origin, _HEAD.format(origin=origin, ttl=TTL_SECONDS, host=host) + "\n".join(lines) + "\n"
        )
        signer.sign(parsed)
        files[top] = parsed.to_text(relativize=False)
        root_lines += [f"{origin} IN NS ns.{origin}", f"ns.{origin} IN A {host}", signer.delegation()]
    root_signer = Signer(dns.name.root)
    root = _parse(dns.name.root, _ROOT_HEAD.format(ttl=TTL_SECONDS, host=host) + "\n".join(root_lines) + "\n")
    root_signer.sign(root)
    files["."] = root.to_text(relativize=False)
    return files, root_signer.delegation()


@contextmanager
def private_dns(folder: Path, zones: Sequence[Zone], host: str = "127.0.0.53") -> Iterator[tuple[str, int]]:
    """Serve the zones, and yield the address of a resolver that validates them from the private root."""
    files, anchor = build(zones, host)
    parents = [".", *{zone.name.rpartition(".")[2] for zone in zones}]
    with (
        nsd.serving(folder / "nsd", files, host) as authority,
        unbound.resolving(folder / "unbound", authority, anchor, parents, host) as resolver,
    ):
        yield resolver


def _parse(origin: dns.name.Name, text: str) -> dns.zone.Zone:
    return dns.zone.from_text(text, origin=origin, relativize=False)


def _spoil(zone: dns.zone.Zone, owner: str, kind: str) -> None:
    """Turn a bit in each signature of one record set."""
    name, of = dns.name.from_text(owner, zone.origin), dns.rdatatype.from_text(kind)
    signatures = zone.find_rdataset(name, dns.rdatatype.RRSIG, of)
    spoilt = [
        each.replace(signature=bytes([each.signature[0] ^ 1]) + each.signature[1:]) for each in signatures
    ]
    zone.replace_rdataset(name, dns.rdataset.from_rdata_list(signatures.ttl, spoilt))
