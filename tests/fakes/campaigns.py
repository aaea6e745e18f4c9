"""A small world and a small campaign to it, by the real commands in real processes.

`village()` has one provider with two domains, a shy one that defers everything until told otherwise, and
a domain without mail. A local part that begins with "nobody" bounces. `emass` runs one command to its
end; `Campaign` writes list and letter into a folder and knows the options that lead to the world.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from bench.world.manners import Manners, Moment, Trouble
from bench.world.process import WorldProcess, child_environment
from bench.world.spec import Host, ProviderSpec, Site, WorldSpec

PROMISED = ["accepted", "delivered", "bounced", "deferred", "expired", "suppressed", "cancelled", "ambiguous"]
PROMISED += ["quarantined", "render_failed", "was_ambiguous", "seconds", "messages_per_second"]
STATES = PROMISED[1 : PROMISED.index("was_ambiguous")]
SHY = "later.village.test"
LETTER = """<p>Dear {{ first_name }},</p><p>the well is mended.</p>
<p><a href="{{ unsubscribe_url }}">No more letters</a></p>
"""


def village(*, slow_seconds: float = 0.0) -> WorldSpec:
    """`slow_seconds` is how long the provider thinks about each message."""
    nobody = Trouble("no_such_user", Moment.RCPT, 0.0, "550 5.1.1 Nobody of that name", only="nobody")
    manners = Manners(troubles=(nobody,), tarpit={"content": slow_seconds} if slow_seconds else {})
    site = Site((Host("mx.village.test"),), {"village.test": 3.0, "green.village.test": 1.0})
    not_now = Trouble("not_now", Moment.RCPT, 1.0, "450 4.2.1 Come back tomorrow")
    shy = Site((Host("mx.later.village.test"),), {SHY: 1.0})
    return WorldSpec(
        name="village",
        providers=(
            ProviderSpec("village", (site,), manners),
            ProviderSpec("shy", (shy,), Manners(troubles=(not_now,))),
        ),
        null_mx={"silent.village.test": 1.0},
    )


class Ran:
    """One command that has ended."""

    def __init__(self, ended: "subprocess.CompletedProcess[bytes]") -> None:
        self.code = ended.returncode
        self.out = ended.stdout.decode()
        self.err = ended.stderr.decode()

    def __repr__(self) -> str:
        return f"<Ran: code {self.code}, {self.err!r}>"

    @property
    def facts(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        facts: dict[str, Any] = json.loads(self.out)
        return facts


async def emass(*arguments: str | Path, folder: Path, **environment: str) -> Ran:
    """`emass ARGUMENTS` in `folder`, to its end."""
    return Ran(
        await trio.run_process(
            command(*arguments),
            cwd=folder,
            env=child_environment() | {"NO_COLOR": "1"} | environment,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    )


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "control.cli", *map(str, arguments)]


class Campaign:
    """A list and a letter in `folder`, and the way to `world`."""

    def __init__(self, folder: Path, world: WorldProcess, addresses: Sequence[str]) -> None:
        self.folder = folder
        lines = ["email,first_name", *(f"{address},Reader {n}" for n, address in enumerate(addresses))]
        (folder / "people.csv").write_text("\n".join(lines) + "\n")
        (folder / "letter.html").write_text(LETTER)
        self.environment = {
            "EMASS_ENGINE__SMTP_PORT": str(world.smtp_port),
            "EMASS_ENGINE__RETRY__FIRST": "500 ms",
            "EMASS_ENGINE__RETRY__MAX": "1 s",
        }
        self.options: list[str] = ["--csv", "people.csv", "--from", "Ann <ann@village.example>"]
        self.options += ["--subject", "{{ first_name }}, the well", "--html", "letter.html"]
        self.options += ["--unsubscribe-host", "go.village.example", "--data", "job"]
        self.resolver = ["--resolver", "{}:{}".format(*world.resolver)]

    async def send(self, *more: str) -> Ran:
        """A new campaign to its end."""
        return await emass(
            "send", *self.options, *self.resolver, *more, folder=self.folder, **self.environment
        )

    async def resume(self, *more: str) -> Ran:
        return await emass("send", "--data", "job", "--resume", *more, folder=self.folder, **self.environment)

    async def queue(self, *more: str) -> Ran:
        return await emass("queue", "show", "--data", "job", *more, folder=self.folder)


def adds_up(facts: dict[str, Any]) -> bool:
    """Every envelope is in exactly one state."""
    return sum(int(facts[state]) for state in STATES) == int(facts["accepted"])
