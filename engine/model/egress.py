"""From where mail leaves."""

from msgspec import Struct


class Source(Struct, frozen=True):
    """An egress source: a local address to bind (None = the system's choice) and the EHLO name."""

    name: str
    ehlo_name: str
    address: str | None = None


class MxHost(Struct, frozen=True):
    """One delivery target of a site: host name, its addresses in trial order, port."""

    name: str
    addresses: tuple[str, ...]
    preference: int = 0
    port: int = 25
