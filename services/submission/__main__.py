"""`python -m services.submission [--supervised] [--worker N] [emass.toml]`: takes mail from clients over
SMTP.

Alone it is the parent of `[submission] workers` processes, which it starts by exec and restarts when one
dies; with `--worker N` it is one of them. One worker needs no parent. SIGTERM, SIGINT or, with
`--supervised`, the end of standard input stop it politely: messages in hand become durable and are
answered. Exit codes: 0 stopped, 1 failed, 2 wrong configuration.
"""

import os
import signal
import sys
from pathlib import Path

import trio

from engine.config import ConfigError
from engine.config.tables import Config
from engine.observe.logs import configure_logs
from engine.runtime.crash import leaf_of
from engine.runtime.supervised import SUPERVISED, begin_supervised, tell_ready, until_lifeline_closes
from engine.runtime.supervisor import SupervisorGaveUp
from services.submission.config import SubmissionTable, load_submission
from services.submission.worker import WorkerError, serve
from services.submission.workers import run_workers

USAGE = f"usage: python -m services.submission [{SUPERVISED}] [--worker N] [emass.toml]\n"


def main(arguments: list[str]) -> int:
    supervised = SUPERVISED in arguments
    words = [word for word in arguments if word != SUPERVISED]
    number = 0
    if words[:1] == ["--worker"]:
        if not words[1:2] or not words[1].isdecimal() or not int(words[1]):
            sys.stderr.write(USAGE)
            return 2
        number, words = int(words[1]), words[2:]
    if len(words) > 1 or words[:1] in (["-h"], ["--help"]):
        sys.stderr.write(USAGE)
        return 0 if words[:1] in (["-h"], ["--help"]) else 2
    if supervised:
        begin_supervised()
    configure_logs("info")
    path = Path(words[0]) if words else None
    try:
        config, table = load_submission(path, os.environ)
    except ConfigError as error:
        sys.stderr.write(f"submission: {error}\n")
        return 2
    failed: list[str] = []
    try:
        trio.run(_run, config, table, number, path, supervised)
    except* (WorkerError, SupervisorGaveUp) as group:
        failed.append(str(leaf_of(group)))
    for text in failed:
        sys.stderr.write(f"submission: {text}\n")
    return 1 if failed else 0


async def _run(
    config: Config, table: SubmissionTable, number: int, path: Path | None, supervised: bool
) -> None:
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def heed() -> None:
                async for _ in signals:
                    stop.set()

            async def heed_lifeline() -> None:
                await until_lifeline_closes()
                stop.set()

            nursery.start_soon(heed)
            if supervised:
                nursery.start_soon(heed_lifeline)
            async with trio.open_nursery() as working:
                if number or table.workers == 1:
                    await working.start(serve, config, table, number or 1, stop)
                else:
                    await working.start(run_workers, path, table.workers, stop)
                tell_ready()
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
