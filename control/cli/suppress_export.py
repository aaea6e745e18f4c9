"""`emass suppress export`: what is suppressed, as JSON lines or as address hashes.

Addresses are not stored and cannot be exported; their hashes can be imported again wherever the same
master key is. Read in pages, each a short transaction, so that a running engine is not held up.
"""

import json
from collections.abc import Iterator

import click

from control.cli.ask import config_option, data_option
from control.cli.suppress_store import data_folder, entry_facts, hasher_of, look_into, scope_of
from engine.mta.policy.suppression import EVERYWHERE, SuppressionEntry
from engine.mta.policy.suppression_codec import ADDRESS, describe_key
from engine.mta.spool.suppressions import StoredSuppressions

HASHES_TITLE = "# emass address hashes, key "  # and the check of the key that made them


@click.command()
@click.option("--hashes", is_flag=True, help="Only address hashes, one a line, for `emass suppress import`.")
@click.option(
    "--scope", "scope_text", metavar="SCOPE", help="Only this scope. Default: all; of --hashes, installation."
)
@data_option
@config_option
def export(hashes: bool, scope_text: str | None, data: str, named_config: str | None) -> int:
    """Write what is suppressed to standard output: JSON lines, or address hashes.

    Addresses are not stored, only their hashes under a key of this installation: keep your own list if
    you need names. Hashes mean something only where the same master key is.

    \b
    Example:
      emass suppress export > suppressions.jsonl
      emass suppress export --hashes > hashes.txt
    """
    folder = data_folder(data)
    scope = scope_of(scope_text) or (EVERYWHERE if hashes else None)
    hasher = hasher_of(folder, named_config)
    if hashes:
        click.echo(f"{HASHES_TITLE}{hasher.check.hex()}")
    with look_into(folder, hasher) as store:
        for key, entries in _everything(store) if store else ():
            kind, name = describe_key(key)
            wanted = [entry for entry in entries if scope is None or entry.scope == scope]
            if hashes:
                if wanted and key[:1] == ADDRESS:
                    click.echo(name)
                continue
            for entry in wanted:
                click.echo(json.dumps({"of": kind, "key": name} | entry_facts(entry)))
    return 0


def _everything(store: StoredSuppressions) -> Iterator[tuple[bytes, tuple[SuppressionEntry, ...]]]:
    after = b""
    while page := store.listing(after):
        yield from page
        after = page[-1][0]
