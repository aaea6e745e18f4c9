"""`emass queue adopt`: says that a copied data folder is the original from now on.

The one thing to do after a restore from a backup or a move by copying. What the former original sent after
the copy was made would be sent again, so it is asked for by name.
"""

from pathlib import Path

import click

from control.cli.ask import check_folder, data_option
from control.cli.errors import CliError


@click.command()
@data_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def adopt(data: str, yes: bool) -> None:
    """Take a copied queue for the original, which is gone for good.

    \b
    Example:
      emass queue adopt --data restored/data
    """
    from engine.mta.spool.place import adopt as adopt_place
    from engine.storage import StorageError

    folder: Path = check_folder(data)
    if not yes:
        click.confirm(
            "What the original sent since the copy was made will be sent again. Is it gone for good?",
            abort=True,
        )
    try:
        where = adopt_place(folder / "spool")
    except StorageError as error:
        raise CliError(str(error)) from error
    click.echo(f"The queue at {where} is the original now.")
