"""Where the unpacked peers are, and whether one can be used here.

Every Debian peer has a folder of its own, `<cache>/<name>/root`, so that packages which conflict
(Postfix, Exim, OpenSMTPD) sit side by side. The folder appears in one rename, when it is complete.
The cache is `~/.cache/emass/peers`, outside the source tree, so that every clone shares it; the
environment variable EMASS_PEERS names another one. Nothing here downloads: see `install`.
"""

import os
import shutil
from pathlib import Path

from msgspec import Struct


class PeerMissing(Exception):
    """A peer cannot run here. Its text is a skip reason: what is missing, and the cure."""


class Peer(Struct, frozen=True):
    """One program of others: where it comes from and what it wants."""

    name: str
    packages: tuple[str, ...]
    """Debian packages; empty for the one that comes from npm."""
    program: str
    """The main program, relative to the peer's folder."""
    needs_root: bool = False
    """It takes on accounts of its own in a private mount namespace."""
    interpreter: str = ""
    """What the machine itself must have to run it."""


PEERS = {
    peer.name: peer
    for peer in (
        Peer("postfix", ("postfix",), "root/usr/lib/postfix/sbin/master", needs_root=True),
        Peer("exim", ("exim4-daemon-light",), "root/usr/sbin/exim4", needs_root=True),
        Peer("opensmtpd", ("opensmtpd",), "root/usr/sbin/smtpd", needs_root=True),
        Peer("opendkim", ("opendkim",), "root/usr/sbin/opendkim"),
        Peer("nsd", ("nsd",), "root/usr/sbin/nsd"),
        Peer("unbound", ("unbound",), "root/usr/sbin/unbound"),
        Peer("postgrey", ("postgrey",), "root/usr/sbin/postgrey", interpreter="perl"),
        Peer("haproxy", ("haproxy",), "root/usr/sbin/haproxy", needs_root=True),
        Peer("microsocks", ("microsocks",), "root/usr/bin/microsocks"),
        Peer("dante", ("dante-server",), "root/usr/sbin/danted", needs_root=True),
        Peer("prometheus", ("prometheus",), "root/usr/bin/promtool"),
        Peer("nats", ("nats-server",), "root/usr/sbin/nats-server"),
        Peer("swaks", ("swaks", "libnet-ssleay-perl"), "root/usr/bin/swaks", interpreter="perl"),
        Peer("haraka", (), "node_modules/haraka/bin/haraka", interpreter="node"),
    )
}

HARAKA = "haraka@3.3.4"

_CURES = {"node": "install Node.js 20 or newer", "perl": "install perl"}


def cache() -> Path:
    """The folder that holds every unpacked peer."""
    return Path(os.environ.get("EMASS_PEERS") or Path.home() / ".cache" / "emass" / "peers")


def missing(name: str, *, root_needed: bool = True) -> str | None:
    """Why the peer `name` cannot run here, as a skip reason with its cure; None when it can.

    `root_needed=False` asks about its lesser programs, which run as anybody.
    """
    peer = PEERS[name]
    if not (cache() / name / peer.program).is_file():
        return f"peer missing: {name}; cure: python -m bench.peers install"
    confined = peer.needs_root and root_needed
    if confined and os.geteuid() != 0:
        return f"peer missing: {name} needs root; cure: run the tests as root"
    if confined and shutil.which("unshare") is None:
        return f"peer missing: {name} needs unshare; cure: install util-linux"
    if peer.interpreter and shutil.which(peer.interpreter) is None:
        return f"peer missing: {name} needs {peer.interpreter}; cure: {_CURES[peer.interpreter]}"
    return None


def home(name: str, *, root_needed: bool = True) -> Path:
    """The folder of a peer that can run here, else `PeerMissing`."""
    reason = missing(name, root_needed=root_needed)
    if reason is not None:
        raise PeerMissing(reason)
    folder = cache() / name
    return folder if not PEERS[name].packages else folder / "root"


def library_path(root: Path, *, seen_as: Path | None = None) -> str:
    """LD_LIBRARY_PATH for programs of an unpacked `root`, which they may see under another path."""
    folders = [
        *root.glob("usr/lib/*-linux-gnu*"),
        *root.glob("lib/*-linux-gnu*"),
        root / "usr/lib",
        root / "usr/lib/postfix",
    ]
    return ":".join(
        str((seen_as or root) / folder.relative_to(root)) for folder in folders if folder.is_dir()
    )
