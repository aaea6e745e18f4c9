"""The one look of our tables: plain, numbers to the right, the first column cut on a narrow terminal."""

from rich import box
from rich.table import Table


def plain_table(title: str, *columns: str) -> Table:
    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    table.add_column(columns[0], overflow="ellipsis", no_wrap=True)
    for name in columns[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    return table
