"""`emass config check` and `emass config show`: is the file right, and what is in force?

`check` loads the file as every command does and says so, or names the first mistake; it also looks
at what loading alone does not: that named key and password files exist and are private, the table of
submission and its certificate, that the rules for receivers make sense together, and, when asked to, what
DNS says of our own names. `show` prints
TOML that can be pasted back, each value with its origin behind it.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from control.cli.errors import InputError
from control.cli.visible import short
from control.config import find_config

if TYPE_CHECKING:
    from engine.config import Config

config_option = click.option(
    "--config", "named", metavar="FILE", help="The configuration. Default: $EMASS_CONFIG, then ./emass.toml."
)


@click.group()
def command() -> None:
    """Check the configuration, or show what is in force.

    \b
    Example:
      emass config check
    """


@command.command()
@config_option
@click.option(
    "--dns", "with_dns", is_flag=True, help="Ask DNS whether addresses and EHLO names fit together."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(named: str | None, with_dns: bool, as_json: bool) -> None:
    """Say whether the configuration can be used; the first mistake is named with file, table and key.

    Rules for receivers are looked at together, too: errors are rules that cannot do what they say;
    warnings and notes are worth a look. With --dns the PTR record of each source's address and its EHLO
    name are looked up; what is odd there is a warning, since mail can leave anyway.

    \b
    Example:
      emass config check --config /srv/emass/emass.toml
      emass config check --dns
    """
    import msgspec

    from engine.config import ConfigError, load_config
    from engine.config.load import load_table
    from engine.config.replies import load_reply_rules
    from engine.config.tables import Runs
    from engine.keyring import KeyringError, read_secret
    from engine.mta.net.egress import EgressError, egress_sources, read_relays, unlocked
    from engine.mta.policy.shaping_lint import Finding, Level, lint_shaping
    from services.submission.config import SubmissionTable, load_submission

    path = find_config(named, os.environ, Path.cwd())
    mistake: ConfigError | None = None
    findings: list[Finding] = []
    try:
        config = load_config(path, os.environ)
        folder = Path(config.keys.folder)
        for index, key in enumerate(config.keys.dkim):
            try:
                read_secret(folder / key.file)
            except KeyringError as error:
                raise ConfigError(str(path), f"keys.dkim[{index}]", "file", str(error)) from error
        try:
            unlocked(config, egress_sources(config))
            read_relays(config)
        except EgressError as error:
            raise ConfigError(str(path), "", "", str(error)) from error
        if config.engine.replies:
            load_reply_rules(Path(config.engine.replies))
        if Runs.SUBMISSION in config.node.runs:
            load_submission(path, os.environ)
        else:  # its files need not be there yet
            load_table(path, os.environ, "submission", SubmissionTable)
        findings = lint_shaping(config)
    except ConfigError as error:
        if not as_json:
            raise
        mistake = error
    names = _look_at_names(config) if with_dns and mistake is None else {}
    errors = sum(finding.level is Level.ERROR for finding in findings)
    if as_json:
        facts: dict[str, object] = {
            "ok": mistake is None and not errors,
            "file": None if path is None else str(path),
            "shaping": [msgspec.to_builtins(finding) for finding in findings],
        }
        if with_dns:
            facts["names"] = names
        if mistake is not None:
            facts |= {name: getattr(mistake, name) for name in ("table", "key", "problem", "hint")}
        click.echo(json.dumps(facts))
        click.get_current_context().exit(0 if facts["ok"] else InputError.exit_code)
    for finding in findings:
        click.echo(str(finding))
    for source, told in names.items():
        for one in told or ("its address and EHLO name prove each other in DNS",):
            click.echo(f"{'warning' if told else 'note'}: source {source}: {short(one, 300)}")
    if with_dns and not names:
        click.echo("note: no source has a public address: there is nothing to ask DNS about")
    if errors:
        raise InputError(f"{path or 'the defaults'}: {errors} of the rules for receivers cannot work")
    click.echo(f"{path}: correct" if path else "no emass.toml: the defaults hold, and they are correct")


def _look_at_names(config: "Config") -> dict[str, tuple[str, ...]]:
    """What DNS says of the names of sources with public addresses."""
    import trio

    from engine.app import resolver_config
    from engine.mta.net.egress import egress_sources
    from engine.mta.net.fcrdns import check_names
    from engine.mta.net.resolver import Resolver
    from engine.runtime.clock import SystemClock

    sources = egress_sources(config)
    resolver = Resolver(resolver_config(config, sources), SystemClock().monotonic)
    return trio.run(check_names, resolver, sources)


@command.command()
@config_option
@click.option("--resolved", is_flag=True, help="Every value in force, defaults included.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of TOML.")
def show(named: str | None, resolved: bool, as_json: bool) -> None:
    """Print the settings that file and environment made, or all that are in force.

    \b
    Example:
      emass config show --resolved
    """
    import tomllib

    from engine.config import find_origins, load_config, render_toml

    path = find_config(named, os.environ, Path.cwd())
    config = load_config(path, os.environ)
    text = render_toml(config, find_origins(path, os.environ), resolved=resolved)
    if as_json:
        click.echo(json.dumps(tomllib.loads(text)))
    elif text:
        click.echo(text, nl=False)
    else:
        click.echo("# nothing is set: the defaults hold (emass config show --resolved prints them)")
