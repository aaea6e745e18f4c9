"""`emass stop`: ends this node's processes politely, and says how far it is.

The root is told by a signal and ends its processes in order; those that outlived a dead root are told
themselves. A node that does not run is no error. With `--firm` nobody is waited for: what is on the wire then
is ambiguous at the next start. Exit code 1 when something is still there in the end.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from control.cli.errors import CliError
from control.cli.up import config_file, config_option

if TYPE_CHECKING:
    from control.node.run_folder import RunFolder

LOOK_SECONDS = 0.1
POLITE_SECONDS = 300.0  # the sum of what processes are given, and some
FIRM_SECONDS = 60.0
ORPHAN_SECONDS = 100.0  # of those whose root is dead; then they are killed


@click.command()
@config_option
@click.option("--firm", is_flag=True, help="Wait for nobody: what is on the wire becomes ambiguous.")
def command(named: str | None, firm: bool) -> None:
    """Stop this node's processes politely: open transactions finish.

    \b
    Example:
      emass stop
    """
    from engine.config import load_config

    config = load_config(config_file(named), os.environ)
    stop(Path(config.node.data), config.node.name, firm)


def stop(data: Path, name: str, firm: bool) -> None:
    """Stop what runs over this data folder. Raises CliError."""
    from control.node.run_folder import RunFolder

    folder = RunFolder(data)
    pid = folder.holder()
    if pid is not None:
        _tell(pid, signal.SIGQUIT if firm else signal.SIGTERM)
        told: set[str] = set()
        seconds = FIRM_SECONDS if firm else POLITE_SECONDS
        if not _wait(lambda: folder.holder() is None, seconds, lambda: _say_progress(folder, told)):
            raise CliError(f"{name}: it did not end within {seconds:g} s (emass status shows what is left)")
        _say_progress(folder, told)
    orphans = _end_orphans(folder, firm)
    if pid is None and not orphans:
        click.echo(f"{name} does not run.")
    else:
        click.echo(f"{name} is stopped.")


def _end_orphans(folder: "RunFolder", firm: bool) -> bool:
    """End those that outlived a dead root; whether there were any."""
    from control.node.run_folder import outlived

    left = outlived(folder.read())
    for each in left:
        assert each.pid is not None
        click.echo(f"{each.name} (pid {each.pid}) outlived its root and is told to end")
        _tell(each.pid, signal.SIGTERM)
        if firm:
            _tell(each.pid, signal.SIGINT)
    if left and not _wait(lambda: not outlived(folder.read()), FIRM_SECONDS if firm else ORPHAN_SECONDS):
        for each in outlived(folder.read()):
            assert each.pid is not None
            click.echo(f"{each.name} (pid {each.pid}) does not end and is killed")
            _tell(each.pid, signal.SIGKILL)
    return bool(left)


def _say_progress(folder: "RunFolder", told: set[str]) -> None:
    from control.node.record import ProcessState

    state = folder.read()
    for each in () if state is None else state.processes:
        if each.state in (ProcessState.STOPPING, ProcessState.STOPPED):
            line = f"  {each.name}: {each.state.value}"
            if line not in told:
                told.add(line)
                click.echo(line)


def _wait(over: Callable[[], bool], seconds: float, look: Callable[[], None] = lambda: None) -> bool:
    deadline = time.monotonic() + seconds
    while not over():
        if time.monotonic() > deadline:
            return False
        look()
        time.sleep(LOOK_SECONDS)
    return True


def _tell(pid: int, number: signal.Signals) -> None:
    """Send a signal; who has gone meanwhile has done what was wanted. pid 0 would be ourselves."""
    if pid > 0:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
        except PermissionError as error:
            raise CliError(f"pid {pid} belongs to another user: stop it as that user") from error
