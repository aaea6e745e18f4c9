"""`python -m bench NAME`: one benchmark. `python -m bench` lists them.

Each benchmark is a module with `add_arguments(parser)` and `run(arguments) -> facts`; here its facts
are printed as one JSON object (`--json`) or as a table for people (the module's own `show`, if it has one).
"""

import argparse
import json
import sys
from importlib import import_module

from rich.console import Console
from rich.table import Table

BENCHMARKS = {
    "engine": "a whole campaign through the engine, accept to last delivery",
    "compose": "composing one message, and the digests of its signatures",
    "spool": "the durable queue alone: accept, lease, settle, rebuild",
    "suppression": "the set of those who get no mail: import, look-ups, memory",
    "replies": "classifying receivers' answers, and how well they are classified",
    "world": "a list like a real one through receivers with unknown limits, beside fixed limits",
    "submission": "single messages from clients: how fast a worker takes them, how soon they are delivered",
    "fairness": "waits of transactional mail behind bulk mail, and shares of two workspaces",
    "scale": "one campaign over many broadcasters, simulated: 50 of them, 100 million recipients",
}
MODULES = {"world": "world_run"}  # where the module has another name: `bench.world` is the receivers


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", epilog="Example: python -m bench engine --messages 100000 --json"
    )
    subparsers = parser.add_subparsers(dest="name", metavar="NAME", required=True)
    modules = {}
    for name, summary in BENCHMARKS.items():
        module = modules[name] = import_module(f"bench.{MODULES.get(name, name)}")
        sub = subparsers.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(sub)
        if not any("--json" in action.option_strings for action in sub._actions):
            sub.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args(arguments)
    facts = modules[chosen.name].run(chosen)
    if chosen.json:
        print(json.dumps(facts))
    elif hasattr(modules[chosen.name], "show"):
        modules[chosen.name].show(facts)
    else:
        table = Table(title=f"bench {chosen.name}", title_justify="left", show_header=False)
        for key, value in facts.items():
            table.add_row(key, f"{value:,}" if isinstance(value, int | float) else str(value))
        Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
