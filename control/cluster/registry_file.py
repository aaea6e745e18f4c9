"""The hub's file of who belongs to the cluster: read, changed under a lock, and written durably.

`data/cluster/registry.json`, mode 0600. `changing` is how the command line and the desk change it, at the
same time if need be: one after the other, each from what the other left. What is written from the registry
(the nats-server's users) is written under the same lock, so that it is never older than the registry. Raises
RegistryError where there is none, or a damaged one.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from control.cluster.registry import VERSION, Registry, RegistryError
from engine.keyring import replace_file
from engine.model.decoding import UNDECODABLE

FOLDER = "cluster"  # in the data folder
FILE = "registry.json"
LOCK = "registry.lock"
OCTETS_MAX = 4 * 1024 * 1024  # 500 nodes are some 300 KB


def is_hub(data: Path) -> bool:
    """Whether a data folder is that of a cluster's hub."""
    return (data / FOLDER / FILE).exists()


def load_registry(data: Path) -> Registry:
    """The registry in a data folder. Raises RegistryError when it is no hub's, or damaged."""
    path = data / FOLDER / FILE
    if not path.exists():
        raise RegistryError(f"{path}: is not there: this is no hub (`emass init DIR --cluster` makes one)")
    try:
        with path.open("rb") as file:
            registry = msgspec.json.decode(file.read(OCTETS_MAX), type=Registry)
    except OSError as error:
        raise RegistryError(f"{path}: cannot be read: {error.strerror}") from error
    except UNDECODABLE as error:
        raise RegistryError(f"{path}: is damaged ({error}): put its last backup there") from None
    if registry.version != VERSION:
        raise RegistryError(f"{path}: is of version {registry.version}, this e-MASS knows {VERSION}")
    return registry


def save_registry(data: Path, registry: Registry) -> None:
    """Write it durably: the old one or the new one, whatever happens."""
    folder = data / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(folder / FILE, msgspec.json.format(msgspec.json.encode(registry), indent=1) + b"\n")


def changing(
    data: Path,
    change: Callable[[Registry], Registry],
    then: Callable[[Registry], object] = lambda _: None,
    *,
    waits: bool = True,
) -> Registry:
    """Read, change and write under the lock, and give `then` what holds now; returns that, too.

    Raises what `change` and `then` raise; what `change` made stays if `then` fails. BlockingIOError when
    somebody else has the lock and this one does not wait.
    """
    load_registry(data)  # no lock in a folder that is no hub's
    lock = os.open(data / FOLDER / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        before = load_registry(data)
        after = change(before)
        if after != before:
            save_registry(data, after)
        then(after)
        return after
    finally:
        os.close(lock)
