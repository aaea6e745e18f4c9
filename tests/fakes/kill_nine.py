"""`emass send` as a real process that is killed: its job, its children, and what came of it.

`SendJob` writes a list, a letter, a key and an `emass.toml` with a compressed retry clock, and starts the
command over them, the first time anew and then with --resume. `Sending` is one such process: it knows
its signer processes and whether they are gone. `read_outcome` compares what the world received (its
record outlives every kill) with what the engine's events say.
"""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trio
from msgspec import Struct

from bench.world.manners import Manners, Moment, Starttls, bounced, busy, hang_up
from bench.world.people import Person
from bench.world.process import WorldProcess, child_environment
from bench.world.records import read_records
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec
from engine.bus.local import LocalBus
from engine.keyring import create_dkim_key, create_master_key
from engine.model.event import Ambiguous, AttemptEvent, decode_events

NODE = "kill-nine"
SENDER = "ann@letters.example"
LETTER = """<p>Dear {{ first_name }} in {{ city }},</p>
<p>this letter is signed, and you get it <b>once</b>.</p>
<p><a href="{{ unsubscribe_url }}">Leave</a></p>
"""
CONFIG = """\
[node]
name = "{node}"
[engine]
smtp_port = {port}
signers = 2
[engine.retry]
first = "1 s"
factor = 1.3
max = "3 s"
jitter = 0.2
expire_after = "2 h"
[keys]
folder = "keys"
"""
POLL_SECONDS = 0.01
DEATH_SECONDS = 3.0
EVENTS_SECONDS = 1.0


def unquiet_world(seed: int) -> WorldSpec:
    """Receivers that defer, refuse, close early and hang up; who is not refused gets the mail in the end.

    Most of it goes through TLS, and a fifth is greylisted: whenever the engine dies, sessions are encrypted
    and envelopes wait for their second try.
    """
    return WorldSpec(
        name="unquiet",
        seed=seed,
        providers=(
            ProviderSpec(
                "big",
                (
                    Site(
                        (Host("mx1.big.example"), Host("mx2.big.example")),
                        {"big.example": 5, "vast.example": 2},
                    ),
                ),
                Manners(chunking=True, starttls=Starttls.OFFERED, troubles=(bounced(0.01), busy(0.03, 1.0))),
            ),
            ProviderSpec(
                "grey",
                (Site((Host("mx.grey.test"),), {"grey.test": 2, "gray.test": 0.5}),),
                Manners(greylist_seconds=1.0, starttls=Starttls.REQUIRED, troubles=(busy(0.05, 2.0),)),
            ),
            ProviderSpec(
                "plain",
                (Site((Host("mx.plain.test"),), {"plain.test": 2}),),
                Manners(messages_per_connection=60, troubles=(busy(0.02, 2.0),)),
            ),
            ProviderSpec(
                "shaky",
                (Site((Host("mx.shaky.test"),), {"shaky.test": 1}),),
                Manners(
                    pipelining_across=False,
                    starttls=Starttls.OFFERED,
                    troubles=(hang_up(Moment.RCPT, 0.005), hang_up(Moment.REPLY, 0.005, accepts=True)),
                ),
            ),
        ),
    )


def calm_world(**manners: Any) -> WorldSpec:
    """One provider without troubles of its own; `manners` as in Manners."""
    site = Site((Host("mx.calm.test"),), {"calm.test": 1.0, "quiet.test": 1.0})
    return WorldSpec(name="calm", providers=(ProviderSpec("calm", (site,), Manners(**manners)),))


class Outcome(Struct, frozen=True):
    """What the world and the events say. Addresses are in lower case."""

    received: Counter[str]
    message_ids: dict[str, set[str]]
    ambiguous: frozenset[str]

    @property
    def doubles(self) -> set[str]:
        return {address for address, times in self.received.items() if times > 1}


