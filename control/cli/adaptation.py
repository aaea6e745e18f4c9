"""`emass queue pin`, `unpin`, `reset` and `lift`: the operator's hand on the control loop.

Each is one request to the running engine, with who says so and why; what was done is printed as the
engine put it. Without an engine there is nothing to hold, and it is said so.
"""

import json
from typing import Any

import click

from control.cli.ask import check_folder, data_option, json_option, order
from control.cli.author import author
from control.cli.errors import InputError
from control.cli.visible import short
from engine.config import Duration, UnitError
from engine.config.units import Rate

SUBJECTS = ("campaign", "domain", "workspace")

reason_option = click.option(
    "--reason", metavar="TEXT", required=True, help="Why; it is kept with the change for who looks later."
)


@click.command()
@click.argument("path")
@click.argument("knob", metavar="KNOB=VALUE")
@click.option("--for", "time_text", metavar="TIME", help='How long, as in "2 h". Default: until unpinned.')
@reason_option
@data_option
@json_option
def pin(path: str, knob: str, time_text: str | None, reason: str, data: str, as_json: bool) -> int:
    """Hold the connections or the rate of a path, whatever the engine learns meanwhile.

    PATH is a path as `emass queue show` names it (quoted, for the shell), or its site or provider where
    that has one path.
    The bounds of its shaping still hold, and pauses that a receiver asks for. A pin survives a restart.

    \b
    Example:
      emass queue pin mx.example.net connections=3 --for 2h --reason "agreed with their postmaster"
      emass queue pin mx.example.net rate=100/min --reason "their new limit"
    """
    name, value = _parse_knob(knob)
    seconds: float | None = None
    if time_text is not None:
        try:
            seconds = float(Duration.parse(time_text))
        except UnitError as error:
            raise InputError(f"--for {time_text}: {error}") from None
    return _do(
        data, as_json, command="pin", path=path, knob=name, value=value, seconds=seconds, reason=reason
    )


@click.command()
@click.argument("path")
@click.argument(
    "knob", required=False, default="", type=click.Choice(["connections", "rate", ""]), metavar="[KNOB]"
)
@reason_option
@data_option
@json_option
def unpin(path: str, knob: str, reason: str, data: str, as_json: bool) -> int:
    """Let a pinned knob go (without KNOB: all of the path).

    \b
    Example:
      emass queue unpin mx.example.net rate --reason "the agreement has ended"
    """
    return _do(data, as_json, command="unpin", path=path, knob=knob, reason=reason)


@click.command()
@click.argument("path")
@reason_option
@data_option
@json_option
def reset(path: str, reason: str, data: str, as_json: bool) -> int:
    """Forget all that was learnt of a path, with its pins and its own rest, and start anew.

    \b
    Example:
      emass queue reset mx.example.net --reason "they have a new mail server"
    """
    return _do(data, as_json, command="reset", path=path, reason=reason)


@click.command()
@click.argument("target", metavar="PROVIDER|PATH")
@click.argument("subject", nargs=-1, metavar="[campaign N | domain NAME | workspace NAME]")
@reason_option
@data_option
@json_option
def lift(target: str, subject: tuple[str, ...], reason: str, data: str, as_json: bool) -> int:
    """End a hold at a provider, or the rest of a provider or path.

    \b
    Example:
      emass queue lift google --reason "the listing is gone"
      emass queue lift google campaign 7 --reason "the link was taken out"
    """
    if subject and (len(subject) != 2 or subject[0] not in SUBJECTS):
        raise click.UsageError(
            "what is held is named as 'campaign N', 'domain NAME' or 'workspace NAME'",
            click.get_current_context(),
        )
    if subject and subject[0] == "campaign" and not subject[1].isdecimal():
        raise InputError(f"campaign {subject[1]}: a campaign is named by its number")
    kind, value = subject or ("", "")
    return _do(data, as_json, command="lift", path=target, subject=kind, subject_value=value, reason=reason)


def _do(data: str, as_json: bool, **request: Any) -> int:
    answer = order(check_folder(data), author=author(), **request)
    click.echo(json.dumps(answer) if as_json else short(str(answer["done"]), 500))
    return 0


def _parse_knob(text: str) -> tuple[str, float]:
    """ "connections=3" or "rate=100/min". Raises InputError."""
    name, _, value = text.partition("=")
    if name == "connections" and value.isdecimal() and int(value) >= 1:
        return name, float(value)
    if name == "rate":
        try:
            return name, Rate.parse(value).per_second
        except UnitError as error:
            raise InputError(f"{text}: {error}") from None
    raise InputError(f"{text}: write connections=3 or rate=100/min")
