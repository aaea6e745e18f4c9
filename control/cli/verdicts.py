"""The verdict file: one CSV line for every record that was refused, with line, address and reason.

People open it in a spreadsheet, and its addresses come from a stranger's file: a cell that could
start a formula gets an apostrophe in front. The file is made with the first verdict, mode 0600.
"""

import csv
import os
from pathlib import Path
from types import TracebackType
from typing import TextIO

from control.cli.errors import CliError
from control.cli.people import Refused

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
_VISIBLE = dict.fromkeys((*range(32), 127), "�")


def harmless(cell: str) -> str:
    """The cell as a spreadsheet shows it without acting on it."""
    text = cell.translate(_VISIBLE)
    return f"'{text}" if cell.startswith(_FORMULA) else text


class VerdictFile:
    """Collects verdicts into `path`, replacing one of an earlier run; a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._file: TextIO | None = None

    def write(self, verdict: Refused) -> None:
        """Raises CliError if the file cannot be written."""
        try:
            if self._file is None:
                descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                self._file = os.fdopen(descriptor, "w", encoding="utf-8-sig", newline="")
                csv.writer(self._file).writerow(("line", "address", "reason"))
            row = (verdict.line, harmless(verdict.address), harmless(verdict.reason))
            csv.writer(self._file).writerow(row)
        except OSError as error:
            raise CliError(f"{self.path}: cannot be written: {error.strerror}") from error
        self.count += 1

    def __enter__(self) -> "VerdictFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
