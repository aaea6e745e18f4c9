"""Where a spool belongs, so that a copy of it is not taken for the original and sends everything again.

The file `place` beside the store names the machine and the store's file (inode). A copy has another inode:
it is refused with the two ways out, to go back to the original or to say that the copy is the original now
(`adopt`). A machine's name alone decides nothing: containers change theirs, and a snapshot of a whole
machine keeps everything; that two of those run at a time is found out on the bus (`actors.presence`).
Raises StorageError.
"""

from pathlib import Path

import msgspec
from msgspec import Struct

from engine.keyring import replace_file
from engine.model.decoding import UNDECODABLE
from engine.storage import StorageError

PLACE_FILE = "place"
STORE_FILE = "data.mdb"
MACHINE_ID = Path("/etc/machine-id")  # machine-id(5)
PLACE_OCTETS_MAX = 4_096


class Place(Struct, frozen=True):
    """Which file on which machine."""

    machine: str
    folder: str
    inode: int

    def __str__(self) -> str:
        return f"{self.folder} ({self.machine[:8] or 'a machine without a name'}, {self.inode})"


def check_place(folder: Path) -> str:
    """Where this spool is; written down at the first time. Raises StorageError for a copy."""
    here = _place_of(folder)
    path = folder / PLACE_FILE
    try:
        with path.open("rb") as file:
            noted = msgspec.json.decode(file.read(PLACE_OCTETS_MAX), type=Place)
    except FileNotFoundError:
        adopt(folder)
        return str(here)
    except (OSError, *UNDECODABLE) as error:
        raise StorageError(f"{path}: cannot be read ({error}); `emass queue adopt` writes it anew") from error
    if noted.inode != here.inode:
        raise StorageError(
            f"{folder}: is a copy of the spool that was made at {noted}: what that one has sent would be sent"
            " again. Use the original; or, if it is gone for good, say so with"
            f" `emass queue adopt --data {folder.parent}`"
        )
    if noted != here:  # the folder was moved, or the machine got another name: the file is the same
        adopt(folder)
    return str(here)


def adopt(folder: Path) -> str:
    """Let this be the spool's place from now on; returns it."""
    here = _place_of(folder)
    path = folder / PLACE_FILE
    try:
        replace_file(path, msgspec.json.encode(here))  # synced: half a note would stop the engine
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from error
    return str(here)


def _place_of(folder: Path) -> Place:
    try:
        machine = MACHINE_ID.read_text().strip()[:64]
    except (OSError, UnicodeDecodeError):
        machine = ""
    try:
        return Place(machine, str(folder.resolve()), (folder / STORE_FILE).stat().st_ino)
    except OSError as error:
        raise StorageError(f"{folder}: holds no spool: {error.strerror}") from error
