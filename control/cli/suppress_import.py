"""`emass suppress import`: a file of addresses or hashes into the suppressions, 10 million lines and more.

The file is read and hashed (`suppress_list`); then its keys go, in order, to a running engine over the bus,
which acknowledges what is durable there, else into the store under the writer's lock, a synced commit for
each 20,000 keys; or to every engine of a cluster. Lines that are no address go to a verdict file.

On trouble: what was written stays, and the same import again does no harm: it begins anew and finds the
rest. What is on the bus when we die is applied all the same.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import trio
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

from control.cli.ask import ask, ask_engine, config_option, data_option, json_option
from control.cli.author import author
from control.cli.cluster_bus import bus_options
from control.cli.errors import CliError
from control.cli.suppress_cluster import find_cluster, say
from control.cli.suppress_list import Piles, Show, read_into
from control.cli.suppress_store import (
    REASONS,
    data_folder,
    hasher_of,
    note_option,
    now_ms,
    open_store,
    plain_errors,
    reason_of,
    scope_of,
    source_of,
)
from control.cli.verdicts import VerdictFile
from engine.bus.local import LocalBus
from engine.mta.policy.suppression import SuppressionOrder
from engine.mta.policy.suppression_codec import AddressHasher, encode_order
from engine.mta.spool.suppressions import STREAM, Applied, consumer_name

ORDERS_AHEAD = 64  # on the bus and not applied: 25 MB there
LOOK_SECONDS = 0.1
SILENT_SECONDS = 60.0  # without any progress of the engine: it has stopped; what is on the bus waits for it
QUIET_SECONDS, REDRAW_SECONDS, LINE_SECONDS = 1.0, 0.1, 5.0


@click.command("import")
@click.argument("path", metavar="FILE")
@click.option("--address-column", metavar="NAME", help="Of a CSV file, if it is not found by itself.")
@click.option("--scope", "scope_text", metavar="SCOPE", default="installation", show_default=True)
@click.option("--reason", type=click.Choice(REASONS), default="imported", show_default=True)
@note_option
@click.option("--refused", "verdicts", metavar="FILE", help="Default: FILE.refused.csv.")
@data_option
@bus_options
@config_option
@json_option
def import_file(
    path: str,
    address_column: str | None,
    scope_text: str,
    reason: str,
    note: str,
    verdicts: str | None,
    data: str,
    bus_text: str,
    bus_seed: str,
    bus_ca: str,
    named_config: str | None,
    as_json: bool,
) -> int:
    """Suppress everybody in a file: a CSV file (FILE.csv), else one address or hash a line.

    Hashes are those that `emass suppress export --hashes` writes. The same import may run again.

    \b
    Example:
      emass suppress import suppressed.csv --note "from the old system"
    """
    cluster, source = find_cluster(data, bus_text, bus_seed, bus_ca, named_config), Path(path)
    folder = cluster.folder if cluster else data_folder(data)
    hasher = cluster.hasher() if cluster else hasher_of(folder, named_config)
    scope, why = scope_of(scope_text), reason_of(reason)
    said, at_ms = source_of(author(), note or source.name), now_ms()

    def order(keys: tuple[bytes, ...]) -> SuppressionOrder:
        return SuppressionOrder(
            adds=True, keys=keys, at_ms=at_ms, scope=scope, reason=why, source=said, key_check=hasher.check
        )

    started = time.monotonic()
    with Piles(folder) as piles, Display() as display:
        with VerdictFile(Path(verdicts or f"{path}.refused.csv")) as verdict_file:
            tally = read_into(piles, source, address_column, hasher, verdict_file, display.show)
        orders = (order(keys) for keys in piles.cut())
        engine = None if cluster else ask(folder, command="suppressions")
        if cluster:

            def show(keys: int) -> None:
                display.show(f"{keys:,} of {tally.keys:,} published", keys / tally.keys)

            done: dict[str, Any] = cluster.carry_out_all(orders, show) | {"added": None}
        elif engine is None:
            applied = _write(folder, hasher, orders, tally.keys, display.show)
            done = {"through": "store", "added": applied.added, "changed": applied.changed}
        else:
            if engine["key_check"] != hasher.check.hex():
                raise CliError("the engine that runs there has another master key: name its --config")
            trio.run(_publish, folder, orders, engine["node"], tally.keys, display.show)
            after = ask(folder, command="suppressions") or engine
            done = {"through": "engine", "added": max(0, after["keys"] - engine["keys"])}
        done |= {
            "rows": tally.rows,
            "keys": piles.keys,
            "hashes": tally.hashes,
            "refused": verdict_file.count,
        }
        done["seconds"] = round(time.monotonic() - started, 2)
    if as_json:
        click.echo(json.dumps(done))
        return 0
    doubled = tally.keys - piles.keys
    click.echo(
        (say(done) if cluster else f"{piles.keys:,} suppressed, {done['added']:,} of them new")
        + (f"; {doubled:,} lines were doubled" if doubled else "")
        + (
            f"; {verdict_file.count:,} lines were refused: see {verdict_file.path}"
            if verdict_file.count
            else ""
        )
    )
    return 0


def _write(
    folder: Path, hasher: AddressHasher, orders: Iterator[SuppressionOrder], keys: int, show: Show
) -> Applied:
    """Into the store, under the writer's lock; each order is durable before the next."""
    added = changed = seen = 0
    with open_store(folder, hasher) as store, plain_errors():
        for order in orders:
            done = store.apply_now([order])
            added, changed, seen = added + done.added, changed + done.changed, seen + len(order.keys)
            show(f"{seen:,} of {keys:,} written", seen / keys)
    return Applied(changed, added)


