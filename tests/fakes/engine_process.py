"""An engine in a process of its own, as a service manager would start it."""

import subprocess
import sys
from pathlib import Path

import trio

from tests.fakes.campaigns import emass

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0


async def started(folder: Path) -> "subprocess.Popen[bytes]":
    """An engine over `folder/emass.toml` and `folder/data` that answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "engine", str(folder / "emass.toml")], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    with trio.fail_after(START_SECONDS):
        while (await emass("queue", "overrides", folder=folder)).code != 0:
            await trio.sleep(0.05)
    return process
