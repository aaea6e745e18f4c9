"""What a command tells its user when it cannot go on: one line, an exit code, no stack trace.

0 done, 1 failed, 2 wrong usage, input or configuration (then nothing was done).
"""

FAILED = 1
WRONG_USAGE = 2


class CliError(Exception):
    """The command failed; the text is the one line that the user sees."""

    exit_code = FAILED


class InputError(CliError):
    """What the user gave cannot be used; the text names the file and the place. Nothing was done."""

    exit_code = WRONG_USAGE
