"""The table `[tls]`: which policies of the recipients' side are looked for, and who we are in reports of TLS.

MTA-STS and DANE are on by default: both hold only where a domain asks for them. DANE needs a resolver that
validates and is believed (`[resolver] trust_ad`); without one it finds nothing and costs nothing.
"""

from enum import Enum

from engine.config.base import Table, check


class TrustAd(Enum):
    """Which servers are believed when they say that DNSSEC proves an answer (RFC 6840 5.8)."""

    LOOPBACK = "loopback"  # those on this machine: nobody writes on the way to them
    ALWAYS = "always"  # all: the operator vouches for the network to them
    NEVER = "never"  # none: no DANE


class TlsTable(Table, frozen=True):
    """TLS towards receivers."""

    mta_sts: bool = True  # RFC 8461
    dane: bool = True  # RFC 7672
    ca_file: str = ""  # authorities in PEM, relative to the file; empty = the system's
    organization: str = ""  # who reports (RFC 8460); empty = the node's name
    contact: str = ""  # an e-mail address for who reads reports

    def __post_init__(self) -> None:
        inline = "-----BEGIN" in self.ca_file or "\n" in self.ca_file
        check("ca_file", not inline, "holds certificates; put them into a file and name that file here")
        local, at, domain = self.contact.rpartition("@")
        whole = bool(local and at and domain) and self.contact.isprintable() and " " not in self.contact
        check("contact", not self.contact or whole, "is no e-mail address")
        check("organization", self.organization.isprintable(), "must be one line of text")
