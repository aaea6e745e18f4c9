"""`emass`: the command line. Finds the command, runs it, and turns every failure into one line.

Commands load late: each lives in its own file with a click command named `command`, listed below
with the line that `emass --help` shows, so that starting costs only what the one command needs.
Exit codes: 0 done, 1 failed, 2 wrong usage, input or configuration. A bug in ours is one line, too;
EMASS_DEBUG=1 in the environment shows where it happened.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import click

from control.cli.errors import FAILED, WRONG_USAGE, CliError
from control.cli.visible import visible

COMMANDS = {
    "init": "Write a commented emass.toml, data folders and fresh keys.",
    "config": "Check the configuration, or show what is in force.",
    "up": "Run this node's processes under supervision.",
    "status": "Show this node's processes and what waits.",
    "stop": "Stop this node's processes politely.",
    "node": "Let machines join a cluster; see, start and stop what runs on them.",
    "reload": "Have a running node read its configuration anew.",
    "send": "Send one campaign from a CSV file and a letter.",
    "demo": "Send a real signed campaign to a world of receivers on this machine.",
    "broadcaster": "Show who sends on a bus; drain one, or give up one that is gone.",
    "campaign": "Pause, resume or cancel a campaign on all broadcasters; see how it stands.",
    "keys": "Show which keys there are; seal and replace them while mail flows.",
    "queue": "Show what waits, why, and act on it.",
    "suppress": "Keep addresses from getting mail: add, remove, show, import, export.",
    "account": "Say who may hand in mail over SMTP, for which domains.",
    "tls": "Show how TLS to receivers went, and make the reports that they want.",
    "bounce": "Say what receivers' answers mean, and check the rules for it.",
}
DEBUG_VARIABLE = "EMASS_DEBUG"
LOOKING = frozenset({("queue", "show"), ("queue", "list"), ("queue", "inspect")})
NICENESS = 19  # of a command that reads a whole queue: an engine may be sending from it


class LateGroup(click.Group):
    """A group whose commands are imported when they are called; help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"control.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=LateGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="emass", prog_name="emass")
def emass() -> None:
    """e-MASS sends permission-based bulk mail from your own machines.

    \b
    Example: see it work, with nothing but this machine
      emass demo
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code. One that only looks lets everybody else go first."""
    words = sys.argv[1:] if arguments is None else arguments
    if tuple(words[:2]) in LOOKING:
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)  # now: half a second of loading is still to come
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Everything that goes wrong is said in one line."""
    try:
        result = emass.main(args=arguments, prog_name="emass", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.exceptions.NoArgsIsHelpError as error:  # `emass queue`: its message is the whole help
        click.echo(error.format_message(), err=True)
        return WRONG_USAGE
    except click.UsageError as error:
        say(error.format_message())
        if error.ctx is not None:
            click.echo(f"Try '{error.ctx.command_path} --help'.", err=True)
        return WRONG_USAGE
    except click.ClickException as error:
        say(error.format_message())
        return FAILED
    except CliError as error:
        say(str(error))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        return FAILED
    except BrokenPipeError:
        # The reader of our output went away (`emass queue show | head`); closing must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        return _explain(error)


def say(line: str) -> None:
    """One line for the user's eyes; control characters in it (from files, from peers) are escaped."""
    click.echo(f"emass: {visible(line)}", err=True)


def _explain(error: Exception) -> int:
    # Late, since most commands need neither and --help should not wait for them.
    from engine.config import ConfigError
    from engine.keyring import KeyringError

    if isinstance(error, ConfigError):
        say(str(error))
        return WRONG_USAGE
    if isinstance(error, KeyringError):
        say(str(error))
        return WRONG_USAGE
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        say(f"{place}{error.strerror}")
        return FAILED
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    say(f"this is a bug in e-MASS: {type(error).__name__}: {error} ({DEBUG_VARIABLE}=1 shows where)")
    return FAILED


if __name__ == "__main__":
    main()
