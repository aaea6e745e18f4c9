"""Swaks, the Swiss Army knife of SMTP: a client that others test their servers with.

`swaks_command` is its command line, with the Perl libraries that were unpacked beside it. Decides nothing
else; what it is to send stands in the caller's options.
"""

import shutil
from collections.abc import Sequence

from bench.peers.place import home


def swaks_command(*options: str) -> Sequence[str]:
    """The words to run it with; `place.missing("swaks")` says whether it is there."""
    programs = home("swaks")
    perl = shutil.which("perl")
    assert perl is not None, "place.missing has looked"
    libraries = [programs / "usr/share/perl5", *programs.glob("usr/lib/*/perl5/*")]
    return (
        perl,
        *(word for library in libraries for word in ("-I", str(library))),
        str(programs / "usr/bin/swaks"),
        *options,
    )
