"""`emass send --dry-run`: reads the whole list, sends nothing, shows what would go out.

The refused lines go to a file beside the user (or into `--data`, if that folder exists), as a real
run would write them; the first usable person's message is rendered and shown, unsigned and with
tokens that no server knows.
"""

import json
from collections import Counter
from email import message_from_bytes, policy
from pathlib import Path

import click
import trio

from control.cli.csv_source import CsvSource
from control.cli.forecast import (
    Bounds,
    Counted,
    announce,
    find_routes,
    first_outlooks,
    new_resolver,
    predict,
)
from control.cli.job import VERDICT_FILE
from control.cli.letter import render_sample, slug
from control.cli.people import People, Person, Refused
from control.cli.report import forecast_seconds
from control.cli.verdicts import VerdictFile
from control.cli.visible import visible
from engine.config import Config
from engine.model.content import Content

SAMPLE_LINES_MAX = 60  # a screen or two


def dry_run(
    source: CsvSource,
    content: Content,
    *,
    config: Config,
    relay: bool,
    now: float,
    data: str | None,
    as_json: bool,
) -> int:
    """Returns the exit code. Raises InputError for a list without one usable address.

    `relay`: all of it would go to one host that was named, whose limits are its operator's.
    """
    people = People(source, content.fields)
    first: Person | None = None
    domains: Counter[str] = Counter()
    folder = Path(data) if data and Path(data).is_dir() else Path()
    with VerdictFile(folder / f"{slug(source.path.stem)}-{VERDICT_FILE}") as verdicts:
        for item in people:
            if isinstance(item, Refused):
                verdicts.write(item)
            else:
                first = first or item
                domains[item.domain] += 1
    assert first is not None, "People raises when nobody is left"
    sample = render_sample(content, first, now)
    counted = Counted(domains, people.accepted, 1.0)
    routes = {} if relay else trio.run(find_routes, counted, new_resolver(config))
    outlooks = first_outlooks(counted, routes, Bounds.of_config(config, relay=relay))
    forecast = predict(outlooks)
    if as_json:
        facts = {
            "would_send": people.accepted,
            "refused": people.refused,
            "refused_file": str(verdicts.path) if verdicts.count else None,
            "encoding": source.encoding,
            "delimiter": source.delimiter,
            "fields": list(content.fields),
            "forecast_seconds": forecast_seconds(forecast),
            "message_bytes": len(sample),
            "sample": sample.decode("ascii"),
        }
        click.echo(json.dumps(facts))
        return 0
    click.echo(f"{people.accepted:,} messages would be sent; {people.refused:,} lines are refused", nl=False)
    click.echo(f", see {verdicts.path}" if verdicts.count else "")
    click.echo(announce(forecast, outlooks))
    click.echo(f"The first of them, {len(sample):,} octets:\n")
    for line in readable_lines(sample):
        click.echo(f"  {visible(line)}")
    return 0


def readable_lines(sample: bytes) -> list[str]:
    """Headers as they are sent and the text part as it is read."""
    message = message_from_bytes(sample, policy=policy.default)
    head = sample.partition(b"\r\n\r\n")[0].decode("ascii").split("\r\n")
    body = message.get_body(("plain",))
    text = body.get_content().splitlines() if body is not None else []
    lines = [*head, "", *text]
    return lines if len(lines) <= SAMPLE_LINES_MAX else [*lines[:SAMPLE_LINES_MAX], "..."]
