"""`addresses.csv`: a line for everybody who is in a chunk, whole or not at all."""

import csv
import stat
from pathlib import Path
from typing import Any

import pytest

from control.cli.addresses import copy_addresses, write_addresses
from control.cli.csv_source import inspect_csv
from control.cli.errors import CliError
from control.cli.people import People
from control.job.outcomes import Outcomes
from engine.model import event as events


def people(folder: Path) -> People:
    path = folder / "people.csv"
    path.write_text("email\nann@x.test\nnobody\n=bob@y.test\ncid@x.test\ndan@x.test\n")
    return People(inspect_csv(path))


def event(kind: str, subscriber: int, reply: str = "") -> Any:
    return getattr(events, kind)(
        7, subscriber, 1, "x.test", 0, "rcpt", reply, "", "", "mx", "d", "mx", "", 0.1
    )


def filled() -> Outcomes:
    outcomes = Outcomes()
    outcomes.plan([1, 3, 4], 4)
    outcomes.accept(1, 3, "a")
    outcomes.add(event("Delivered", 1, "250 ok"), "a")
    outcomes.add(event("Ambiguous", 3), "a")
    outcomes.add(event("Bounced", 3, "=550 no"), "a")
    return outcomes


def test_everybody_in_a_chunk_has_a_line(tmp_path: Path) -> None:
    path = tmp_path / "addresses.csv"
    domains = write_addresses(path, people(tmp_path), filled())
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [tuple(row.values()) for row in rows] == [
        ("ann@x.test", "delivered", "a", "", ""),
        ("'=bob@y.test", "bounced", "a", "'=550 no", "yes"),
        ("cid@x.test", "not sent", "", "", ""),
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (domains["x.test"].accepted, domains["x.test"].delivered, domains["y.test"].bounced) == (1, 1, 1)
    copy_addresses(path, tmp_path / "copy.csv")
    assert (tmp_path / "copy.csv").read_bytes() == path.read_bytes()


def test_a_file_that_cannot_be_written_leaves_no_half(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="cannot be written"):
        write_addresses(tmp_path / "nowhere" / "addresses.csv", people(tmp_path), filled())
    (tmp_path / "taken").mkdir()
    with pytest.raises(CliError, match="cannot be written"):
        write_addresses(tmp_path / "taken", people(tmp_path), filled())
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(CliError, match="cannot be written"):
        copy_addresses(tmp_path / "people.csv", tmp_path / "taken")
