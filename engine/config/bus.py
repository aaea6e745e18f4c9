"""The table `[bus]`: how the processes of an installation talk to each other.

"local" is a folder on this machine; "nats" is one nats-server or a cluster of them, over which many
machines share work. A node's own orders stay on its own local bus in either case. Where a secret is
wanted, a file under the keys folder is named.
"""

from enum import Enum

from engine.config.base import Table, check
from engine.config.units import OCTETS, Duration, HostPort, Size

SERVERS_MAX = 16
REPLICAS_MAX = 5  # JetStream's own limit


class BusKind(Enum):
    LOCAL = "local"
    NATS = "nats"


class BusTable(Table, frozen=True):
    """Where the bus is, and what this node shows to it."""

    kind: BusKind = BusKind.LOCAL
    folder: str = ""  # of a local bus; relative to the file; empty = `bus` in the data folder
    servers: tuple[HostPort, ...] = (HostPort.parse("127.0.0.1:4222"),)
    listen: HostPort = HostPort.parse("127.0.0.1:4222")  # of the nats-server that this node runs
    replicas: int = 1  # servers that keep a copy of each stream and table
    seeds: str = "bus"  # folder of nkey seeds, one file a process; relative to the keys folder; empty = none
    ca_file: str = "bus-ca.pem"  # what the servers' certificates are judged by; likewise; empty = no TLS
    stream_max: Size = Size(4 * OCTETS["GB"])  # of one stream; over it publishers are refused and keep theirs
    status_every: Duration = Duration(2)

    def __post_init__(self) -> None:
        check("servers", 1 <= len(self.servers) <= SERVERS_MAX, f"name 1 to {SERVERS_MAX} servers")
        check(
            "replicas", 1 <= self.replicas <= REPLICAS_MAX, f"must be from 1 to {REPLICAS_MAX}, an odd number"
        )
        check("replicas", self.replicas % 2 == 1, "must be an odd number: a majority has to be left")
        check("stream_max", self.stream_max >= 10 * OCTETS["MB"], "must be at least 10 MB")
        check("status_every", 0.1 <= self.status_every <= 60, "must be from 100 ms to 1 min")
        for key in ("seeds", "ca_file", "folder"):
            check(key, "\n" not in getattr(self, key), "holds the secret itself; name a file here")
