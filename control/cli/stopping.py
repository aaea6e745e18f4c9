"""`emass queue suspend`, `resume`, `cancel`, `retry`, `reroute`, `drain`, `stops`: a hand on the mail itself.

Each is one request to the running engine, with who says so and why; the engine keeps it before it answers,
so it holds after a restart. What was done is printed as the engine put it. `drain` stays to show how much is
left; leaving it changes nothing.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.text import Text

from control.cli.adaptation import reason_option
from control.cli.ask import ask, check_folder, data_option, json_option, order
from control.cli.author import author
from control.cli.errors import InputError
from control.cli.table import plain_table
from control.cli.visible import short
from control.cli.words import seconds_words
from engine.config import Duration, UnitError

SCOPES = ("campaign", "domain", "workspace", "site", "source")
LOOK_SECONDS = 1.0
SHOWN_MAX = 500  # characters of a line

Function = TypeVar("Function", bound=Callable[..., Any])

time_option = click.option(
    "--for", "time_text", metavar="TIME", help='How long, as in "2 h". Default: no end.'
)


def subject_options(function: Function) -> Function:
    """Which mail: exactly one of these."""
    for option in (
        click.option("--all", "everything", is_flag=True, help="All mail."),
        click.option("--source", metavar="NAME", help="What leaves from this source."),
        click.option("--site", metavar="NAME", help="What goes to this site (a host of it will do)."),
        click.option("--workspace", metavar="NAME", help="What is of this workspace."),
        click.option("--domain", metavar="NAME", help="What is for this recipient domain."),
        click.option("--campaign", metavar="N", help="What is of this campaign."),
    ):
        function = option(function)
    return function


@click.command()
@subject_options
@time_option
@reason_option
@data_option
@json_option
def suspend(data: str, as_json: bool, reason: str, time_text: str | None, **subject: Any) -> int:
    """Let mail wait: nothing more of it goes, until it is resumed or its time is over.

    What is on the wire is finished. Mail is still accepted.

    \b
    Example:
      emass queue suspend --campaign 7 --reason "the link is wrong"
      emass queue suspend --domain example.net --for "2 h" --reason "they asked"
    """
    return _do(data, as_json, subject, command="suspend", reason=reason, seconds=_seconds(time_text))


@click.command()
@subject_options
@click.option("--drain", is_flag=True, help="The engine that is being drained goes on.")
@reason_option
@data_option
@json_option
def resume(data: str, as_json: bool, reason: str, drain: bool, **subject: Any) -> int:
    """End what was said of mail: its suspension, its reroute, the cancel of a campaign; or a drain.

    What a cancel has ended stays ended.

    \b
    Example:
      emass queue resume --campaign 7 --reason "the link is mended"
    """
    if drain:
        if any(subject.values()):
            raise click.UsageError("'--drain' goes alone", click.get_current_context())
        return _send(data, as_json, command="resume", reason=reason, asked={"drain": True})
    return _do(data, as_json, subject, command="resume", reason=reason)


@click.command()
@subject_options
@reason_option
@data_option
@json_option
def cancel(data: str, as_json: bool, reason: str, **subject: Any) -> int:
    """End mail that waits, for good. There is no way back for it.

    What is on the wire is finished; what is held or quarantined stays (see `emass queue retry`). A campaign
    stays cancelled for what comes later, until it is resumed; all else is about what is accepted by now.
    `emass queue stops` shows how far it has come.

    \b
    Example:
      emass queue cancel --campaign 7 --reason "sent to the wrong list"
    """
    return _do(data, as_json, subject, command="cancel", reason=reason)


@click.command()
@subject_options
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(["deferred", "ambiguous", "quarantined"]),
    help="Which mail; may be said several times. Default: deferred.",
)
@click.option(
    "--assume",
    type=click.Choice(["delivered", "failed"]),
    help="Do not try it: take it for delivered, or for failed.",
)
@reason_option
@data_option
@json_option
def retry(
    data: str, as_json: bool, reason: str, states: tuple[str, ...], assume: str | None, **subject: Any
) -> int:
    """Try deferred mail now; or what is held as ambiguous, or was quarantined.

    An ambiguous message may have arrived: it goes out with the same Message-ID again, unless it is taken
    for delivered or failed with --assume.

    \b
    Example:
      emass queue retry --domain example.net --reason "their server is back"
      emass queue retry --all --state ambiguous --assume delivered --reason "they have them"
    """
    if assume and not states:
        raise click.UsageError(
            "'--assume' needs '--state ambiguous' or '--state quarantined'", click.get_current_context()
        )
    asked = {"states": list(states) or ["deferred"], "assume": assume or ""}
    return _do(data, as_json, subject, command="retry", reason=reason, asked=asked)


@click.command()
@subject_options
@click.option("--to", "target", metavar="NAME", required=True, help="A pool or relay of emass.toml.")
@time_option
@reason_option
@data_option
@json_option
def reroute(data: str, as_json: bool, reason: str, target: str, time_text: str | None, **subject: Any) -> int:
    """Send mail over another pool or relay than the rules of emass.toml say.

    \b
    Example:
      emass queue reroute --domain example.net --to relay-b --for "1 d" --reason "listed there"
    """
    seconds = _seconds(time_text)
    return _do(
        data, as_json, subject, command="reroute", reason=reason, seconds=seconds, asked={"to": target}
    )


@click.command()
@data_option
@json_option
def stops(data: str, as_json: bool) -> int:
    """List what operators have said of mail and what still holds, with reason, author and time left.

    \b
    Example:
      emass queue stops
    """
    answer = order(check_folder(data), command="stops")
    if as_json:
        click.echo(json.dumps(answer))
        return 0
    console = Console()
    if answer["draining"] is not None:
        left = seconds_words(answer["draining"]["until"] - time.time())
        console.print(Text(f"The engine is being drained, for {left} more at most."))
    if not answer["stops"]:
        console.print("Nothing is suspended, cancelled, rerouted or being tried again.")
        return 0
    table = plain_table("", "what", "id", "said", "found", "time left", "by")
    for one in answer["stops"]:
        left = "no end" if one["until"] is None else seconds_words(one["until"] - time.time())
        table.add_row(
            Text(short(f"{one['scope']} {one['value']}".strip(), 60)),
            str(one["number"]),
            _said(one),
            f"{one['found']:,}" if one["kind"] in ("cancel", "retry") else "",
            left,
            Text(short(one["author"], 20)),
        )
    console.print(table)
    for one in answer["stops"]:
        console.print(
            Text(f"  {one['number']}: {short(one['reason'], SHOWN_MAX)}", style="dim"), soft_wrap=True
        )
    return 0


def _said(one: dict[str, Any]) -> str:
    if one["kind"] == "reroute":
        return f"reroute to {short(one['target'], 40)}"
    if one["kind"] == "cancel":
        return "cancel (done)" if one["swept"] else "cancel (under way)"
    return str(one["kind"])


@click.command()
@click.option(
    "--within", "time_text", metavar="TIME", default="10 min", show_default=True, help="Stop then anyway."
)
@reason_option
@data_option
@json_option
def drain(data: str, as_json: bool, reason: str, time_text: str) -> int:
    """Take nothing new, send what is queued, and stop the engine.

    Deferred and suspended mail stays, for the next start. Ctrl-C leaves the engine draining; `emass queue
    resume --drain` lets it go on as before. A drain does not survive a restart.

    \b
    Example:
      emass queue drain --within "30 min" --reason "new kernel"
    """
    folder = check_folder(data)
    facts = order(folder, command="drain", seconds=_seconds(time_text), reason=reason, author=author())
    if not as_json:
        click.echo(short(str(facts["done"]), SHOWN_MAX))
    left = int(facts["left"])
    try:
        while True:
            if not as_json:
                _show_left(left, float(facts["seconds_left"] or 0.0))
            time.sleep(LOOK_SECONDS)
            told = ask(folder, command="drain-status")
            if told is None:
                break
            facts, left = told, int(told["left"])
            if not told["draining"]:
                click.echo("resumed: the engine goes on" if not as_json else json.dumps({"drained": False}))
                return 1
    except KeyboardInterrupt:
        click.echo("\nthe engine goes on draining; `emass queue resume --drain` ends that", err=True)
        return 1
    if not as_json and sys.stdout.isatty():
        click.echo()
    click.echo(json.dumps({"drained": True}) if as_json else "the engine has stopped")
    return 0


def _show_left(left: int, seconds: float) -> None:
    if sys.stdout.isatty():
        click.echo(f"\r{left:,} left, {seconds_words(seconds)} more at most   ", nl=False)


def _do(data: str, as_json: bool, subject: dict[str, Any], **request: Any) -> int:
    scope, value = named_subject(subject)
    return _send(data, as_json, subject=scope, subject_value=value, **request)


def _send(data: str, as_json: bool, **request: Any) -> int:
    answer = order(check_folder(data), author=author(), **request)
    if as_json:
        click.echo(json.dumps(answer))
        return 0
    click.echo(short(str(answer["done"]), SHOWN_MAX))
    for warning in answer.get("warnings", ()):
        click.echo(short(warning, SHOWN_MAX))
    return 0


def named_subject(subject: dict[str, Any]) -> tuple[str, str]:
    """Scope and value of the one option that was given."""
    given = [(scope, str(subject[scope])) for scope in SCOPES if subject.get(scope)]
    if subject.get("everything"):
        given.append(("all", ""))
    if len(given) != 1:
        options = ", ".join(f"'--{scope}'" for scope in SCOPES)
        raise click.UsageError(f"say which mail, by one of {options} or '--all'", click.get_current_context())
    return given[0]


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(Duration.parse(text))
    except UnitError as error:
        raise InputError(f"{text}: {error}") from None
