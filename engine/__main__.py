"""`python -m engine [emass.toml]`: a broadcaster that serves its bus until it is told to stop.

Takes chunks from the local bus of its data folder and sends them. SIGTERM or SIGINT stops it politely:
open transactions finish, everything is settled. Exit codes: 0 stopped, 1 failed, 2 wrong configuration.
"""

import os
import signal
import sys
from pathlib import Path

import trio

from engine.app import EngineError, open_engine
from engine.config import Config, ConfigError, load_config
from engine.observe.logs import configure_logs
from engine.runtime.supervisor import SupervisorGaveUp


def main(arguments: list[str]) -> int:
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        sys.stderr.write("usage: python -m engine [emass.toml]\n")
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    configure_logs("info")
    path = Path(arguments[0]) if arguments else None
    try:
        config = load_config(path, os.environ)
    except ConfigError as error:
        sys.stderr.write(f"engine: {error}\n")
        return 2
    failed: list[str] = []
    try:
        trio.run(serve, config, path)
    except* (EngineError, SupervisorGaveUp) as group:
        failed.append(str(group.exceptions[0]))
    for text in failed:
        sys.stderr.write(f"engine: {text}\n")
    return 1 if failed else 0


async def serve(config: Config, path: Path | None) -> None:
    """Run until a signal or the tree's end."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_engine(config, config_path=path) as engine, trio.open_nursery() as nursery:

            async def heed() -> None:
                async for _ in signals:
                    await engine.stop()

            nursery.start_soon(heed)
            await engine.stopped.wait()
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
