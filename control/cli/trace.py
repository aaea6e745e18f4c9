"""`emass queue trace`: sessions with receivers as they go on, line by line.

The engine listens to the next sessions that match, and this command fetches what was said a few times a
second. Secrets are masked by the engine already. Leaving it ends the trace; the sessions never notice.
"""

import json
import time
from pathlib import Path
from typing import Any

import click

from control.cli.ask import ask, check_folder, data_option, json_option, order
from control.cli.author import author
from control.cli.errors import CliError, InputError
from engine.config import Duration, UnitError

LOOK_SECONDS = 0.3
COLOURS = {">": "cyan", "<": "green", "-": "yellow"}


@click.command()
@click.option("--site", default="", metavar="NAME", help="A site, as `emass queue show` names it.")
@click.option("--source", default="", metavar="NAME", help="An egress source.")
@click.option("--host", default="", metavar="NAME", help="An MX host, by name or address.")
@click.option("--domain", default="", metavar="NAME", help="The site that a recipient domain is routed to.")
@click.option("--sessions", default=1, show_default=True, metavar="N", help="How many sessions.")
@click.option(
    "--for", "time_text", default="60 s", show_default=True, metavar="TIME", help="How long at most."
)
@click.option("--body", default=512, show_default=True, metavar="OCTETS", help="Shown of each message.")
@click.option("--mask", is_flag=True, help="Hide local parts of addresses, and content.")
@data_option
@json_option
def trace(data: str, as_json: bool, time_text: str, **asked: Any) -> int:
    """Show the next session with a receiver, as it goes on, from its first octet.

    ">" is what we say, "<" what the peer says, "-" what is noted of the connection. Passwords are never
    shown; recipients are, unless --mask is given.

    \b
    Example:
      emass queue trace --domain example.net --data emass-people-20260102-030405
    """
    try:
        seconds = float(Duration.parse(time_text))
    except UnitError as error:
        raise InputError(f"--for: {error}") from error
    folder = check_folder(data)
    number = int(order(folder, command="trace-start", author=author(), asked=asked)["trace"])
    heard = 0
    try:
        heard = _follow(folder, number, time.monotonic() + seconds, as_json)
    except KeyboardInterrupt:
        pass
    finally:
        ask(folder, command="trace-stop", number=number)
    if not heard and not as_json:
        click.echo("no session that matches was begun in this time (open ones are not listened to)", err=True)
    return 0 if heard else 1


def _follow(folder: Path, number: int, until: float, as_json: bool) -> int:
    """Print what comes until all sessions have ended or the time is over; how many lines."""
    heard = dropped = 0
    while True:
        answer = ask(folder, command="trace-read", number=number)
        if answer is None:
            raise CliError("the engine has stopped")
        for session, seconds, way, text in answer["lines"]:
            heard += 1
            if as_json:
                print(json.dumps({"session": session, "seconds": seconds, "way": way, "text": text}))
            else:
                click.echo(click.style(f"{session:>4} {seconds:>9.3f} {way} {text}", fg=COLOURS[way]))
        if answer["dropped"] > dropped:
            dropped = answer["dropped"]
            click.echo(f"{dropped:,} lines came faster than they were fetched and are lost", err=True)
        if not answer["more"] or time.monotonic() > until:
            return heard
        if not answer["lines"]:
            time.sleep(LOOK_SECONDS)
