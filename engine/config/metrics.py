"""The table `[metrics]`: where a monitor reads this engine's numbers, and how many messages are timed.

Off unless an address is named. The page names sites, campaigns and providers, and whoever reaches it can
ask for it, so only loopback and private addresses are taken; an address that the world reaches has to be
meant. A name would be looked up, and might lead anywhere: write the address.
"""

import ipaddress

from engine.config.base import Table, check
from engine.config.units import HostPort, UnitError

SAMPLE_MAX = 1_000_000  # one message in so many; more is off


class MetricsTable(Table, frozen=True):
    """Numbers for a monitor."""

    listen: str = ""  # "127.0.0.1:9464"; empty = nobody is served
    allow_public: bool = False  # listen on an address that others than our own network reach
    sample: int = 64  # the waits of one message in so many are taken down; 0 = of none

    def __post_init__(self) -> None:
        check("sample", 0 <= self.sample <= SAMPLE_MAX, f"must be from 0 to {SAMPLE_MAX}")
        try:
            where = self.place
        except UnitError as error:
            raise ValueError(f"listen: {error}") from None
        if where is None:
            return
        check("listen", _is_address(where.host), "names a host: write its address")
        check(
            "listen",
            self.allow_public or _is_guarded(where.host),
            "is an address that the world may reach; write 127.0.0.1, or set allow_public",
        )

    @property
    def place(self) -> HostPort | None:
        """Where to listen. None = nowhere."""
        return HostPort.parse(self.listen) if self.listen else None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_guarded(host: str) -> bool:
    """Loopback or private; "0.0.0.0" and "::" are every address of the machine."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_private and not address.is_unspecified
