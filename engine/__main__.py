"""`python -m engine [emass.toml]`: a broadcaster that serves its bus until it is told to stop.

Takes chunks from its bus and sends them. SIGTERM or SIGINT stops it politely: open transactions finish,
everything is settled; a second one in a hurry. With `--supervised` (`emass up` starts it so) it says when it
is ready, and stops politely when its standard input closes. Exit codes: 0 stopped, 1 failed, 2 wrong
configuration.
"""

import os
import signal
import sys
from pathlib import Path

import trio

from engine.app import EngineError, open_engine
from engine.config import Config, ConfigError, load_config
from engine.observe.logs import configure_logs
from engine.runtime.crash import leaf_of
from engine.runtime.supervised import SUPERVISED, begin_supervised, tell_ready, until_lifeline_closes
from engine.runtime.supervisor import SupervisorGaveUp


def main(arguments: list[str]) -> int:
    supervised = arguments[:1] == [SUPERVISED]
    arguments = arguments[1:] if supervised else arguments
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        sys.stderr.write(f"usage: python -m engine [{SUPERVISED}] [emass.toml]\n")
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    if supervised:
        begin_supervised()
    configure_logs("info")
    path = Path(arguments[0]) if arguments else None
    try:
        config = load_config(path, os.environ)
    except ConfigError as error:
        sys.stderr.write(f"engine: {error}\n")
        return 2
    failed: list[str] = []
    try:
        trio.run(serve, config, path, supervised)
    except* (EngineError, SupervisorGaveUp) as group:
        failed.append(str(leaf_of(group)))
    for text in failed:
        sys.stderr.write(f"engine: {text}\n")
    return 1 if failed else 0


async def serve(config: Config, path: Path | None, supervised: bool = False) -> None:
    """Run until a signal, the end of the lifeline or the tree's end."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_engine(config, config_path=path) as engine, trio.open_nursery() as nursery:

            async def heed() -> None:
                asked = False
                async for _ in signals:
                    if asked:
                        engine.hurry()
                    asked = True
                    nursery.start_soon(engine.stop)

            async def heed_lifeline() -> None:
                await until_lifeline_closes()
                await engine.stop()

            nursery.start_soon(heed)
            if supervised:
                nursery.start_soon(heed_lifeline)
                tell_ready()
            await engine.stopped.wait()
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
