"""Where `emass suppress` finds the suppressions of a data folder: a running engine, else the store itself.

Decides which master key makes the hashes: that of the folder's job, of the configuration, or, where
there is none, the folder's own, as `emass send` would use it. An order goes to the engine that runs
there, which answers when it holds; where none runs it is written into the store under the writer's lock.
Touches: the folder `suppressions`, the bus. Raises CliError with the cure.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from control.cli.ask import ask, config_of
from control.cli.errors import CliError, InputError
from control.cli.job import JOB_FILE
from control.config import find_config
from engine.app import load_keys
from engine.config import Config
from engine.config.tables import KeysTable
from engine.mta.policy.suppression import (
    SOURCE_OCTETS_MAX,
    Reason,
    Scope,
    SuppressionEntry,
    SuppressionError,
    SuppressionOrder,
    describe_scope,
    parse_scope,
)
from engine.mta.policy.suppression_codec import AddressHasher, encode_order
from engine.mta.spool.suppressions import StoredSuppressions, open_suppressions
from engine.storage import StorageError

FOLDER = "suppressions"
ANSWER_SECONDS = 15.0  # the engine itself waits up to 10 s for messages that are on their way
REASONS = tuple(reason.name.lower() for reason in Reason)

note_option = click.option("--note", metavar="TEXT", default="", help="Kept with it, for who looks later.")


def data_folder(data: str) -> Path:
    """The data folder, if there is one. It may hold no queue yet. Raises InputError."""
    folder = Path(data)
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder (name the data folder with --data; `emass init` makes one)")
    return folder


def hasher_of(folder: Path, named_config: str | None) -> AddressHasher:
    """Hashes as the engine of this folder makes them. Raises ConfigError, KeyringError."""
    alone = named_config is None and not (folder / JOB_FILE).exists()
    if alone and find_config(None, os.environ, Path.cwd()) is None:
        config = Config(keys=KeysTable(folder=str(folder / "keys")))
    else:
        config, _ = config_of(folder, named_config)
    return AddressHasher(load_keys(config).suppression)


def scope_of(text: str | None) -> Scope | None:
    """Raises InputError."""
    try:
        return None if text is None else parse_scope(text)
    except SuppressionError as error:
        raise InputError(f"--scope: {error}") from None


def reason_of(text: str | None) -> Reason | None:
    return None if text is None else Reason[text.upper()]


def source_of(author: str, note: str) -> str:
    """Who said it, and the note, as long as a record takes."""
    text = f"{author}: {note}" if note else author
    return text.encode()[:SOURCE_OCTETS_MAX].decode(errors="ignore")


def entry_facts(entry: SuppressionEntry) -> dict[str, Any]:
    """As `show --json` and `export` write it; times are wall seconds."""
    return {
        "scope": describe_scope(entry.scope),
        "reason": entry.reason.name.lower(),
        "since": entry.since_ms / 1000,
        "at": entry.at_ms / 1000,
        "by": entry.source,
    }


def now_ms() -> int:
    return int(time.time() * 1000)


def carry_out(folder: Path, hasher: AddressHasher, order: SuppressionOrder) -> dict[str, Any]:
    """Have it done; it is durable on return. What was done, and by whom ("engine" or "store")."""
    told = ask(folder, ANSWER_SECONDS, command="suppress", asked={"order": encode_order(order).hex()})
    if told is not None:
        return told | {"through": "engine"}
    with open_store(folder, hasher) as store, plain_errors():
        done: dict[str, Any] = msgspec.to_builtins(store.apply_now([order]))
    return done | {"keys": len(order.keys), "through": "store"}


@contextmanager
def open_store(folder: Path, hasher: AddressHasher) -> Iterator[StoredSuppressions]:
    """The store of a folder where no engine runs, for writing. Raises CliError."""
    with plain_errors():
        store = open_suppressions(folder / FOLDER, hasher)
    try:
        yield store
    finally:
        store.environment.close()


@contextmanager
def look_into(folder: Path, hasher: AddressHasher) -> Iterator[StoredSuppressions | None]:
    """The store for reading, beside whoever writes; None where there is none yet. Raises CliError."""
    if not (folder / FOLDER / "data.mdb").exists():
        yield None
        return
    with plain_errors():
        store = open_suppressions(folder / FOLDER, hasher, readonly=True)
    try:
        yield store
    finally:
        store.environment.close()


@contextmanager
def plain_errors() -> Iterator[None]:
    """A store's trouble as one line."""
    try:
        yield
    except StorageError as error:
        raise CliError(str(error)) from error
