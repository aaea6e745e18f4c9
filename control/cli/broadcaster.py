"""`emass broadcaster`: who sends on a bus, and what becomes of one that is not wanted or not there any more.

`list` looks at the rows of table `status` for some seconds: who lives is who writes. `drain` asks one to take
nothing new, to send what it has and to stop. `retire` gives one up that is dead: what it had claimed and not
finished is ambiguous, it is never sent by anybody else, and should the machine come back with its spool,
its engine refuses to send. Touches: the bus.
"""

import json
from typing import Any

import click
import msgspec
import trio
from rich.console import Console
from rich.text import Text

from control.cli.adaptation import reason_option
from control.cli.ask import json_option
from control.cli.author import author
from control.cli.cluster_bus import BusPlace, as_writer, bus_options, on_bus, place_of, run_on_bus
from control.cli.errors import CliError, InputError
from control.cli.table import plain_table
from control.cli.visible import short
from control.job.roster import INTERVAL_SECONDS_MAX, Roster, Status
from engine.bus.api import Bus, NoAnswer, PositionLost
from engine.config import Duration, UnitError
from engine.model.decoding import UNDECODABLE

INTERVALS_LOOKED = 2.5  # who has not written for so long while we looked is not there
LOOK_SECONDS_MAX = INTERVALS_LOOKED * INTERVAL_SECONDS_MAX
ANSWER_SECONDS = 10.0

config_option = click.option(
    "--config", "named_config", metavar="FILE", help="Default: $EMASS_CONFIG, then ./emass.toml."
)


@click.group()
def command() -> None:
    """Show who sends on a bus; drain one, or give up one that is gone.

    \b
    Example:
      emass broadcaster list --config hub/emass.toml
      emass broadcaster retire b --config hub/emass.toml
    """


@command.command(name="list")
@bus_options
@config_option
@json_option
def list_all(bus_text: str, bus_seed: str, bus_ca: str, named_config: str | None, as_json: bool) -> int:
    """Show every broadcaster: whether it lives, what it has, and why it takes no work.

    \b
    Example:
      emass broadcaster list --bus local:data/bus
    """
    place = place_of(bus_text, bus_seed, bus_ca, named_config)
    rows = run_on_bus(lambda: _list(place))
    if as_json:
        print(json.dumps(rows))
        return 0
    table = plain_table("", "broadcaster", "state", "queued", "a second", "version")
    for row in rows:
        numbers = (f"{row['queued']:,}", f"{row['rate']:,.0f}")
        version = Text(short(row["version"]) or "-")
        table.add_row(Text(short(row["broadcaster"])), row["state"], *numbers, version)
    console = Console()
    console.print(table)
    for row in rows:
        for why in row["closures"].values():
            console.print(Text(f"{short(row['broadcaster'])}: {short(why, 500)}"), soft_wrap=True)
    return 0


@command.command()
@click.argument("name")
@click.option(
    "--within", "time_text", metavar="TIME", default="10 min", show_default=True, help="Stop then anyway."
)
@reason_option
@bus_options
@config_option
@json_option
def drain(
    name: str,
    time_text: str,
    reason: str,
    bus_text: str,
    bus_seed: str,
    bus_ca: str,
    named_config: str | None,
    as_json: bool,
) -> int:
    """Have one take nothing new, send what it has, and stop. What waits stays in its spool.

    Chunks that it has not claimed go to the others.

    \b
    Example:
      emass broadcaster drain b --within "30 min" --reason "new kernel"
    """
    try:
        seconds = float(Duration.parse(time_text))
    except UnitError as error:
        raise InputError(f"--within {time_text}: {error}") from None
    place = place_of(bus_text, bus_seed, bus_ca, named_config)
    request = {"command": "drain", "seconds": seconds, "reason": reason, "author": author()}
    told = run_on_bus(lambda: _ask(place, name, request))
    click.echo(json.dumps(told) if as_json else short(f"{name}: {told.get('done', 'it drains')}", 500))
    return 0