async def _publish(
    folder: Path, orders: Iterator[SuppressionOrder], node: str, keys: int, show: Show
) -> None:
    """To the engine over the bus; returns when it has applied all. CliError when it stops meanwhile."""
    bus = LocalBus(folder / "bus", f"cli-{os.getpid()}", temporary=True)
    consumer = consumer_name(node)
    seen = 0

    async def wait(ahead: int) -> None:
        patience = time.monotonic() + SILENT_SECONDS
        left = bus.backlog(STREAM, consumer)
        while left > ahead:
            await trio.sleep(LOOK_SECONDS)
            before, left = left, bus.backlog(STREAM, consumer)
            if left < before:
                patience = time.monotonic() + SILENT_SECONDS
            elif time.monotonic() > patience:
                if await ask_engine(folder, {"command": "suppressions"}, 1.0) is None:
                    raise CliError("the engine has stopped: run the import again, nothing is done twice")
                patience = time.monotonic() + SILENT_SECONDS

    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(bus.run)
            for order in orders:
                await bus.publish(STREAM, [encode_order(order)])
                seen += len(order.keys)
                show(f"{seen:,} of {keys:,} told to the engine", seen / keys)
                await wait(ORDERS_AHEAD)
            await wait(0)
            bus.close()
    finally:
        bus.close_files()


class Display:
    """How far it is: a bar on a terminal after the first second, a line every few seconds elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._started = self._drawn = time.monotonic()
        self._bar: RichProgress | None = None

    def show(self, text: str, share: float) -> None:
        now = time.monotonic()
        wait = REDRAW_SECONDS if self._terminal else LINE_SECONDS
        if now - self._started < QUIET_SECONDS or now - self._drawn < wait:
            return
        self._drawn = now
        if not self._terminal:
            print(f"{text} ({share:.0%})", file=sys.stderr, flush=True)
            return
        if self._bar is None:
            self._bar = RichProgress(
                BarColumn(bar_width=30),
                TextColumn("{task.description}", markup=False),
                console=Console(file=sys.stderr),
                auto_refresh=False,
            )
            self._bar.start()
            self._bar.add_task("", total=1.0)
        self._bar.update(self._bar.task_ids[0], completed=share, description=text, refresh=True)

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
