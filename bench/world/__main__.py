"""`python -m bench.world serve`: a world as a process (see `bench.world.process`).
`python -m bench.world measure`: how fast the sinks take mail (see `bench.world.measure`).
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import msgspec
import trio

from bench.world.process import load_spec, serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.world", description=__doc__)
    commands = parser.add_subparsers(required=True)
    serving = commands.add_parser("serve", help="run a world until stdin closes or SIGTERM")
    serving.set_defaults(run=_serve)
    serving.add_argument(
        "--spec", default="demo", metavar="demo|FILE|-", help="which world (JSON; - = stdin)"
    )
    serving.add_argument("--record", type=Path, metavar="FILE", help="append a line per accepted message")
    serving.add_argument("--content", action="store_true", help="keep each message's content in the record")
    serving.add_argument("--cpu", type=int, metavar="N", help="run on this core only")
    measuring = commands.add_parser("measure", help="messages per second of each sink, a line of JSON each")
    measuring.set_defaults(run=_measure)
    measuring.add_argument("--sink", nargs="+", default=["smtp-sink", "own", "python"], metavar="KIND")
    measuring.add_argument("--messages", type=int, default=20_000)
    arguments = parser.parse_args()
    code: int = arguments.run(arguments)
    return code


def _serve(arguments: argparse.Namespace) -> int:
    try:
        spec = load_spec(arguments.spec)
        if arguments.cpu is not None:
            os.sched_setaffinity(0, {arguments.cpu})
        trio.run(partial(serve, spec, record=arguments.record, keep_content=arguments.content))
    except msgspec.DecodeError as error:
        print(f"{arguments.spec}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"the world cannot start: {error}", file=sys.stderr)
        return 1
    return 0


def _measure(arguments: argparse.Namespace) -> int:
    from bench.sink import SinkError
    from bench.world.measure import measure

    code = 0
    for kind in arguments.sink:
        try:
            print(msgspec.json.encode(measure(kind, arguments.messages)).decode(), flush=True)
        except SinkError as error:
            print(f"{kind}: {error}", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