class SendJob:
    """One campaign to `people`, over `folder`."""

    def __init__(
        self, folder: Path, world: WorldProcess, people: Sequence[Person], *, signed: bool = True
    ) -> None:
        self.folder = folder
        self.data = folder / "job"
        self.people = people
        self.runs = 0
        self._signed = signed
        self._resolver = "{}:{}".format(*world.resolver)
        (folder / "keys").mkdir(mode=0o700)
        create_master_key(folder / "keys/master.key")
        create_dkim_key(folder / "dkim.pem")
        (folder / "letter.html").write_text(LETTER)
        (folder / "emass.toml").write_text(CONFIG.format(node=NODE, port=world.smtp_port))
        with (folder / "people.csv").open("w", encoding="utf-8") as file:
            file.write("email,first_name,city\n")
            file.writelines(f"{one.email},{one.first_name},{one.city}\n" for one in people)

    def start(self, *more: str, resume: bool) -> "Sending":
        """The command as a process; its output goes to files beside the list."""
        arguments = ["--data", str(self.data), *more]
        if resume:
            arguments.append("--resume")
        else:
            arguments += [
                "--csv",
                "people.csv",
                "--from",
                f"Ann <{SENDER}>",
                "--subject",
                "For {{ first_name }}",
            ]
            arguments += ["--html", "letter.html", "--config", "emass.toml", "--resolver", self._resolver]
            arguments += ["--unsubscribe-host", "news.letters.example"]
            if self._signed:
                arguments += ["--dkim-key", "dkim.pem", "--dkim-selector", "s1"]
        self.runs += 1
        return Sending(self.folder, arguments, self.runs)

    async def read_outcome(self, record: Path) -> Outcome:
        """Read record and bus; the command must not be running."""
        received: Counter[str] = Counter()
        message_ids: dict[str, set[str]] = {}
        for one in read_records(record):
            address = one.recipient.lower()
            received[address] += 1
            message_ids.setdefault(address, set()).add(one.message_id)
        events = await read_events(self.data)
        # A subscriber is the number of the record in the list, from 1.
        ambiguous = {
            self.people[event.subscriber - 1].email for event in events if isinstance(event, Ambiguous)
        }
        return Outcome(received, message_ids, frozenset(ambiguous))


class Sending:
    """One `emass send` process; a context manager that leaves none behind."""

    def __init__(self, folder: Path, arguments: Sequence[str], number: int) -> None:
        self.stdout = folder / f"run{number}.out"
        self.stderr = folder / f"run{number}.err"
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "control", "send", *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=child_environment(),
            )

    def __repr__(self) -> str:
        return f"<Sending pid {self.process.pid}: {self.process.poll()}>"

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def signers(self) -> list[int]:
        """Its signer processes that are alive."""
        return signers_of(self.process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    async def wait(self, seconds: float) -> int:
        """Its exit code. Raises TooSlowError."""
        with trio.fail_after(seconds):
            while (code := self.process.poll()) is None:
                await trio.sleep(POLL_SECONDS)
        return code

    def report(self) -> dict[str, Any]:
        """The JSON object of --json."""
        facts: dict[str, Any] = json.loads(self.stdout.read_text())
        return facts

    def said(self) -> str:
        return self.stderr.read_text(errors="replace")


def signers_of(parent: int) -> list[int]:
    """The signer processes of a process that are alive."""
    pids: list[int] = []
    # Children hang on the thread that started them.
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(OSError):
            pids += [int(pid) for pid in children.read_text().split() if _is_signer(int(pid))]
    return pids


async def until_gone(pids: Sequence[int], seconds: float = DEATH_SECONDS) -> list[int]:
    """Wait for processes to end; those that did not."""
    with trio.move_on_after(seconds):
        while any(map(_is_signer, pids)):
            await trio.sleep(POLL_SECONDS)
    return [pid for pid in pids if _is_signer(pid)]


async def until_grown(record: Path, by_octets: int, sending: Sending, seconds: float = 30.0) -> bool:
    """Wait until the world's record has grown so much. False when the command ended before."""
    start = record_octets(record)
    with trio.fail_after(seconds):
        while record_octets(record) - start < by_octets:
            if not sending.running:
                return False
            await trio.sleep(POLL_SECONDS)
    return True


def record_octets(record: Path) -> int:
    return record.stat().st_size if record.exists() else 0


async def read_events(data: Path) -> list[AttemptEvent]:
    """Every attempt's event that the engine of this folder has published, each once."""
    bus = LocalBus(data / "bus", "judge", temporary=True)
    events: list[AttemptEvent] = []
    following = 0
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(bus.run)
            subscription = bus.subscribe(f"events.{NODE}", "judge")
            while True:
                deliveries = []
                with trio.move_on_after(EVENTS_SECONDS):
                    deliveries = await subscription.receive(1_000)
                if not deliveries:
                    break
                for delivery in deliveries:
                    batch = decode_events(delivery.payload)
                    if batch.sequence >= following:  # published twice around a kill
                        following = batch.next_sequence
                        events += [event for event in batch.events if isinstance(event, AttemptEvent)]
            bus.close()
    finally:
        bus.close_files()
    return events


def _is_signer(pid: int) -> bool:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return b"engine.actors.signer_process" in line and state != "Z"
