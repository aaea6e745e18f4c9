"""`addresses.csv`: every address of the list with what became of it, and the sums by domain on the way.

The list is read once more, in its order, since nobody keeps addresses in memory; who was refused, or is in
no chunk, is not in the file. It is made beside its place and moved there whole, mode 0600. Cells that could
start a formula in a spreadsheet get an apostrophe in front. Raises CliError and InputError.
"""

import csv
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from control.cli.errors import CliError
from control.cli.people import People, Refused
from control.cli.verdicts import harmless
from control.job.outcomes import WORDS, Outcomes, State
from engine.mta.spool.api import StateCounts

FILE = "addresses.csv"
HEAD = ("address", "state", "broadcaster", "reply", "was_ambiguous")


def write_addresses(path: Path, people: People, outcomes: Outcomes) -> dict[str, StateCounts]:
    """Write the file; returns the counts by domain."""
    domains: dict[str, StateCounts] = {}
    part = path.with_name(path.name + ".part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(HEAD)
            csv.writer(file).writerows(_rows(people, outcomes, domains))
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise CliError(f"{path}: cannot be written: {error.strerror}") from error
    return domains


def copy_addresses(path: Path, to: Path) -> None:
    """The same file where --addresses wants it. Raises CliError."""
    try:
        shutil.copyfile(path, to)
        to.chmod(0o600)
    except OSError as error:
        raise CliError(f"{to}: cannot be written: {error.strerror}") from error


def _rows(people: People, outcomes: Outcomes, domains: dict[str, StateCounts]) -> Iterable[tuple[str, ...]]:
    for person in people:
        if isinstance(person, Refused):
            continue
        known = outcomes.person(person.record)
        if known.state is State.NONE:
            continue
        word = WORDS[known.state]
        counts = domains.get(person.domain)
        if counts is None:
            counts = domains[person.domain] = StateCounts()
        if known.state >= State.QUEUED:
            counts.accepted += 1
            if word != "deferred":
                counts.add(word, 1)
        yield (
            harmless(person.recipient),
            word,
            known.broadcaster,
            harmless(known.reply),
            "yes" if known.was_ambiguous else "",
        )
