"""`emass reload`: has a running node read its `emass.toml` anew, and says what came of it.

The root is told by a signal and writes down how it went. Rules for receivers and answers are taken over by
the engine; whatever else differs is named as an error, and nothing changes. Exit codes: 0 taken over, 1 the
node does not run or did not answer, 2 refused.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from control.cli.errors import CliError, InputError
from control.cli.up import config_file, config_option

if TYPE_CHECKING:
    from control.node.run_folder import ReloadFacts

LOOK_SECONDS = 0.05
ANSWER_SECONDS = 30.0  # thousands of rules take seconds to read


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(named: str | None, as_json: bool) -> None:
    """Read emass.toml anew without stopping anything, where that can be.

    \b
    Example:
      emass reload
    """
    from engine.config import load_config

    config = load_config(config_file(named), os.environ)  # a mistake in it is told here at once
    told = order_reload(Path(config.node.data), config.node.name)
    if told.error:
        raise InputError(told.error)
    if as_json:
        click.echo(json.dumps({"done": told.done, "warnings": told.warnings}))
        return
    click.echo(told.done or "read anew")
    for warning in told.warnings:
        click.echo(f"  note: {warning}")


def order_reload(data: Path, name: str) -> "ReloadFacts":
    """How the reload went. Raises CliError."""
    from control.node.run_folder import RunFolder

    folder = RunFolder(data)
    pid, before = folder.holder(), folder.read()
    if not pid or before is None or before.pid != pid:
        raise CliError(f"{name} does not run here: `emass up` starts it with what the file says")
    os.kill(pid, signal.SIGHUP)
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        now = folder.read()
        if now is not None and now.reload.number > before.reload.number:
            return now.reload
        time.sleep(LOOK_SECONDS)
    raise CliError(
        f"{name} did not say within {ANSWER_SECONDS:g} s how its reload went (data/log/root.log may)"
    )
