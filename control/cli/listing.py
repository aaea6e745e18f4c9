"""`emass queue list` and `inspect`: envelopes of a data folder, one by one, without slowing its engine.

Both read the spool as another process may (read-only, no lock, short transactions), and `emass` has stepped
behind the engine for the processor by then. `inspect` opens one envelope where the keys are at hand: then it
shows the address, the row and, if asked, the message as it would go, unsigned. Texts of strangers are escaped
before they are printed.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from control.cli.ask import check_folder, config_of, config_option, data_option, json_option
from control.cli.dry_run import readable_lines
from control.cli.errors import CliError, InputError
from control.cli.history import events_of
from control.cli.table import plain_table
from control.cli.visible import short, visible
from control.cli.words import seconds_words
from engine.config import BusKind, ConfigError
from engine.keyring import KeyringError, RowKeyring, load_row_secret
from engine.model.content import Content
from engine.model.envelope import Envelope
from engine.mta.compose.errors import ContentError, RenderError
from engine.mta.compose.message import compile_content
from engine.mta.compose.raw import RawContent
from engine.mta.compose.token import TokenKeys
from engine.mta.spool.api import Listed, SpoolError
from engine.mta.spool.reader import SpoolReader
from engine.storage import StorageError
from engine.token_ring import TokenRing, load_ring

PAGE = 5_000
LIMIT_DEFAULT = 50
LIMIT_MAX = 100_000
SHOW_AFTER_SECONDS = 1.0  # a look that takes longer shows how far it has come
CELLS_MAX = 20  # values of a row on a terminal; --json has all

Wanted = Callable[[Listed], bool]


@click.command("list")
@click.option("--domain", metavar="NAME", help="Only this recipient domain.")
@click.option("--campaign", metavar="N", type=int, help="Only this campaign.")
@click.option(
    "--state",
    type=click.Choice(["queued", "deferred", "ambiguous", "quarantined"]),
    help="Only envelopes in this state.",
)
@click.option("--after", metavar="ID", type=click.IntRange(0), default=0, help="Begin behind this one.")
@click.option(
    "--limit", metavar="N", type=click.IntRange(1, LIMIT_MAX), default=LIMIT_DEFAULT, show_default=True
)
@data_option
@json_option
def list_envelopes(
    domain: str | None,
    campaign: int | None,
    state: str | None,
    after: int,
    limit: int,
    data: str,
    as_json: bool,
) -> int:
    """List envelopes in the order of acceptance: id, campaign, domain, state, attempts, when next.

    \b
    Example:
      emass queue list --state quarantined
      emass queue list --domain example.net --after 4711 --limit 1000
    """

    def wanted(item: Listed) -> bool:
        return (
            domain in (None, item.domain)
            and campaign in (None, item.campaign)
            and state in (None, item.state)
        )

    return show_envelopes(check_folder(data), wanted, after, limit, as_json)


def show_ambiguous(folder: Path, as_json: bool) -> int:
    """Print the envelopes that may have been delivered already: held, or tried again."""
    return show_envelopes(
        folder, lambda item: item.state == "ambiguous" or item.was_ambiguous, 0, LIMIT_DEFAULT, as_json
    )


def show_envelopes(folder: Path, wanted: Wanted, after: int, limit: int, as_json: bool) -> int:
    """Print up to `limit` envelopes; the exit code."""
    try:
        with SpoolReader(folder / "spool") as spool:
            found = list(_found(spool, wanted, after, limit + 1))
    except StorageError as error:
        raise InputError(str(error)) from error
    shown, more = found[:limit], len(found) > limit
    following = shown[-1].spool_id if more else None
    if as_json:
        click.echo(json.dumps({"envelopes": [facts_of(item) for item in shown], "next_after": following}))
        return 0
    console = Console()
    if not shown:
        console.print("There is none.")
        return 0
    table = plain_table("", "domain", "id", "campaign", "state", "attempts", "next attempt", "expires in")
    now = time.time()
    for item in shown:
        state = (
            f"{item.state} (ambiguous)" if item.was_ambiguous and item.state != "ambiguous" else item.state
        )
        table.add_row(
            Text(short(item.domain, 60)),
            str(item.spool_id),
            str(item.campaign),
            state,
            str(item.attempt),
            _from_now(item.due, now),
            _from_now(item.expires_at, now),
        )
    console.print(table)
    if following is not None:
        console.print(f"... there are more: --after {following}", highlight=False)
    return 0


def _found(spool: SpoolReader, wanted: Wanted, after: int, limit: int) -> Iterator[Listed]:
    """The first so many that are wanted; shows progress on a terminal when it takes long."""
    left, started = limit, time.monotonic()
    with Progress(transient=True, console=Console(stderr=True), disable=not os.isatty(2)) as progress:
        task = progress.add_task("Looking", total=None, visible=False)
        while left and (page := spool.listing(after, PAGE)):
            for item in page:
                if wanted(item):
                    yield item
                    left -= 1
                    if not left:
                        return
            after = page[-1].spool_id
            if time.monotonic() - started > SHOW_AFTER_SECONDS:
                progress.update(task, completed=after, total=spool.last_id, visible=True)


def facts_of(item: Listed) -> dict[str, Any]:
    now = time.time()
    return {
        "id": item.spool_id,
        "campaign": item.campaign,
        "subscriber": item.subscriber,
        "domain": item.domain,
        "state": item.state,
        "attempts": item.attempt,
        "crashes": item.crashes,
        "next_attempt_seconds": round(max(0.0, item.due - now), 1) if item.due else None,
        "expires_in_seconds": round(item.expires_at - now),
        "was_ambiguous": item.was_ambiguous,
    }


@click.command()
@click.argument("number", metavar="ID", type=click.IntRange(1))
@click.option("--message", "with_message", is_flag=True, help="The message as it would go, unsigned.")
@data_option
@config_option
@json_option
def inspect(number: int, with_message: bool, data: str, named_config: str | None, as_json: bool) -> int:
    """Show one envelope: its state, what happened to it, and with the keys whose it is and what it says.

    \b
    Example:
      emass queue inspect 4711 --message
    """
    folder = check_folder(data)
    try:
        with SpoolReader(folder / "spool") as spool:
            item = spool.one(number)
            facts: dict[str, Any] = {"events": events_of(folder, spool, number)}
            if item is not None:
                facts = facts_of(item) | facts
                facts |= _opened(folder, spool, number, named_config, with_message=with_message)
    except StorageError as error:
        raise InputError(str(error)) from error
    if not facts["events"] and _on_a_cluster(folder, named_config):
        facts["history"] = "what was published is on the cluster's bus, and in the report of its job"
    if item is None:
        if not facts["events"]:
            more = f" here: {facts['history']}" if "history" in facts else ""
            raise CliError(f"there is no envelope {number}, and no event tells of it{more}")
        facts = {"id": number, "state": "gone"} | facts
    if as_json:
        click.echo(json.dumps(facts))
    else:
        _print(facts, Console())
    return 0


def _opened(
    folder: Path, spool: SpoolReader, number: int, named: str | None, *, with_message: bool
) -> dict[str, Any]:
    """Address, row and message; or why they cannot be shown."""
    try:
        keys = config_of(folder, named)[0].keys
        ring = load_ring(Path(keys.folder), keys.master, keys.ring)
        rows = load_row_secret(Path(keys.folder), keys.master)
        envelope = spool.open(number, RowKeyring(folder / "rows.keys", rows))
        content = None if envelope is None else spool.content(envelope.campaign)
    except (KeyringError, SpoolError, ConfigError, InputError) as error:
        return {"sealed": str(error)}
    if envelope is None or content is None:
        return {"sealed": "it has just been settled"}
    facts: dict[str, Any] = {
        "recipient": envelope.recipient,
        "accepted_at": envelope.accepted_at,
        "row": dict(zip(content.fields, envelope.row, strict=False)),
    }
    return facts | _composed(content, envelope, ring) if with_message else facts


def _on_a_cluster(folder: Path, named: str | None) -> bool:
    """Whether published events leave this node."""
    try:
        return config_of(folder, named)[0].bus.kind is not BusKind.LOCAL
    except (ConfigError, InputError):
        return False


def _composed(content: Content, envelope: Envelope, ring: TokenRing) -> dict[str, Any]:
    try:
        tokens = TokenKeys(ring.signing_id(envelope.accepted_at), ring.keys)
        unsigned = replace(content, dkim=())
        compiled = RawContent(unsigned, tokens) if content.raw else compile_content(unsigned, tokens)
        message = compiled.compose(envelope, time.time()).finish()
    except (RenderError, ContentError) as error:
        return {"message": None, "message_trouble": str(error)}
    return {"message": message.decode("ascii", "backslashreplace")}


def _print(facts: dict[str, Any], console: Console) -> None:
    def say(line: str, style: str = "") -> None:
        console.print(Text(line, style=style), soft_wrap=True)

    say(f"Envelope {facts['id']}: {facts['state']}")
    if "domain" in facts:
        say(f"  campaign {facts['campaign']}, subscriber {facts['subscriber']}, to {short(facts['domain'])}")
        tries = f"  {facts['attempts']} attempts are over"
        crashes = f", {facts['crashes']} crashes with it" if facts["crashes"] else ""
        due = facts["next_attempt_seconds"]
        when = "" if due is None else f", the next in {seconds_words(due)}"
        say(f"{tries}{crashes}{when}; expires in {seconds_words(facts['expires_in_seconds'])}")
    if facts.get("was_ambiguous"):
        say("  it was ambiguous: it may have arrived")
    if "sealed" in facts:
        say(f"  address and row are sealed: {short(facts['sealed'], 300)}", "dim")
    if "recipient" in facts:
        say(f"  {short(facts['recipient'])}")
        for name, value in list(facts["row"].items())[:CELLS_MAX]:
            say(f"    {short(name, 40)}: {short(value)}", "dim")
    for event in facts["events"]:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["at"]))
        why = event["reply"] or event["reason"] or event["rule"]
        where = f" at {short(event['mx_host'], 60)}" if event["mx_host"] else ""
        say(f"  {stamp}  {event['event']} (attempt {event['attempt']}){where}: {short(why)}".rstrip(": "))
    if not facts["events"]:
        more = f"here: {facts['history']}" if "history" in facts else "(yet, or any more)"
        say(f"  no event tells of it {more}", "dim")
    if facts.get("message_trouble"):
        say(f"  it cannot be composed: {short(facts['message_trouble'], 300)}")
    if facts.get("message"):
        say("")
        for line in readable_lines(facts["message"].encode("ascii")):
            say(f"  {visible(line)}")


def _from_now(at: float, now: float) -> str:
    return seconds_words(max(0.0, at - now)) if at else ""
