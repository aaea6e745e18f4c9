"""NSD, privately: an authoritative name server for zones given as text. Failing to start raises `PeerFailed`.

One process as the caller's account; no control socket, no file outside of `folder`. All zones of a private
tree lie on the one server, so it answers from the deepest that fits, and the parent's DS when asked for it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.peers.place import home, library_path
from bench.peers.process import free_port, listens, running

_CONFIG = """\
server:
  server-count: 1
  ip-address: {host}@{port}
  do-ip6: no
  username: ""
  chroot: ""
  zonesdir: "{folder}"
  database: ""
  zonelistfile: "{folder}/zone.list"
  xfrdfile: "{folder}/xfrd.state"
  xfrdir: "{folder}"
  pidfile: ""
  verbosity: 1
  hide-version: yes
  rrl-ratelimit: 0
remote-control:
  control-enable: no
"""
_ZONE = """\
zone:
  name: "{name}"
  zonefile: "{file}"
"""


@contextmanager
def serving(
    folder: Path, zones: Mapping[str, str], host: str = "127.0.0.53", port: int | None = None
) -> Iterator[tuple[str, int]]:
    """Serve `zones` (name -> master file) until the block ends; yields where."""
    port = port or free_port(host)
    program = home("nsd")
    folder.mkdir(parents=True)
    config = _CONFIG.format(host=host, port=port, folder=folder)
    for number, (name, text) in enumerate(zones.items()):
        file = folder / f"{number}.zone"
        file.write_text(text)
        config += _ZONE.format(name=name, file=file)
    path = folder / "nsd.conf"
    path.write_text(config)
    with running(
        [str(program / "usr/sbin/nsd"), "-d", "-c", str(path)],
        address=(host, port),
        log=folder / "log",
        environment={"LD_LIBRARY_PATH": library_path(program)},
        ready=listens,
    ):
        yield host, port
