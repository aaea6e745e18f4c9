"""Tables look alike."""

import io

from rich.console import Console

from control.cli.table import plain_table


def test_numbers_stand_to_the_right_and_there_is_no_frame() -> None:
    table = plain_table("Waiting", "domain", "count")
    table.add_row("a.test", "5")
    stream = io.StringIO()
    Console(width=40, file=stream).print(table)
    lines = stream.getvalue().splitlines()
    assert lines[0].strip() == "Waiting"
    assert lines[-1].rstrip().endswith("5")
    assert "|" not in "".join(lines)
