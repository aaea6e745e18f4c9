"""`emass campaign`: pause, resume or cancel a campaign on every broadcaster at once, and see how it stands.

A campaign is named by its number or by its job's folder. Its state is one row on the bus: engines see it
within a second, take nothing more and send nothing more of it; the coordinator publishes no more. Counts come
from the broadcasters' own spools. Touches: the bus, and the job's record where a folder is named.
"""

import json
import time
from pathlib import Path
from typing import Any

import click
import trio

from control.cli.ask import json_option
from control.cli.author import author
from control.cli.broadcaster import config_option, look
from control.cli.cluster_bus import (
    BusPlace,
    as_writer,
    bus_of_config,
    bus_options,
    on_bus,
    parse_bus,
    place_of,
    run_on_bus,
)
from control.cli.errors import CliError, InputError
from control.cli.job import JOB_FILE, load_job
from control.cli.report import STATES, state_words
from control.cli.visible import short
from control.config import load
from control.job.campaign_state import StateError, Wanted, change_state, read_state
from control.job.own_counts import ask_counts
from engine.bus.api import Bus
from engine.mta.spool.api import StateCounts

COUNTS_SECONDS = 3.0
CAMPAIGN_MAX = 2**32 - 1

_argument = click.argument("campaign", metavar="CAMPAIGN")
reason_option = click.option("--reason", metavar="TEXT", default="", help="Shown wherever it is looked at.")


class Named:
    """The campaign that a command line names, and the bus that it is on."""

    def __init__(self, campaign: str, place: BusPlace | None, number: int, created: float | None) -> None:
        self.text = campaign
        self.number = number
        self.created = created
        self._place = place

    @property
    def place(self) -> BusPlace:
        assert self._place is not None
        return self._place


@click.group()
def command() -> None:
    """Pause, resume or cancel a campaign on all broadcasters; see how it stands.

    \b
    Example:
      emass campaign pause emass-people-20260102-030405 --reason "a wrong link"
    """


@command.command()
@_argument
@reason_option
@bus_options
@config_option
def pause(campaign: str, reason: str, **bus: Any) -> int:
    """Hold it everywhere: nothing more is taken or sent until it is resumed.

    \b
    Example:
      emass campaign pause 1234567 --config hub/emass.toml --reason "a wrong link"
    """
    return _change(_named(campaign, bus), Wanted.PAUSE, reason)


@command.command()
@_argument
@reason_option
@bus_options
@config_option
def resume(campaign: str, reason: str, **bus: Any) -> int:
    """Let it go on.

    \b
    Example:
      emass campaign resume 1234567 --config hub/emass.toml
    """
    return _change(_named(campaign, bus), Wanted.RUN, reason)


@command.command()
@_argument
@click.option("--yes", is_flag=True, help="Do not ask first.")
@reason_option
@bus_options
@config_option
def cancel(campaign: str, yes: bool, reason: str, **bus: Any) -> int:
    """End it for good: what was not sent never is.

    \b
    Example:
      emass campaign cancel 1234567 --yes --reason "sent to the wrong list"
    """
    named = _named(campaign, bus)
    if not yes:
        click.confirm(f"Cancel campaign {named.number} for good?", abort=True)
    return _change(named, Wanted.CANCEL, reason)


@command.command()
@_argument
@bus_options
@config_option
@json_option
def status(campaign: str, as_json: bool, **bus: Any) -> int:
    """Show its state and what the broadcasters' spools count.

    \b
    Example:
      emass campaign status emass-people-20260102-030405 --json
    """
    named = _named(campaign, bus)
    facts = run_on_bus(lambda: _status(named))
    if as_json:
        print(json.dumps(facts))
        return 0
    said = f" by {facts['by']}" if facts["by"] else ""
    why = f": {facts['reason']}" if facts["reason"] else ""
    click.echo(short(f"campaign {facts['campaign']}: {facts['state']}{said}{why}", 500))
    states = [f"{facts[state]:,} {state_words(state)}" for state in STATES if facts[state]]
    click.echo(f"{facts['accepted']:,} accepted: " + (", ".join(states) or "nothing"))
    if facts["unheard"]:
        click.echo(short(f"not counted, since they do not answer: {', '.join(facts['unheard'])}", 500))
    return 0


def _named(campaign: str, bus: dict[str, Any]) -> Named:
    """Raises InputError."""
    folder = Path(campaign)
    given = (bus["bus_text"], bus["bus_seed"], bus["bus_ca"], bus["named_config"])
    if (folder / JOB_FILE).exists():
        job, _ = load_job(folder)
        options = job.options
        if any(given):
            place = place_of(*given)
        elif options.bus:
            place = parse_bus(options.bus, options.bus_seed, options.bus_ca)
        elif options.many:
            place = bus_of_config(load(options.config or None, {}, Path.cwd()))
        else:
            raise InputError(f"{folder}: that job sends by itself: `emass queue suspend --data {folder}`")
        return Named(campaign, place, job.campaign, job.created)
    if not campaign.isdecimal() or not 0 < int(campaign) <= CAMPAIGN_MAX:
        raise InputError(f"{campaign}: is neither a campaign's number nor a job's folder")
    return Named(campaign, place_of(*given), int(campaign), None)


def _change(named: Named, wanted: Wanted, reason: str) -> int:
    async def change() -> None:
        async with as_writer(named.place) as bus:
            await change_state(bus, named.number, wanted, by=author(), reason=reason, at=time.time())

    try:
        run_on_bus(change)
    except StateError as error:
        raise CliError(str(error)) from None
    words = {Wanted.RUN: "goes on", Wanted.PAUSE: "is paused", Wanted.CANCEL: "is cancelled"}
    click.echo(f"campaign {named.number} {words[wanted]}")
    return 0


async def _status(named: Named) -> dict[str, Any]:
    async with on_bus(named.place) as bus:
        state = await read_state(bus, named.number)
        roster = await look(bus)
        counts: dict[str, dict[str, int] | None] = {}
        async with trio.open_nursery() as nursery:
            for name in roster.names():
                nursery.start_soon(_count, bus, name, named.number, counts)
    total = StateCounts()
    for told in counts.values():
        for key in ("accepted", "was_ambiguous", *STATES):
            if told and key != "deferred":
                total.add(key, told.get(key, 0))
    since = named.created if named.created is not None else state.at
    seconds = max(0.0, time.time() - since) if since else 0.0
    return (
        {"campaign": named.number, "accepted": total.accepted}
        | {key: getattr(total, key) for key in STATES}
        | {
            "was_ambiguous": total.was_ambiguous,
            "seconds": round(seconds, 3),
            "messages_per_second": round(total.delivered / seconds, 1) if seconds else 0.0,
            "state": state.state.value,
            "by": state.by,
            "reason": state.reason,
            "broadcasters": {name: told for name, told in counts.items() if told is not None},
            "unheard": sorted(name for name, told in counts.items() if told is None),
        }
    )


async def _count(bus: Bus, name: str, campaign: int, counts: dict[str, dict[str, int] | None]) -> None:
    counts[name] = await ask_counts(bus, name, campaign, COUNTS_SECONDS)
