"""From where mail leaves, and where it goes when that is not the recipient's own MX.

A *source* is a local address and an EHLO name, or a proxy that has the address. A *relay* is a host
that takes mail for everybody (a smarthost). Facts only; passwords are in none of their texts.
"""

from enum import Enum

from msgspec import Struct


class ProxyKind(Enum):
    SOCKS5 = "socks5"  # RFC 1928: it connects for us, from an address of its own
    HAPROXY = "haproxy"  # PROXY protocol version 2: it is told from where to where


class Proxy(Struct, frozen=True):
    """A proxy by its literal address. `user` is empty where it asks for nobody's name."""

    kind: ProxyKind
    host: str
    port: int
    user: str = ""
    password: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind.value}://{host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Proxy {self}{' as ' + self.user if self.user else ''}>"


class Source(Struct, frozen=True):
    """An egress source: a local address to bind (None = the system's choice) and the EHLO name.

    With a `proxy` the address is the one that receivers see, not one of this machine: it is never bound.
    `weight` is its share among the sources of the default way; 0 = only where a pool names it.
    """

    name: str
    ehlo_name: str
    address: str | None = None
    proxy: Proxy | None = None
    weight: int = 1


class Credentials(Struct, frozen=True):
    """For AUTH PLAIN or LOGIN, after TLS only unless `clear_allowed` (a relay on loopback)."""

    username: str
    password: str
    clear_allowed: bool = False

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, ...)"


class RelayTls(Enum):
    """What a relay has to do before it gets mail and password."""

    NEVER = "never"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"  # TLS, whoever answers
    VERIFIED = "verified"  # a certificate of the public authorities for its name


class Relay(Struct, frozen=True):
    """A host that takes mail for everybody. `connections` None = as the rules for receivers say."""

    name: str
    host: str  # a name or an IP literal, without brackets
    port: int
    credentials: Credentials | None = None
    tls: RelayTls = RelayTls.OPPORTUNISTIC
    connections: int | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def site(self) -> str:
        """The name of its site: two accounts at one host have connections apart."""
        return f"{self.name}@{self}"


class MxHost(Struct, frozen=True):
    """One delivery target of a site: host name, its addresses in trial order, port."""

    name: str
    addresses: tuple[str, ...]
    preference: int = 0
    port: int = 25
