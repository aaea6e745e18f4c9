"""The keys that a machine makes for itself before it shows itself to anybody.

An nkey seed for each process that will speak on the bus, and two box keys: one for the node, one for its
signer processes. What is there already stays, so making them twice makes them once. Touches the keys folder
(mode 0700, files 0600). Raises KeyringError; OSError where a folder cannot be made.
"""

from pathlib import Path

from control.cluster.registry import PROCESSES, Applicant, NodeRole
from engine.bus.nkeys import new_seed, public_of
from engine.config import BusTable, KeysTable
from engine.keyring import KeyringError, read_secret, write_secret
from engine.sealing import NODE_BOX, create_box, load_boxes


def make_keys(folder: Path, role: NodeRole) -> Path:
    """A folder of keys of this machine's own; what is there already stays. Raises KeyringError, OSError."""
    keys = folder / KeysTable().folder
    seeds = keys / BusTable().seeds
    for private in (keys, seeds):
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
        private.chmod(0o700)
    for process in PROCESSES[role]:
        path = seeds / f"{process}.seed"
        if not path.exists():
            write_secret(path, new_seed().encode() + b"\n")
    for box in (NODE_BOX, KeysTable().signer_box):
        if not (keys / box).exists():
            create_box(keys / box)
    return keys


def read_applicant(keys: Path, node: str) -> Applicant:
    """The public halves of a folder's keys. Raises KeyringError."""
    public = {}
    for path in sorted((keys / BusTable().seeds).glob("*.seed")):
        try:
            public[path.stem] = public_of(read_secret(path).decode())
        except ValueError as error:
            raise KeyringError(f"{path}: {error}") from None
    return Applicant(
        node,
        public,
        load_boxes(keys / KeysTable().signer_box).public.hex(),
        load_boxes(keys / NODE_BOX).public.hex(),
    )
