"""`python -m bench scale`: up to 50 broadcasters and 100,000,000 recipients in virtual time.

The real policy code (shaping rules, governor, throttle, warm-up, retries, source of a domain, spreading of
chunks) runs against assumed receivers (`simulation.providers`); engines and coordinator are ceilings that
were measured. Each section varies one thing. `optimum` is a lower bound from work over capacity that knows
nothing of the simulation; efficiency is optimum over time. With `--against FILE`, the output of
`python -m bench world --json`, the same list goes through the model and both are set side by side.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import machine
from bench.simulation.chart import scale_chart
from bench.simulation.check import check, check_table
from bench.simulation.model import SIGNED_PER_SECOND
from bench.simulation.runs import SECTIONS, SHARED_PER_SECOND, Plan, Row, Runner

COUNTS = (1, 2, 5, 10, 20, 50)
BASE = 10
WIDTH = 150  # of tables in a file or a pipe
TITLES = (
    "",
    "done in",
    "half at",
    "99 % at",
    "report at",
    "optimum",
    "held up by",
    "efficiency",
    "x",
    "msg/s",
)
MORE = {"refused": "refused_share", "ambiguous": "given_up", "may double": "may_double"}  # where there is any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=10_000_000, help="recipients on the list")
    parser.add_argument(
        "--broadcasters",
        type=_counts,
        default=COUNTS,
        metavar="N,N,...",
        help="sizes of the fleet to compare",
    )
    parser.add_argument("--base", type=int, default=BASE, help="broadcasters where their number is not asked")
    parser.add_argument(
        "--per-second", type=float, default=SIGNED_PER_SECOND, help="attempts that one engine can make"
    )
    parser.add_argument(
        "--shared", type=float, default=SHARED_PER_SECOND, help="messages a second of one sending domain"
    )
    parser.add_argument("--only", type=_sections, default=tuple(SECTIONS), metavar="SECTION,...")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--svg", type=Path, metavar="FILE.svg", help="draw the curves")
    parser.add_argument("--against", type=Path, metavar="FILE.json", help="a run of `bench world --json`")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.messages < 1_000 or arguments.base < 2:
        raise SystemExit("bench: --messages must be at least 1000, --base at least 2")
    if arguments.against is not None:
        return {"against": check(json.loads(arguments.against.read_text()))} | machine.versions()
    plan = Plan(
        messages=arguments.messages,
        counts=arguments.broadcasters,
        base=arguments.base,
        per_second=arguments.per_second,
        shared_per_second=arguments.shared,
        seed=arguments.seed,
    )
    runner, began = Runner(plan), machine.cpu_seconds()
    found: dict[str, list[Row]] = {}
    for name in arguments.only:
        print(f"{SECTIONS[name][0]} ...", file=sys.stderr)
        found[name] = list(SECTIONS[name][1](runner))
    if arguments.svg is not None:
        arguments.svg.write_text(scale_chart(found, plan))
    return {
        "messages": plan.messages,
        "cpu_seconds": round(machine.cpu_seconds() - began, 1),
        "sections": {name: [row.facts() for row in rows] for name, rows in found.items()},
    } | machine.versions()


def show(facts: dict[str, Any]) -> None:
    """A table for each section."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    if "against" in facts:
        console.print(check_table(facts["against"]))
        return
    console.print(f"{facts['messages']:,} recipients; {facts['cpu_seconds']:,} s of processor time in all")
    for name, rows in facts["sections"].items():
        console.print(_table(SECTIONS[name][0], rows))


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    more = {heading: key for heading, key in MORE.items() if any(row[key] for row in rows)}
    table = Table(title=title, title_justify="left")
    for heading in (*TITLES, *more):
        table.add_column(heading, justify="left" if heading in {"", "held up by"} else "right", no_wrap=True)
    first = rows[0]
    for row in rows:
        cells = [
            row["label"],
            duration(row["seconds"]),
            duration(row["seconds_50"]),
            duration(row["seconds_99"]),
            duration(row["report_seconds"]),
            duration(row["optimum_seconds"]),
            row["bound_by"],
            f"{row['efficiency']:.1%}",
            f"{first['seconds'] / row['seconds']:.2f}",
            f"{row['messages_per_second']:,.0f}",
        ]
        for key in more.values():
            cells.append(f"{row[key]:.3%}" if key == "refused_share" else f"{row[key]:,}")
        table.add_row(*cells)
    return table


def duration(seconds: float) -> str:
    """Three digits, in the unit that fits."""
    for unit, length in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def _counts(text: str) -> tuple[int, ...]:
    counts = tuple(int(part) for part in text.split(","))
    if not counts or min(counts) < 1:
        raise argparse.ArgumentTypeError("write numbers above 0, as in 1,10,50")
    return counts


def _sections(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    return names
