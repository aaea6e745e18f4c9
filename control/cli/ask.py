"""Asking the engine that runs over a data folder, and the configuration that holds there.

A question costs a running engine one answer over the bus. Whether an engine runs is seen from the spool's
lock, so that nobody waits for an answer that cannot come. Touches: the folder's bus, where the asker is a
member for a moment and leaves nothing behind.
"""

import json
import os
from pathlib import Path
from typing import Any

import click
import trio
from msgspec.structs import replace

from control.cli.errors import CliError, InputError
from control.cli.job import JOB_FILE, load_job
from control.config import load
from control.node.engine_line import ASKER, is_written, visit
from engine.bus.api import NoAnswer
from engine.bus.local import LocalBus
from engine.config import Config, load_config

ASK_SECONDS = 2.0
ACT_SECONDS = 10.0  # a look-up or a commit may be behind the answer

data_option = click.option(
    "--data", metavar="DIR", default="data", show_default=True, help="The engine's data folder."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
config_option = click.option(
    "--config",
    "named_config",
    metavar="FILE",
    help="Default: the one of the job in the data folder, else $EMASS_CONFIG, then ./emass.toml.",
)


def check_folder(data: str) -> Path:
    """The data folder, if it is one. Raises InputError."""
    folder = Path(data)
    if not (folder / "spool" / "data.mdb").exists():
        raise InputError(f"{folder}: holds no queue (name the data folder with --data)")
    return folder


def ask(folder: Path, within_seconds: float = ASK_SECONDS, **request: Any) -> dict[str, Any] | None:
    """The engine's answer, or None when none runs there. Raises CliError with the engine's own refusal."""
    answer = trio.run(ask_engine, folder, request, within_seconds)
    if answer is not None and "error" in answer:
        raise CliError(str(answer["error"]))
    return answer


def order(folder: Path, **request: Any) -> dict[str, Any]:
    """As `ask`, for what only a running engine can do."""
    answer = ask(folder, ACT_SECONDS, **request)
    if answer is None:
        raise CliError(f"no engine runs over {folder}: start it first (it is what keeps and does this)")
    return answer


async def ask_engine(folder: Path, request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
    """What the running engine answers, or None when none runs there."""
    bus_folder = folder / "bus"
    members = [path.name for path in bus_folder.iterdir()] if bus_folder.is_dir() else []
    known = [name for name in members if not name.startswith((ASKER, "."))]
    # A node's other processes have names of their own behind its name: "a.agent".
    nodes = [name for name in known if not any(name.startswith(f"{other}.") for other in known)]
    if not nodes or not is_written(folder / "spool"):
        return None
    async with visit(bus_folder) as bus:
        if bus is None:
            raise CliError(f"there is no room to ask the engine over {folder}: is the disk full?")
        return await _ask_one(bus, nodes, json.dumps(request).encode(), seconds)


async def _ask_one(bus: LocalBus, nodes: list[str], payload: bytes, seconds: float) -> dict[str, Any] | None:
    for node in nodes:
        try:
            answer = await bus.ask(f"engine.{node}", payload, seconds)
        except NoAnswer:
            continue
        told: dict[str, Any] = json.loads(answer)
        return told
    return None


def config_of(folder: Path, named: str | None) -> tuple[Config, str]:
    """The configuration that holds for a data folder, and the --route of its job ("" = by MX).

    Raises ConfigError or InputError.
    """
    if named is None and (folder / JOB_FILE).exists():
        from control.cli.send import configure

        job, content = load_job(folder)
        path = Path(job.options.config) if job.options.config else None
        unsigned = replace(content, dkim=())  # who only looks needs no key
        return configure(load_config(path, os.environ), job.options, unsigned, folder), job.options.route
    return load(named, os.environ, Path.cwd()), ""
