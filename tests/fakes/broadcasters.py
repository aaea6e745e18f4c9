"""Several broadcasters on one bus, each an engine process of its own, and a job over them.

`Fleet` writes an `emass.toml` a broadcaster (one keys folder, since it is one installation) and starts and
kills them. `ManyJob` writes a list and a letter and runs `emass send --bus` over the fleet, the first time
anew and then with --resume. `check_report` holds the report, address by address, against the record of the
world, which outlives every kill.
"""

import csv
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trio

from bench.world.people import Person
from bench.world.process import WorldProcess, child_environment
from bench.world.records import read_records
from engine.keyring import create_dkim_key, create_master_key
from tests.fakes.kill_nine import Sending, signers_of

CONFIG = """\
[node]
name = "{name}"
data = "{name}"
[bus]
{bus}
status_every = "{status_every}"
[engine]
smtp_port = {port}
signers = 1
[engine.retry]
first = "1 s"
factor = 1.3
max = "3 s"
jitter = 0.2
expire_after = "2 h"
[resolver]
servers = ["{resolver}"]
allow_private = true
[keys]
folder = "keys"
{more}
"""
LOCAL = 'kind = "local"\nfolder = "bus"'
NATS = 'kind = "nats"\nservers = ["{server}"]\nseeds = ""\nca_file = ""\nstream_max = "64 MB"'
LETTER = "<p>Dear {{ first_name }} in {{ city }},</p><p><a href='{{ unsubscribe_url }}'>Leave</a></p>"
STATES = (
    "delivered", "bounced", "deferred", "expired", "suppressed", "cancelled", "ambiguous", "quarantined",
    "render_failed",
)  # fmt: skip


class Fleet:
    """Engines by name; a context manager that leaves none behind."""

    def __init__(
        self,
        folder: Path,
        world: WorldProcess,
        names: Sequence[str],
        *,
        server: str = "",
        rooted: bool = False,
        status_every: str = "300 ms",
        more: str = "",
    ) -> None:
        """`server` is the host:port of a nats-server; without it the bus is a folder. `rooted`: each engine
        runs under an `emass up` of its own, which is what `start` and `kill` mean then."""
        self.folder = folder
        self._rooted = rooted
        self._begun: dict[str, int] = {}  # where the log of this start begins
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        if not (folder / "keys").exists():
            (folder / "keys").mkdir(mode=0o700)
            create_master_key(folder / "keys/master.key")
        (folder / "bus").mkdir(exist_ok=True)
        for name in names:
            (folder / f"{name}.toml").write_text(
                CONFIG.format(
                    name=name,
                    port=world.smtp_port,
                    resolver="{}:{}".format(*world.resolver),
                    bus=NATS.format(server=server) if server else LOCAL,
                    status_every=status_every,
                    more=more,
                )
            )

    def start(self, *names: str) -> None:
        for name in names:
            with (self.folder / f"{name}.log").open("ab") as log:
                self._begun[name] = log.tell()
                command = ["control.cli", "up", "--config"] if self._rooted else ["engine"]
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-m", *command, f"{name}.toml"],
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=child_environment(),
                )

    async def engine(self, name: str, seconds: float = 60.0) -> int:
        """The pid of its engine; waits until its node is up, and while its root starts another one."""
        if not self._rooted:
            return self.processes[name].pid
        with trio.move_on_after(seconds):
            log = self.folder / f"{name}.log"
            while f"Node {name} is up".encode() not in log.read_bytes()[self._begun[name] :]:
                await trio.sleep(0.05)
            while not (found := find_children(self.processes[name].pid, b"engine\0")):
                await trio.sleep(0.05)
            return found[0]
        raise AssertionError(f"no engine of {name} is there: {self.said(name)}")

    def signers(self, name: str) -> list[int]:
        """Its signer processes that are alive."""
        engines = [self.processes[name].pid]
        if self._rooted:
            engines = find_children(engines[0], b"engine\0")
        return [pid for engine in engines for pid in signers_of(engine)]

    def kill(self, name: str) -> None:
        """kill -9."""
        process = self.processes.pop(name)
        assert process.poll() is None, f"{name} had ended before: {self.said(name)}"
        process.kill()
        process.wait()

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-2_000:]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


def find_children(parent: int, words: bytes) -> list[int]:
    """Descendants of a process whose command line holds these octets."""
    found: list[int] = []
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(OSError):
            for pid in map(int, children.read_text().split()):
                found += [pid] * (words in Path(f"/proc/{pid}/cmdline").read_bytes())
                found += find_children(pid, words)
    return found


class ManyJob:
    """One campaign to `people`, sent by the broadcasters of a bus."""

    def __init__(
        self, folder: Path, people: Sequence[Person], *, bus: str = "local:bus", signed: bool = False
    ) -> None:
        self.folder = folder
        self.data = folder / "job"
        self.people = people
        self.runs = 0
        self._more = ["--bus", bus]
        if signed:
            create_dkim_key(folder / "dkim.pem")
            self._more += ["--dkim-key", "dkim.pem", "--dkim-selector", "s1"]
        (folder / "letter.html").write_text(LETTER)
        with (folder / "people.csv").open("w", encoding="utf-8") as file:
            file.write("email,first_name,city\n")
            file.writelines(f"{one.email},{one.first_name},{one.city}\n" for one in people)

    def start(self, *more: str, resume: bool = False) -> Sending:
        arguments = ["--data", "job", "--json", *more]
        if resume:
            arguments.append("--resume")
        else:
            arguments += ["--csv", "people.csv", "--from", "Ann <ann@letters.example>", "--subject", "Hello"]
            arguments += ["--html", "letter.html", "--unsubscribe-host", "news.letters.example", *self._more]
        self.runs += 1
        return Sending(self.folder, arguments, self.runs)

    def addresses(self) -> dict[str, dict[str, str]]:
        """The rows of addresses.csv by address."""
        with (self.data / "addresses.csv").open(encoding="utf-8", newline="") as file:
            return {row["address"].lower(): row for row in csv.DictReader(file)}


def check_report(world: WorldProcess, job: ManyJob, report: dict[str, Any], record: Path) -> Counter[str]:
    """Report, addresses and the world's record agree on each address; returns who got how many."""
    received = Counter(one.recipient.lower() for one in read_records(record))
    rows = job.addresses()
    assert len(rows) == len(job.people) == report["accepted"]
    assert sum(report[state] for state in STATES) == report["accepted"]
    states = Counter(row["state"] for row in rows.values())
    assert {state: report[state] for state in STATES if report[state]} == dict(states)
    for one in job.people:
        row, end = rows[one.email.lower()], world.spec.predict(one.email).final
        times = received[one.email.lower()]
        if row["state"] == "delivered":
            assert end == "delivered", row
            assert times >= 1, row
        elif row["state"] == "bounced":
            assert (end, times) == ("bounced", 0), row
        if times > 1:
            assert row["was_ambiguous"] == "yes", f"{row} got {times}"
    assert set(received) <= set(rows)
    by_broadcaster = Counter(row["broadcaster"] for row in rows.values())
    told = {each["broadcaster"]: each["accepted"] for each in report["broadcasters"]}
    assert {name: number for name, number in told.items() if number} == dict(by_broadcaster)
    return received
