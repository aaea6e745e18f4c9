"""Reading `emass.toml` anew while everything runs: what may change, and who is told.

The rules for receivers and for their answers are taken over by a running engine; every other value that
differs wants a restart. Then nothing changes at all, and the answer names table and key: half a reload would
be a node that nobody can describe. `differences` is pure; `reload` reads files and asks the engine.
"""

from typing import Any

import trio
from msgspec import Struct
from msgspec.structs import fields

from control.node.house import HouseError, NodeHouse
from control.node.record import ProcessState
from engine.config import Config, ConfigError, load_config
from engine.config.load import OTHER_TABLES, read_document

# Keys of [engine] that an engine takes over; it reads the files that "shaping" and "replies" name, too.
LIVE = {"engine": frozenset({"shaping", "replies", "provider", "site", "share", "warmup"})}
NAMED_MAX = 8
AUTHOR = "emass reload"


class Reloaded(Struct, frozen=True):
    """What a reload did."""

    done: str
    warnings: tuple[str, ...] = ()


class ReloadRefused(Exception):
    """Nothing was changed; the message names file, table, key and the cure."""


def differences(before: Config, after: Config) -> tuple[str, ...]:
    """What differs and wants a restart, as "[table] key"."""
    found = []
    for table in fields(Config):
        old, new = getattr(before, table.name), getattr(after, table.name)
        for key in fields(type(old)):
            if key.name in LIVE.get(table.name, ()):
                continue
            if getattr(old, key.name) != getattr(new, key.name):
                found.append(f"[{table.encode_name}] {key.encode_name}")
    return tuple(found)


def other_differences(before: dict[str, Any], after: dict[str, Any]) -> tuple[str, ...]:
    """The tables of other packages that differ: none of them is read by a running process."""
    return tuple(f"[{name}]" for name in OTHER_TABLES if before.get(name) != after.get(name))


def other_tables(house: NodeHouse) -> dict[str, Any]:
    """The tables of other packages, as the file has them now. Raises ConfigError."""
    document = read_document(house.config_path, house.environ)
    return {name: document[name] for name in OTHER_TABLES if name in document}


async def reload(house: NodeHouse, others: dict[str, Any]) -> Reloaded:
    """Take over what the file says now. Raises ReloadRefused. `others`: their tables as they hold."""
    try:
        config = await trio.to_thread.run_sync(load_config, house.config_path, house.environ)
        new_others = await trio.to_thread.run_sync(other_tables, house)
    except ConfigError as error:
        raise ReloadRefused(f"{error}; nothing was changed") from error
    wanted = differences(house.config, config) + other_differences(others, new_others)
    if wanted:
        more = f" and {len(wanted) - NAMED_MAX} more" if len(wanted) > NAMED_MAX else ""
        raise ReloadRefused(
            f"{house.config_path}: {', '.join(wanted[:NAMED_MAX])}{more}: cannot change while the node runs;"
            f" nothing was changed (take it back, or: emass stop, emass up)"
        )
    engine = house.records.get("engine")
    if engine is None or engine.state is not ProcessState.READY:
        house.config = config
        return Reloaded("the engine does not run: what changed holds at its next start")
    try:
        told = await house.ask_engine(
            {"command": "reload", "author": AUTHOR, "reason": "the file was read anew"}
        )
    except HouseError as error:
        raise ReloadRefused(f"the engine refused: {error}") from error
    house.config = config
    return Reloaded(str(told.get("done", "")), tuple(map(str, told.get("warnings", ()))))
