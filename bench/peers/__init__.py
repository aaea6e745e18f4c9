"""Other people's mail servers, run privately: real peers for tests, and the baseline for benchmarks.

Each server module offers `receiving(...)`, a context manager that starts one private instance on a
loopback address, takes mail for every domain, and yields a `Receiver` whose `arrived()` reads back
what was delivered. `postfix.relaying(...)` is the baseline of the benchmarks; `smtp_sink` swallows
mail without keeping it; `opendkim` checks signatures with code that is not ours. Around them stand what
real receivers have: greylisting (`postgrey`), a signed DNS with a validating resolver (`dnssec`, `nsd`,
`unbound`), a private authority (`certificate`) and MTA-STS policies over HTTPS (`policy_host`). The bus
between machines is tried with Debian's own nats-server (`nats`).

The programs are unpacked from Debian packages (and npm) into a cache folder by
`python -m bench.peers install` and never installed: no system service starts, no account is
created, no file outside the cache and the caller's own folder changes. When a program is not
there, `PeerMissing` says so with its cure.
"""

from bench.peers.place import PeerMissing as PeerMissing
from bench.peers.place import missing as missing
from bench.peers.receiver import Arrived as Arrived
from bench.peers.receiver import Receiver as Receiver
