"""`emass queue override`, `overrides` and `reload`: other rules for a running engine.

Each is one request to the running engine, which checks what is said as it checks `emass.toml`, and
refuses it with file, table and key. What was done is printed as the engine put it.
"""

import json
import time
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from control.cli.adaptation import reason_option
from control.cli.ask import check_folder, data_option, json_option, order
from control.cli.author import author
from control.cli.errors import InputError
from control.cli.table import plain_table
from control.cli.visible import short
from control.cli.words import seconds_words
from engine.config import Duration, UnitError

REASON_OF_RELOAD = "the files have changed"
SHOWN_MAX = 500  # characters of a line


@click.command()
@click.argument("said", nargs=-1, metavar="MATCH=NAME... KEY=VALUE...")
@click.option("--for", "time_text", metavar="TIME", help='How long, as in "2 h". Default: until removed.')
@click.option(
    "--remove", "number", metavar="ID", type=click.IntRange(1), help="End the override of this number."
)
@reason_option
@data_option
@json_option
def override(
    said: tuple[str, ...], time_text: str | None, number: int | None, reason: str, data: str, as_json: bool
) -> int:
    """Let a rule hold that is stronger than those of the files, at once and for a time.

    It matches by provider, mx, site or domain (one of them), and source; or by workspace or campaign,
    with a provider or without. Its values are those of [[engine.site]] in emass.toml. Connections that
    are open go on as they are. An override survives a restart.

    \b
    Example:
      emass queue override provider=google connections=2..4 rate=100/min --for "2 h" --reason "they asked"
      emass queue override workspace=shop rate=5000/h --reason "their help desk is full"
      emass queue override --remove 3 --reason "all is well again"
    """
    if (number is None) == (not said):
        raise click.UsageError("say what holds, or '--remove ID'", click.get_current_context())
    if number is not None:
        if time_text is not None:
            raise click.UsageError(
                "'--remove' ends it now: '--for' says nothing", click.get_current_context()
            )
        answer = order(
            check_folder(data), command="end-override", number=number, reason=reason, author=author()
        )
        return _print_done(answer, as_json)
    seconds = None
    if time_text is not None:
        try:
            seconds = float(Duration.parse(time_text))
        except UnitError as error:
            raise InputError(f"--for {time_text}: {error}") from None
    answer = order(
        check_folder(data),
        command="override",
        said=_parse_said(said),
        seconds=seconds,
        reason=reason,
        author=author(),
    )
    return _print_done(answer, as_json)


@click.command()
@data_option
@json_option
def overrides(data: str, as_json: bool) -> int:
    """List the overrides that hold: what they match and say, why, by whom, and until when.

    \b
    Example:
      emass queue overrides
    """
    answer = order(check_folder(data), command="overrides")
    if as_json:
        click.echo(json.dumps(answer))
        return 0
    console = Console()
    if not answer["overrides"]:
        console.print("Nothing is overridden: the rules of the files hold.")
        return 0
    table = plain_table("", "matches", "id", "says", "time left", "by")
    for one in answer["overrides"]:
        values = ", ".join(f"{key} {text}" for key, text in one["values"].items())
        left = "no end" if one["until"] is None else seconds_words(one["until"] - time.time())
        table.add_row(
            Text(short(one["match"], 60)),
            str(one["number"]),
            Text(short(values, 80)),
            left,
            Text(short(one["author"], 20)),
        )
    console.print(table)
    for one in answer["overrides"]:
        console.print(
            Text(f"  {one['number']}: {short(one['reason'], SHOWN_MAX)}", style="dim"), soft_wrap=True
        )
    return 0


@click.command()
@click.option("--reason", metavar="TEXT", default=REASON_OF_RELOAD, help="Why; it is kept with the change.")
@data_option
@json_option
def reload(reason: str, data: str, as_json: bool) -> int:
    """Read the rules for receivers and replies anew: the files that emass.toml names, and its own.

    What is wrong in them is named and refuses all of it; the running rules stay. Other settings that
    differ are listed: they need a restart.

    \b
    Example:
      emass config check && emass queue reload
    """
    answer = order(check_folder(data), command="reload", reason=reason, author=author())
    return _print_done(answer, as_json)


def _print_done(answer: dict[str, Any], as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps(answer))
        return 0
    click.echo(short(str(answer["done"]), SHOWN_MAX))
    for warning in answer.get("warnings", ()):
        click.echo(short(warning, SHOWN_MAX))
    if answer.get("restart"):
        click.echo(f"needs a restart: {short(', '.join(answer['restart']), SHOWN_MAX)}")
    return 0


def _parse_said(words: tuple[str, ...]) -> dict[str, str]:
    """Key -> text, as the engine wants it. Raises InputError."""
    said: dict[str, str] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.strip() or not text.strip():
            raise InputError(f"{word}: write KEY=VALUE, as in provider=google or connections=2..4")
        if key.strip() in said:
            raise InputError(f"{word}: {key.strip()} is said twice")
        said[key.strip()] = text.strip()
    return said
