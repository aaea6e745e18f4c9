"""`python -m bench.peers install|status`: unpack the peers, or tell which of them can run here.

`install` exits 0 when every peer is there, 1 when one could not be had; it says which, and why.
Missing peers only skip tests, unless CI=true makes such a skip a failure.
"""

import sys

from bench.peers.install import install_all
from bench.peers.place import PEERS, cache, missing


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit code."""
    match arguments:
        case ["install"]:
            print(f"peers are unpacked in {cache()} and never installed", flush=True)
            failed = False
            for name, outcome in install_all():
                print(f"  {name:10} {outcome}", flush=True)
                failed |= outcome.startswith("not installed")
            return 1 if failed else 0
        case ["status"]:
            for name in PEERS:
                print(f"  {name:10} {missing(name) or 'ready'}")
            return 0
        case _:
            print("usage: python -m bench.peers install|status", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
