"""Small processes for a root supervisor: shell scripts that keep the manners of ours.

`$READY` says that it is ready, `$LIVE` waits for the end of the lifeline; SIGTERM ends a shell by itself.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from control.node.processes import ProcessKind
from engine.config import Config, load_config

READY = "echo ready > /proc/self/fd/$EMASS_READY_FD"
LIVE = "cat > /dev/null"
GOOD = f"{READY}; {LIVE}"
# Heeds neither SIGTERM nor its lifeline.
STUBBORN = f"trap '' TERM INT; {READY}; while :; do sleep 0.02; done"
# Ends politely with a code of its own.
POLITE = f"trap 'echo bye; exit 7' TERM; {READY}; while :; do sleep 0.02; done"


def shell(name: str, script: str, **facts: Any) -> ProcessKind:
    """A process that runs a script."""
    return ProcessKind(name, ("/bin/sh", "-c", script), **facts)


def node_config(
    folder: Path, text: str = "", environ: Mapping[str, str] | None = None
) -> tuple[Config, Path]:
    """A node's file in `folder`, and what it says."""
    path = folder / "emass.toml"
    path.write_text(text or '[node]\nname = "n1"\n')
    return load_config(path, environ or {}), path


def main(folder: Path, scripts: list[str]) -> None:
    """A root of its own: `python -m tests.fakes.node_children FOLDER NAME=SCRIPT ...`."""
    from control.node.root import run_node

    config, path = node_config(folder)
    kinds = [shell(*script.split("=", 1)) for script in scripts]
    run_node(config, path, kinds, stream=sys.stdout, environ=os.environ)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