@command.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@bus_options
@config_option
@json_option
def retire(
    name: str,
    yes: bool,
    bus_text: str,
    bus_seed: str,
    bus_ca: str,
    named_config: str | None,
    as_json: bool,
) -> int:
    """Give up one that is gone for good, with what it had claimed and not finished.

    Those messages are ambiguous in the report, each address listed, and are never sent again: some may have
    arrived. Should the machine come back, its engine refuses to send what is in its spool.

    \b
    Example:
      emass broadcaster retire b --yes
    """
    place = place_of(bus_text, bus_seed, bus_ca, named_config)
    status = run_on_bus(lambda: _look_at(place, name))
    if not yes:
        click.confirm(f"Give up {name}? {status.queued:,} messages wait there, as it last said", abort=True)
    run_on_bus(lambda: _retire(place, name, status.epoch))
    facts = {"broadcaster": name, "epoch": status.epoch, "queued": status.queued}
    click.echo(
        json.dumps(facts) if as_json else f"{name} is retired; {status.queued:,} messages waited there"
    )
    return 0


async def _list(place: BusPlace) -> list[dict[str, Any]]:
    async with on_bus(place) as bus:
        roster = await look(bus)
        retired = await bus.read_all("retired")
    now = trio.current_time()
    rows = []
    for name in roster.names():
        status = roster.status(name)
        assert status is not None
        gone = retired.get(name, b"").decode(errors="replace") == status.epoch and name in retired
        rows.append(
            {
                "broadcaster": name,
                "state": _state(roster, name, now, retired=gone),
                "live": roster.is_live(name, now),
                "retired": gone,
                "draining": status.draining,
                "closures": status.closures,
                "queued": status.queued,
                "rate": round(status.rate, 1),
                "epoch": status.epoch,
                "version": status.version,
                "suppressions": status.suppressions,
            }
        )
    return rows


def _state(roster: Roster, name: str, now: float, *, retired: bool) -> str:
    if retired:
        return "retired"
    if not roster.is_live(name, now):
        return "not there"
    status = roster.status(name)
    if status is not None and status.draining:
        return "drains"
    return "sends" if roster.is_open(name, now) else "takes no work"


async def look(bus: Bus) -> Roster:
    """Everybody who has a row, and who of them lives: some seconds, less when all of them do."""
    roster = Roster()
    rows = await bus.read_all("status")
    for key, row in rows.items():
        roster.hear(key, row, trio.current_time())
    seconds = max((_interval(roster, name) for name in roster.names()), default=0.0) * INTERVALS_LOOKED
    with trio.move_on_after(min(LOOK_SECONDS_MAX, seconds)):
        await _until_all_live(bus, roster)
    return roster


async def _until_all_live(bus: Bus, roster: Roster) -> None:
    try:
        async for key, row in bus.watch("status"):
            now = trio.current_time()
            roster.hear(key, row, now)
            if all(roster.is_live(name, now) for name in roster.names()):
                return
    except PositionLost:  # of a watch that has just begun: nothing is known then
        await trio.lowlevel.checkpoint()


def _interval(roster: Roster, name: str) -> float:
    status = roster.status(name)
    return 0.0 if status is None else status.interval


async def _look_at(place: BusPlace, name: str) -> Status:
    """The last row of one that is not there any more. Raises CliError for one that lives."""
    async with on_bus(place) as bus:
        roster = await look(bus)
    status = roster.status(name)
    if status is None:
        known = ", ".join(roster.names()) or "none"
        raise InputError(f"{name}: no broadcaster of that name has a row on the bus (known: {known})")
    if roster.is_live(name, trio.current_time()):
        raise CliError(f"{name} lives: `emass broadcaster drain {name}` has it send what it has, and stop")
    return status


async def _retire(place: BusPlace, name: str, epoch: str) -> None:
    async with as_writer(place) as bus:
        await bus.put("retired", name, epoch.encode())


async def _ask(place: BusPlace, name: str, request: dict[str, Any]) -> dict[str, Any]:
    async with on_bus(place) as bus:
        try:
            answer = await bus.ask(f"engine.{name}", json.dumps(request).encode(), ANSWER_SECONDS)
        except NoAnswer:
            raise CliError(f"{name} does not answer (`emass broadcaster list`)") from None
    try:
        told = msgspec.json.decode(answer, type=dict[str, Any])
    except UNDECODABLE as error:
        raise CliError(f"{name} answers something else than was asked: {error}") from None
    if "error" in told:
        raise CliError(f"{name}: {told['error']}")
    return told
