"""Egress proxies of others, privately: microsocks and Dante (SOCKS5), and haproxy (PROXY protocol v2).

Each listens on loopback and connects onwards from another loopback address, so that a receiver sees by
which way mail came. The haproxy connects from the address that the header names, which Linux allows to
root only (IP_TRANSPARENT). Failing to start raises `PeerFailed` with the end of its log.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.peers.place import home, library_path
from bench.peers.process import free_port, listens, running

_DANTE = """\
logoutput: stderr
internal: {host} port = {port}
external: {sends_from}
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass {{ from: 127.0.0.0/8 to: 127.0.0.0/8 }}
socks block {{ from: 127.0.0.0/8 to: {blocked}/32 command: connect }}
socks pass {{ from: 127.0.0.0/8 to: 127.0.0.0/8 command: connect }}
"""

_HAPROXY = """\
global
  maxconn 1000
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend entry
  bind {host}:{port} accept-proxy
  default_backend onwards
backend onwards
  source 0.0.0.0 usesrc clientip
  server peer 0.0.0.0:0
"""


@contextmanager
def microsocks(
    folder: Path, sends_from: str, host: str = "127.0.0.1", *, user: str = "", password: str = ""
) -> Iterator[tuple[str, int]]:
    """A SOCKS5 proxy, with a login if `user` is given; yields where it listens."""
    root, port = home("microsocks"), free_port(host)
    command = [str(root / "usr/bin/microsocks"), "-i", host, "-p", str(port), "-b", sends_from]
    if user:
        command += ["-u", user, "-P", password]
    with _proxy("microsocks", command, folder, root, host, port) as address:
        yield address


@contextmanager
def dante(
    folder: Path, sends_from: str, host: str = "127.0.0.1", *, blocked: str = "127.255.255.254"
) -> Iterator[tuple[str, int]]:
    """A SOCKS5 proxy without a login, whose rules do not let anybody connect to `blocked`."""
    root, port = home("dante"), free_port(host)
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "danted.conf"
    config.write_text(_DANTE.format(host=host, port=port, sends_from=sends_from, blocked=blocked))
    command = [str(root / "usr/sbin/danted"), "-f", str(config), "-p", str(folder / "danted.pid")]
    with _proxy("dante", command, folder, root, host, port) as address:
        yield address


@contextmanager
def haproxy(folder: Path, host: str = "127.0.0.1") -> Iterator[tuple[str, int]]:
    """A haproxy that connects from where to where a PROXY header says."""
    root, port = home("haproxy"), free_port(host)
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "haproxy.cfg"
    config.write_text(_HAPROXY.format(host=host, port=port))
    with _proxy(
        "haproxy", [str(root / "usr/sbin/haproxy"), "-db", "-f", str(config)], folder, root, host, port
    ) as address:
        yield address


@contextmanager
def _proxy(
    name: str, command: list[str], folder: Path, root: Path, host: str, port: int
) -> Iterator[tuple[str, int]]:
    folder.mkdir(parents=True, exist_ok=True)
    environment = {"LD_LIBRARY_PATH": library_path(root)}
    with running(
        command, address=(host, port), log=folder / f"{name}.log", environment=environment, ready=listens
    ):
        yield host, port
