"""The DKIM keys that this engine can sign with, by name; a live list, for all actors to look at.

Two kinds. *Files* are named by the configuration and stay for the engine's life. *Sealed* keys come over
the bus, as octets that only the signer processes can open, and are added, replaced and removed while mail
is signed; one counts as here once a signer process has opened it. Holds no private key in either case.
Decides nothing; whoever waits for a change waits on `changed`. Outlives every actor, as all parts do.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import trio

from engine.actors.signing_frames import KEYS_MAX
from engine.config.bus import BusKind
from engine.config.tables import Config
from engine.keyring import KeyringError
from engine.sealing import create_box, former_of, give_box, signer_owner


class DkimKeys:
    """What can be signed with. `in`, `len` and iteration are over the names of keys that are here."""

    def __init__(
        self, files: Mapping[str, str] | None = None, box: str = "", user: tuple[int, int] | None = None
    ) -> None:
        assert len(files or {}) <= KEYS_MAX
        self.files = dict(files or {})  # name -> PEM file
        self.box = box  # the file that opens sealed keys; empty = there are none on this node
        self.user = user  # (uid, gid) that signer processes run as, if it is not the engine's own
        self.sealed: dict[str, bytes] = {}
        self.opened: dict[str, bytes] = {}  # what signer processes have opened, as it was sealed
        self.trouble: dict[str, str] = {}  # name -> why the last that came cannot be used
        self.publics: tuple[bytes, ...] = ()  # of the box keys, the current one first, as the processes say
        self.version = 0  # moves with every change of sealed keys
        self.generation = 0  # moves when signer processes have to read their files anew
        self.numbers = {name: number for number, name in enumerate(self.files)}
        self._changed = trio.Event()

    def __repr__(self) -> str:
        return f"<DkimKeys {len(self.files)} files, {len(self.opened)} of {len(self.sealed)} sealed opened>"

    def __contains__(self, name: object) -> bool:
        return name in self.files or name in self.opened

    def __iter__(self) -> Iterator[str]:
        yield from self.files
        yield from (name for name in self.opened if name not in self.files)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def wanted(self) -> bool:
        """Whether there is, or may come to be, something to sign with."""
        return bool(self.files or self.box)

    def knows(self, name: str) -> bool:
        """Whether signer processes have that key, or get it before what is asked of them next."""
        return name in self or (name in self.sealed and name not in self.trouble)

    def put(self, name: str, sealed: bytes) -> None:
        """A sealed key came, for the first time or in another's place. Trouble with it is in `trouble`."""
        if self.sealed.get(name) == sealed:
            return
        if name in self.files:
            self.trouble[name] = "the configuration has a file for a key of this name, which is used"
            return
        if name not in self.numbers:
            number = self._free_number()
            if number is None:
                self.trouble[name] = f"there are {KEYS_MAX} keys already"
                return
            self.numbers[name] = number
        self.trouble.pop(name, None)
        self.sealed[name] = sealed
        self.version += 1
        self._ring()

    def remove(self, name: str) -> None:
        """A sealed key is here no longer."""
        self.trouble.pop(name, None)
        self.opened.pop(name, None)
        if self.sealed.pop(name, None) is not None:
            del self.numbers[name]
            self.version += 1
            self._ring()

    def was_opened(self, name: str, sealed: bytes, problem: str) -> bool:
        """What a signer process said of a key; whether that is news."""
        if problem:
            news = self.trouble.get(name) != problem
            self.trouble[name] = problem
        else:
            news = self.opened.get(name) != sealed
            self.opened[name] = sealed
            self.trouble.pop(name, None)
        if news:
            self._ring()
        return news

    def told(self, publics: Sequence[bytes]) -> None:
        """The public halves that a signer process opens with."""
        if self.publics != tuple(publics):
            self.publics = tuple(publics)
            self._ring()

    def renew(self) -> None:
        """Have signer processes finish what they have, and read their key files anew."""
        self.generation += 1
        self._ring()

    async def changed(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()

    def _free_number(self) -> int | None:
        # A number may mean another key later: each process is told of changes before what is asked next.
        taken = set(self.numbers.values())
        return next((number for number in range(KEYS_MAX) if number not in taken), None)

    def _ring(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def dkim_keys_of(config: Config) -> DkimKeys:
    """What a configuration names. On a cluster's node the signers' box key is made where there is none.

    Raises KeyringError.
    """
    folder = Path(config.keys.folder)
    files = {key.name: str(folder / key.file) for key in config.keys.dkim}
    user = signer_owner(config.keys.signer_user)
    if len(files) > KEYS_MAX:
        raise KeyringError(f"[keys] dkim: {len(files)} keys; signers take {KEYS_MAX}")
    if config.bus.kind is BusKind.LOCAL and not config.bus.folder:  # an engine alone
        return DkimKeys(files, user=user)
    box = folder / config.keys.signer_box
    if not box.exists():
        create_box(box, user)
    for path in (box, former_of(box)):
        give_box(path, user)  # the user may be newer than the file
    return DkimKeys(files, str(box), user)
