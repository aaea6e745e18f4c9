"""A node's keys on the bus, replaced: fresh seeds are made here, the desk is told, the old ones shut out.

In two steps, since a process shows the seed that it started with. `bring_new_seeds` registers a fresh key
beside the old one for each process and puts the fresh seeds in place; both are let in, and a process takes
the fresh one with its next start. `drop_old_seeds` has the hub let in the newest alone, if they are those
that lie here: an old copy of the folder would shut its node out. What is asked is signed with the key of the
node's agent. Killed in between, the next call goes on: a seed that was made and
not told lies beside the old one, which is in force until the new one is registered; once all are, a mark
says so, and the next call only puts them in place. The hub keeps two keys a process: a second replacement
before the first is finished is refused by it, and what was made for that one is removed.

Touches: the folder of seeds; the desk, by one question a key. Raises SeedsError, one line with the cure.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from control.cluster.roles import DESK_SUBJECT
from engine.bus.api import Bus, NoAnswer
from engine.bus.nkeys import new_seed, public_of, sign
from engine.keyring import KeyringError, read_secret, write_secret
from engine.model.decoding import UNDECODABLE

AGENT = "agent"
NEXT = ".next"  # behind the name of a seed's file
REGISTERED = "all-registered"  # the mark: the hub knows every seed that waits to be put in place
ANSWER_SECONDS = 20.0  # the hub writes, and has its server read


class SeedsError(Exception):
    """The keys could not be replaced; the message says why and what would help."""


class _NotTaken(SeedsError):
    """The hub has refused: it does not know that key, and will not."""


class _Told(Struct, frozen=True):
    """The desk's answer."""

    error: str = ""
    refused: bool = False


async def bring_new_seeds(bus: Bus, node: str, seeds: Path) -> list[str]:
    """Register a fresh key of every process, then put the seeds in place. The processes' names."""
    processes = sorted(path.stem for path in seeds.glob("*.seed"))  # noqa: ASYNC240 - a handful of names
    if AGENT not in processes:
        raise SeedsError(
            f"{seeds / AGENT}.seed: is not there, and only with it may this node change its keys"
        )
    mark = seeds / REGISTERED
    if not mark.exists():
        try:
            await _register(bus, node, seeds, processes)
            write_secret(mark, b"")
        except KeyringError as error:
            raise SeedsError(str(error)) from error
    for process in processes:
        try:
            (seeds / f"{process}.seed{NEXT}").replace(seeds / f"{process}.seed")
        except FileNotFoundError:
            continue  # put in place before this command was interrupted
        except OSError as error:
            raise SeedsError(f"{seeds / process}.seed: cannot be replaced: {error.strerror}") from error
    mark.unlink()
    return processes


async def _register(bus: Bus, node: str, seeds: Path, processes: list[str]) -> None:
    """Make fresh seeds where there are none, and have the hub know them. Raises KeyringError, SeedsError."""
    agent = _seed(seeds / f"{AGENT}.seed")
    for process in processes:
        fresh = seeds / f"{process}.seed{NEXT}"
        if not fresh.exists():
            write_secret(fresh, new_seed().encode() + b"\n")
        try:
            await _ask(bus, node, agent, "new-key", f"{process} {public_of(_seed(fresh))}")
        except _NotTaken:
            fresh.unlink()
            raise


async def drop_old_seeds(bus: Bus, node: str, seeds: Path) -> None:
    """Have the hub let in the newest keys of this node alone. `bus` has shown the agent's newest."""
    try:
        agent = _seed(seeds / f"{AGENT}.seed")
        newest = {path.stem: public_of(_seed(path)) for path in seeds.glob("*.seed")}  # noqa: ASYNC240 - a few
    except KeyringError as error:
        raise SeedsError(str(error)) from error
    if list(seeds.glob(f"*.seed{NEXT}")) or (seeds / REGISTERED).exists():  # noqa: ASYNC240 - a few names
        raise SeedsError(
            f"{seeds}: not every new key is registered and in place: give the command without --finish first"
        )
    await _ask(bus, node, agent, "drop-old-keys", drop_words(node, newest), newest)


def drop_words(node: str, newest: Mapping[str, str]) -> str:
    """What a node's agent signs to have its former keys shut out: the keys that it holds, by process."""
    return f"drop-old-keys of {node}: " + " ".join(f"{name}={key}" for name, key in sorted(newest.items()))


def _seed(path: Path) -> str:
    """Raises KeyringError."""
    seed = read_secret(path).decode(errors="replace").strip()
    try:
        public_of(seed)
    except ValueError as error:
        raise KeyringError(f"{path}: {error}") from None
    return seed


async def _ask(
    bus: Bus, node: str, agent: str, command: str, said: str, newest: Mapping[str, str] | None = None
) -> None:
    signature = sign(agent, said.encode()).hex()
    question = {"command": command, "node": node, "said": said, "signature": signature}
    question |= {"newest": dict(newest or {})}
    try:
        answer = await bus.ask(DESK_SUBJECT, msgspec.json.encode(question), ANSWER_SECONDS)
    except NoAnswer:
        raise SeedsError("the hub's desk does not answer: is `emass up` running there?") from None
    try:
        told = msgspec.json.decode(answer, type=_Told)
    except UNDECODABLE as error:
        raise SeedsError(f"the hub's answer does not decode: {error}") from None
    if told.error:
        raise (_NotTaken if told.refused else SeedsError)(told.error)
