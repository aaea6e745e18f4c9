"""`emass tls show` and `emass tls report`: how TLS to receivers went, and the reports that they want of it.

Reads the rows of the bus table `tls_results` in a data folder, after asking the engine that may run there
to write what it has. Reports go into files (RFC 8460), ready to be sent; nothing is sent from here. With
--dns or --mail the domains are asked where they want their reports, through the resolver of the
configuration. Touches: the folder's bus, DNS, the files it writes.
"""

import datetime
import json
import os
import time
from pathlib import Path
from typing import Any

import click
import msgspec
import trio
from dns.rdatatype import RdataType
from rich.console import Console
from rich.text import Text

from control.cli.ask import ask, check_folder, config_of, config_option, data_option, json_option
from control.cli.errors import CliError, InputError
from control.cli.table import plain_table
from control.cli.visible import short
from engine.app import resolver_config
from engine.bus.local import LocalBus
from engine.config import Config
from engine.model.tls_result import TLS_RESULTS_TABLE, DomainResults, PolicyResults
from engine.mta.net.dns_message import AnswerKind
from engine.mta.net.egress import egress_sources
from engine.mta.net.resolver import Resolver
from engine.mta.policy.tls_report import (
    Reporter,
    compressed,
    day_start,
    file_name,
    mail_addresses,
    merge_results,
    report_addresses,
    report_json,
    report_mail,
)
from engine.runtime.clock import SystemClock

DOMAINS_SHOWN_MAX = 50
LOOKUPS_MAX = 50  # at a time

day_option = click.option("--day", metavar="YYYY-MM-DD", help="A UTC day. Default: yesterday (show: today).")
domain_option = click.option("--domain", metavar="D", help="Of one recipient domain.")


@click.group(name="tls")
def command() -> None:
    """How TLS to receivers went under their policies (MTA-STS, DANE), and reports of it.

    \b
    Example:
      emass tls show
      emass tls report --out reports
    """


@command.command()
@day_option
@domain_option
@data_option
@json_option
def show(day: str | None, domain: str | None, data: str, as_json: bool) -> int:
    """List recipient domains with a policy: sessions that met it, sessions that failed, and why.

    \b
    Example:
      emass tls show --domain example.org
    """
    folder = check_folder(data)
    found = _results(folder, day or utc_day(time.time()), domain)
    if as_json:
        click.echo(json.dumps({"domains": msgspec.to_builtins(found)}))
        return 0
    console = Console()
    if not found:
        console.print("No TLS session under a policy of its receiver was counted.")
        return 0
    table = plain_table("", "domain", "policy", "met", "failed", "most frequent failure")
    lines = [(each.domain, policy) for each in found for policy in each.policies]
    lines.sort(key=lambda line: -line[1].failed)
    for name, policy in lines[:DOMAINS_SHOWN_MAX]:
        table.add_row(
            Text(short(name, 60)),
            policy.kind.value,
            f"{policy.successful:,}",
            f"{policy.failed:,}",
            Text(short(_worst(policy), 60)),
        )
    console.print(table)
    if len(lines) > DOMAINS_SHOWN_MAX:
        console.print(f"and {len(lines) - DOMAINS_SHOWN_MAX:,} more: --json has them all", style="dim")
    return 0


