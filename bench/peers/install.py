"""Unpacks the peers: Debian packages side by side, Haraka from npm. Installs nothing on the system.

A package is downloaded with `apt-get download` and opened with `dpkg -x`, which runs none of its
scripts; the libraries that this machine lacks (`apt-get install --simulate` knows them) go into the
same folder. What is already there is left alone. A peer that cannot be had is reported with its
reason and the others go on; the caller decides whether that is a failure.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.peers.place import HARAKA, PEERS, Peer, cache

COMMAND_SECONDS_MAX = 300


class InstallFailed(Exception):
    """A peer could not be unpacked; the text says which command failed and what it said last."""


def install_all() -> Iterator[tuple[str, str]]:
    """Unpack every peer that is not there yet. Yields (name, what happened), one pair for each peer."""
    lists_fresh = False
    for peer in PEERS.values():
        if (cache() / peer.name / peer.program).is_file():
            yield peer.name, "ready"
            continue
        try:
            if peer.packages:
                if not lists_fresh:
                    _refresh_lists()
                    lists_fresh = True
                _unpack(peer)
            else:
                _npm(peer)
        except InstallFailed as failure:
            yield peer.name, f"not installed: {failure}"
        else:
            yield peer.name, "unpacked"


def _refresh_lists() -> None:
    if os.geteuid() == 0 and shutil.which("apt-get"):
        _run("apt-get", "-qq", "update")


def _unpack(peer: Peer) -> None:
    folder = cache() / peer.name
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"emass-{peer.name}-") as scratch:
        # A scratch folder that apt's own unprivileged user may write to: apt warns otherwise.
        Path(scratch).chmod(0o777)
        _run("apt-get", "-qq", "download", *peer.packages, *_libraries_lacking(peer), folder=Path(scratch))
        unfinished = folder / "root.part"
        shutil.rmtree(unfinished, ignore_errors=True)
        for archive in sorted(Path(scratch).glob("*.deb")):
            _run("dpkg", "-x", str(archive), str(unfinished))
        unfinished.rename(folder / "root")


def _libraries_lacking(peer: Peer) -> list[str]:
    plan = _run("apt-get", "install", "--simulate", "--no-install-recommends", *peer.packages)
    lines = (line.split() for line in plan.splitlines() if line.startswith("Inst "))
    return [words[1] for words in lines if words[1].startswith("lib") and words[1] not in peer.packages]


def _npm(peer: Peer) -> None:
    folder = cache() / peer.name
    unfinished = folder.with_name(f"{peer.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    # Optional parts are compiled at install time and Haraka runs without them.
    quiet = ("--no-audit", "--no-fund", "--omit=optional", "--ignore-scripts", "--loglevel=error")
    _run("npm", "install", "--prefix", str(unfinished), *quiet, HARAKA)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def _run(program: str, *arguments: str, folder: Path | None = None) -> str:
    found = shutil.which(program)
    if found is None:
        raise InstallFailed(f"{program} is not on this machine")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [found, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise InstallFailed(f"{program} took longer than {COMMAND_SECONDS_MAX} s") from late
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise InstallFailed(f"{program} {arguments[0]} failed: {last}")
    return done.stdout
