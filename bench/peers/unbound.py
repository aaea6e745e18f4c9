"""Unbound, privately: a resolver that validates DNSSEC from one trust anchor, with one server as its root.

The whole name space hangs on that server, so no question leaves loopback: the root and what delegates
below it are stub zones, which unlike root hints and delegations may have a port of their own. Names that
RFC 6761 reserves for tests are looked up like others.
Failing to start raises `PeerFailed`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.peers.place import home, library_path
from bench.peers.process import free_port, listens, running

_CONFIG = """\
server:
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: ""
  use-syslog: no
  logfile: ""
  log-servfail: yes
  num-threads: 1
  interface: {host}@{port}
  do-ip6: no
  access-control: 127.0.0.0/8 allow
  do-not-query-localhost: no
  module-config: "validator iterator"
  trust-anchor: "{anchor}"
  local-zone: "test." nodefault
  qname-minimisation: no
  target-fetch-policy: "0 0 0 0 0"
remote-control:
  control-enable: no
"""
_STUB = """\
stub-zone:
  name: "{zone}"
  stub-addr: {host}@{port}
"""


@contextmanager
def resolving(
    folder: Path,
    authority: tuple[str, int],
    anchor: str,
    parents: Sequence[str],
    host: str = "127.0.0.53",
    port: int | None = None,
) -> Iterator[tuple[str, int]]:
    """A validating resolver over the server at `authority`; yields where it listens.

    `anchor` is the root's DS line; `parents` are the zones that delegate, the root among them.
    """
    port = port or free_port(host)
    program = home("unbound")
    folder.mkdir(parents=True)
    path = folder / "unbound.conf"
    stubs = [_STUB.format(zone=zone, host=authority[0], port=authority[1]) for zone in parents]
    path.write_text(_CONFIG.format(folder=folder, host=host, port=port, anchor=anchor) + "".join(stubs))
    with running(
        [str(program / "usr/sbin/unbound"), "-d", "-p", "-c", str(path)],
        address=(host, port),
        log=folder / "log",
        environment={"LD_LIBRARY_PATH": library_path(program)},
        ready=listens,
    ):
        yield host, port