@command.command()
@day_option
@domain_option
@click.option("--out", metavar="DIR", help="Write each report as a gzip file there (RFC 8460 5.1).")
@click.option("--mail", is_flag=True, help="Also write each as a whole message (.eml) to those who want it.")
@click.option("--dns", is_flag=True, help="Ask each domain where it wants its reports.")
@data_option
@config_option
def report(
    day: str | None,
    domain: str | None,
    out: str | None,
    mail: bool,
    dns: bool,
    data: str,
    named_config: str | None,
) -> int:
    """Make the reports of one day that receivers ask for (TLS-RPT, RFC 8460), one for each domain.

    Without --out they are printed, one JSON object in a line. [tls] organization and contact in emass.toml
    say who reports. Sending the reports is not part of e-MASS: with --mail there is a message in a file
    for each, to be signed with DKIM and sent by another program.

    \b
    Example:
      emass tls report --out reports --mail
    """
    if mail and out is None:
        raise click.UsageError(
            "'--mail' writes files: say where with '--out DIR'", click.get_current_context()
        )
    folder = check_folder(data)
    config, _ = config_of(folder, named_config)
    reporter = _reporter(config)
    found = _results(folder, day or utc_day(time.time() - 86_400), domain)
    wanted = trio.run(_ask_where, config, [each.domain for each in found]) if mail or dns else {}
    if out is None:
        for each in found:
            click.echo(report_json(each, reporter).decode())
        for name, addresses in wanted.items():
            click.echo(f"{name}: {short(_where(addresses))}", err=True)
        return 0
    place = Path(out)
    place.mkdir(parents=True, exist_ok=True)
    mails = 0
    for each in found:
        name = file_name(each, reporter, compressed=True)
        (place / name).write_bytes(compressed(report_json(each, reporter)))
        to = mail_addresses(wanted.get(each.domain) or ())
        if mail and to:
            octets = report_mail(each, reporter, to, time.time())
            (place / f"{name.removesuffix('.json.gz')}.eml").write_bytes(octets)
            mails += 1
        told = f": {_where(wanted[each.domain])}" if each.domain in wanted else ""
        click.echo(short(name + told, 300))
    click.echo(f"{len(found)} reports in {place}" + (f", {mails} of them as messages" if mail else ""))
    return 0


def utc_day(wall: float) -> str:
    return datetime.datetime.fromtimestamp(wall, datetime.UTC).date().isoformat()


def _reporter(config: Config) -> Reporter:
    if not config.tls.contact:
        raise InputError('[tls] contact: a report needs an address; write contact = "you@example.org"')
    return Reporter(config.tls.organization or config.node.name, config.tls.contact)


def _results(folder: Path, day: str, domain: str | None) -> list[DomainResults]:
    """What was counted on a day, all nodes together."""
    try:
        day_start(day)
    except ValueError:
        raise InputError(f"--day {day}: write YYYY-MM-DD") from None
    ask(folder, command="tls")  # a running engine writes what it has
    rows: list[DomainResults] = []
    for key, value in trio.run(_read_table, folder).items():
        if not key.startswith(day):
            continue
        try:
            row = msgspec.json.decode(value, type=DomainResults)
        except msgspec.MsgspecError as error:
            raise CliError(f"{key}: does not decode: {error}") from None
        if domain is None or row.domain == domain.lower():
            rows.append(row)
    return merge_results(rows)


async def _read_table(folder: Path) -> dict[str, bytes]:
    bus_folder = folder / "bus"
    if not bus_folder.is_dir():
        return {}
    member = f"cli-{os.getpid()}"
    bus = LocalBus(bus_folder, member)
    try:
        return bus.items(TLS_RESULTS_TABLE)
    finally:
        bus.close_files()
        LocalBus.remove_member(bus_folder, member)


async def _ask_where(config: Config, domains: list[str]) -> dict[str, tuple[str, ...] | None]:
    """Where each wants its reports; None = DNS did not tell."""
    resolver = Resolver(resolver_config(config, egress_sources(config)), SystemClock().monotonic)
    found: dict[str, tuple[str, ...] | None] = dict.fromkeys(domains)
    room = trio.Semaphore(LOOKUPS_MAX)

    async def look_up(domain: str) -> None:
        async with room:
            answer, _ = await resolver.ask(f"_smtp._tls.{domain}", RdataType.TXT)
            if answer.kind is not AnswerKind.FAILED:
                found[domain] = report_addresses(answer.texts)

    async with trio.open_nursery() as nursery:
        for domain in domains:
            nursery.start_soon(look_up, domain)
    return found


def _where(addresses: tuple[str, ...] | None) -> str:
    if addresses is None:
        return "DNS did not tell whether it wants reports"
    return ", ".join(addresses) or "wants no reports"


def _worst(policy: PolicyResults) -> str:
    if not policy.failures:
        return ""
    worst: Any = max(policy.failures, key=lambda failure: failure.count)
    return " ".join(filter(None, (worst.result.value, worst.mx_host, worst.reason)))
