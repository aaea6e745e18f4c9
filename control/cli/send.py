"""`emass send`: one campaign from a CSV file and a letter, straight through the engine.

Everything is checked before anything is sent: files, addresses, key, templates, placeholders. Then a
data folder is made that holds all a second `emass send --data DIR --resume` needs, and
`control.cli.run.run_job` does the sending. `--dry-run` stops before that folder: it counts, writes
the refused lines and shows one message. Mail that can leave this machine's network needs one-click
unsubscribe, unless it is transactional.
"""

import ipaddress
import os
import time
from pathlib import Path
from typing import Any

import click
import trio
from msgspec.structs import replace

from control.cli.cluster_bus import BusPlace, bus_of_config, bus_options, parse_bus
from control.cli.csv_source import CsvSource, inspect_csv
from control.cli.dry_run import dry_run
from control.cli.errors import InputError
from control.cli.job import Job, SendOptions, create_job, load_job, reopen_source, start_job
from control.cli.letter import (
    Sender,
    check_content,
    default_list_id,
    parse_sender,
    read_letter,
    slug,
)
from control.cli.people import People, Refused
from control.cli.seal import key_name
from control.cli.shares import parse_shares
from control.cli.until import Until, parse_until
from control.config import find_config
from engine.config import BusKind, Config, DkimKeyFile, HostPort, SourceRule, UnitError, load_config
from engine.keyring import create_master_key, load_dkim_key, load_master_key
from engine.model.address import AddressError, normalise_domain
from engine.model.content import Content, DkimIdentity, MessageClass

DNS_PORT = 53


@click.command()
@click.option(
    "--csv", "csv_path", metavar="FILE", help="The recipients: one line each, names of columns first."
)
@click.option(
    "--address-column", metavar="NAME", help="The column of addresses, if it is not found by itself."
)
@click.option("--from", "from_text", metavar="SENDER", help='An address, or "Name <address>".')
@click.option("--reply-to", metavar="ADDRESS", default="", help="Where answers go, if not to the sender.")
@click.option("--subject", metavar="TEXT", help="May hold placeholders: 'Hello {{ first_name }}'.")
@click.option("--html", "html_path", metavar="FILE", help="The letter, a template in HTML.")
@click.option("--text", "text_path", metavar="FILE", help="Its plain text; made from the HTML if absent.")
@click.option("--dkim-key", metavar="FILE", help="Private key (PEM) to sign with.")
@click.option("--dkim-selector", metavar="NAME", help="Selector of the key's DNS record.")
@click.option("--dkim-domain", metavar="DOMAIN", help="Domain of that record. Default: the sender's.")
@click.option(
    "--unsubscribe-host", metavar="HOST", default="", help="Web host of the one-click unsubscribe link."
)
@click.option("--transactional", is_flag=True, help="No marketing: no unsubscribe link is needed.")
@click.option("--return-path-domain", metavar="DOMAIN", help="Where bounces go. Default: the sender's.")
@click.option("--list-id", metavar="ID", help="RFC 2919 list id. Default: from CSV name and sender's domain.")
@click.option("--list-name", metavar="TEXT", default="", help="The list's name for people.")
@click.option(
    "--list-help", metavar="URL", help="Page or mailto: that explains the list. Default: the sender."
)
@click.option("--source", "source_ip", metavar="IP", default="", help="Local address to send from.")
@click.option("--ehlo-name", metavar="HOST", default="", help="Name said in EHLO. Default: this host's.")
@click.option("--route", metavar="HOST:PORT", default="", help="Send everything to this server.")
@click.option("--resolver", metavar="HOST:PORT", default="", help="DNS server to ask.")
@click.option("--config", "named_config", metavar="FILE", help="Default: $EMASS_CONFIG, then ./emass.toml.")
@click.option("--data", metavar="DIR", help="Folder for this job. Default: a new one here.")
@click.option("--resume", is_flag=True, help="Go on with what the --data folder holds.")
@click.option(
    "--until", "until_text", metavar="WHEN", help="first-pass, finished or a duration. Default: 30 min."
)
@bus_options
@click.option(
    "--broadcasters",
    metavar="A=2,B=1",
    default="",
    help="Who on the bus sends it, by weight. Default: every one that is there.",
)
@click.option(
    "--addresses", metavar="FILE", default="", help="With a bus: every address and its state (CSV)."
)
@click.option("--dry-run", is_flag=True, help="Check everything, show one message, send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the final report as one JSON object.")
def command(**given: Any) -> int:
    """Send one campaign from a CSV file and a letter.

    \b
    Example:
      emass send --csv people.csv --from "Ann <ann@example.org>" \\
        --subject "Hello {{ first_name }}" --html letter.html \\
        --dkim-key keys/default.pem --dkim-selector emass \\
        --unsubscribe-host news.example.org
    Then, if it was interrupted:
      emass send --data emass-people-20260102-030405 --resume
    With --bus, --broadcasters or a configuration whose [bus] is "nats", the broadcasters of that bus send it.
    """
    if given["resume"]:
        return _resume(given)
    return _start(given)


def _start(given: dict[str, Any]) -> int:
    until = parse_until(given["until_text"])
    for key, option in (("csv_path", "--csv"), ("from_text", "--from"), ("subject", "--subject")):
        if not given[key]:
            raise click.UsageError(f"Missing option '{option}'.", click.get_current_context())
    if not given["html_path"] and not given["text_path"]:
        raise click.UsageError("Missing option '--html' (or '--text').", click.get_current_context())
    sender = parse_sender(given["from_text"])
    source = inspect_csv(Path(given["csv_path"]).absolute(), address_column=given["address_column"])
    options = _check_options(given)
    config = _load(options)
    options = _settle_bus(options, config)
    if options.config and not options.many:  # without a file the job gets a key of its own
        load_master_key(Path(config.keys.folder) / config.keys.master)
    content = _build_content(given, sender, source, options)
    retry = config.engine.retry
    expire_after = retry.expire_after_transactional if given["transactional"] else retry.expire_after
    now = time.time()
    job = create_job(options, source, now=now, expire_after=expire_after)
    files = {part: Path(given[f"{part}_path"]) for part in ("html", "text") if given[f"{part}_path"]}
    content = check_content(replace(content, campaign=job.campaign), source, files)
    if given["dry_run"]:
        return dry_run(
            source,
            content,
            config=configure(config, options, replace(content, dkim=()), Path()),
            relay=bool(options.route),
            now=now,
            data=given["data"],
            as_json=given["as_json"],
        )
    _check_list(source, content.fields)
    folder = _choose_folder(given["data"], source.path, now)
    if not options.many:
        _check_route(configure(config, options, content, folder), options)
    _note_missing_signature(content, options)

    start_job(folder, job, content)
    return _run(folder, until, given["as_json"], given["addresses"])


def _resume(given: dict[str, Any]) -> int:
    fresh = ("csv_path", "from_text", "subject", "html_path", "text_path", "dkim_key", "dry_run")
    if not given["data"]:
        raise click.UsageError("'--resume' needs '--data DIR'.", click.get_current_context())
    if any(given[key] for key in fresh):
        raise click.UsageError(
            "'--resume' takes letter and list from the data folder: leave their options away.",
            click.get_current_context(),
        )
    return _run(Path(given["data"]), parse_until(given["until_text"]), given["as_json"], given["addresses"])


def _run(folder: Path, until: Until, as_json: bool, addresses: str) -> int:
    """A new job and a resumed one go the same way, so that the second is exercised by every run."""
    job, content = load_job(folder)
    people = People(reopen_source(job), content.fields)
    if job.options.many:
        return _run_many(folder, job, content, people, until, as_json=as_json, addresses=addresses)
    if addresses:
        raise InputError("--addresses belongs to a job that broadcasters on a bus send (--bus)")
    config = configure(_load(job.options), job.options, content, folder.absolute())
    if content.dkim:
        load_dkim_key(Path(job.options.dkim_key))
    master = Path(config.keys.folder) / config.keys.master
    if not master.exists() and not job.options.config:
        master.parent.mkdir(mode=0o700, exist_ok=True)
        create_master_key(master)

    from control.cli.run import run_job

    code: int = run_job(
        folder=folder, job=job, content=content, people=people, config=config, until=until, as_json=as_json
    )
    return code


def _run_many(
    folder: Path,
    job: Job,
    content: Content,
    people: People,
    until: Until,
    *,
    as_json: bool,
    addresses: str,
) -> int:
    from control.cli.run_many import run_many

    if content.dkim:
        load_dkim_key(Path(job.options.dkim_key))
    return run_many(
        folder=folder,
        job=job,
        content=content,
        people=people,
        place=_bus_of(job.options),
        shares=parse_shares(job.options.broadcasters),
        until=until,
        as_json=as_json,
        addresses=addresses,
    )


# --- options ---------------------------------------------------------------------------------------------


def _check_list(source: CsvSource, fields: tuple[str, ...]) -> None:
    """One address at least can be used; reads no further than that. Raises InputError with the first flaw."""
    first: Refused | None = None
    try:
        for item in People(source, fields):
            if not isinstance(item, Refused):
                return
            first = first or item
    except InputError as error:
        if first is None:
            raise
        raise InputError(f"{error}; line {first.line}: {first.reason}") from None


def _check_route(config: Config, options: SendOptions) -> None:
    if options.route:
        from control.cli.route import find_route

        trio.run(find_route, options.route, config)


def _check_options(given: dict[str, Any]) -> SendOptions:
    route, resolver = (
        _host_port("--route", given["route"], 25),
        _host_port("--resolver", given["resolver"], DNS_PORT),
    )
    if given["source_ip"]:
        try:
            ipaddress.ip_address(given["source_ip"])
        except ValueError:
            raise InputError(f"--source {given['source_ip']}: is no IP address") from None
    if bool(given["dkim_key"]) != bool(given["dkim_selector"]):
        raise InputError("--dkim-key and --dkim-selector belong together: give both or none")
    private_only = False
    if not given["unsubscribe_host"] and not given["transactional"]:
        private_only = _leads_to_private(route, resolver)
        if not private_only:
            raise InputError(
                "--unsubscribe-host is missing: marketing mail needs one-click unsubscribe"
                " (or --transactional, or a --route to a private address)"
            )
    config = find_config(given["named_config"], os.environ, Path.cwd())
    return SendOptions(
        csv=str(Path(given["csv_path"]).absolute()),
        address_column=given["address_column"],
        dkim_key=str(Path(given["dkim_key"]).absolute()) if given["dkim_key"] else "",
        source=given["source_ip"],
        ehlo_name=_domain("--ehlo-name", given["ehlo_name"]),
        route="" if route is None else str(route),
        resolver="" if resolver is None else str(resolver),
        config=str(config.absolute()) if config else "",
        private_only=private_only,
        bus=given["bus_text"],
        bus_seed=given["bus_seed"],
        bus_ca=given["bus_ca"],
        broadcasters=given["broadcasters"],
    )


def _settle_bus(options: SendOptions, config: Config) -> SendOptions:
    """Whether broadcasters on a bus send it, and whether what was given fits that. Raises InputError."""
    many = bool(options.bus or options.broadcasters) or config.bus.kind is BusKind.NATS
    if not many:
        return options
    for option in ("route", "resolver", "source", "ehlo_name"):
        if getattr(options, option):
            name = option.replace("_", "-")
            raise InputError(f"--{name} belongs into the emass.toml of each broadcaster when a bus is used")
    parse_shares(options.broadcasters)
    options = replace(options, many=True)
    if options.bus:
        place = parse_bus(options.bus, options.bus_seed, options.bus_ca)
        text = str(place) if place.folder else ",".join(place.servers)
        options = replace(options, bus=text, bus_seed=place.seed_file, bus_ca=place.ca_file)
    return options


def _bus_of(options: SendOptions) -> BusPlace:
    if options.bus:
        return parse_bus(options.bus, options.bus_seed, options.bus_ca)
    return bus_of_config(_load(options))


def _leads_to_private(route: HostPort | None, resolver: HostPort | None) -> bool:
    """Whether mail can only get to private addresses.

    A private resolver counts when it is not on the DNS port: on 53 it is most likely this machine's
    own, which knows the whole world. The engine holds such a job to private addresses all the same.
    """
    if route is not None:
        return route.private
    return resolver is not None and resolver.private and resolver.port != DNS_PORT


def configure(config: Config, options: SendOptions, content: Content, folder: Path) -> Config:
    """The node's configuration as this job's options change it."""
    config = replace(config, node=replace(config.node, data=str(folder)))
    if options.resolver:
        server = HostPort.parse(options.resolver)
        private = config.resolver.allow_private or (server.private and server.port != DNS_PORT)
        config = replace(config, resolver=replace(config.resolver, servers=(server,), allow_private=private))
    if options.source or options.ehlo_name:
        rule = SourceRule(name="send", address=options.source, ehlo_name=options.ehlo_name)
        relayed = tuple(route for route in config.engine.route if route.relay)
        config = replace(config, engine=replace(config.engine, source=(rule,), pools={}, route=relayed))
    keys = config.keys
    if not options.config:
        keys = replace(keys, folder=str(folder / "keys"))
    if content.dkim:
        used = content.dkim[0]
        key = DkimKeyFile(name=used.key, file=options.dkim_key, algorithm=used.algorithm)
        keys = replace(keys, dkim=(*(other for other in keys.dkim if other.name != used.key), key))
    return replace(config, keys=keys)


def _build_content(given: dict[str, Any], sender: Sender, source: CsvSource, options: SendOptions) -> Content:
    domain = sender.address.domain
    dkim: tuple[DkimIdentity, ...] = ()
    if options.dkim_key:
        algorithm = load_dkim_key(Path(options.dkim_key)).algorithm
        signer = _domain("--dkim-domain", given["dkim_domain"] or domain)
        name = key_name(given["dkim_selector"], signer) if options.many else options.dkim_key
        dkim = (DkimIdentity(signer, given["dkim_selector"], name, algorithm),)
    bulk = not given["transactional"]
    return Content(
        campaign=1,  # create_job chooses the real one
        name=source.path.stem,
        message_class=MessageClass.BULK if bulk else MessageClass.TRANSACTIONAL,
        from_address=str(sender.address),
        from_name=sender.name,
        reply_to=str(parse_sender(given["reply_to"], "--reply-to").address) if given["reply_to"] else "",
        subject=given["subject"],
        html=read_letter(Path(given["html_path"])) if given["html_path"] else None,
        text=read_letter(Path(given["text_path"])) if given["text_path"] else None,
        return_path_domain=_domain("--return-path-domain", given["return_path_domain"] or domain),
        sending_domain=domain,
        list_id=(given["list_id"] or default_list_id(source.path, domain)) if bulk else "",
        list_name=given["list_name"] if bulk else "",
        list_help=(given["list_help"] or f"mailto:{sender.address}?subject=help") if bulk else "",
        unsubscribe_host=_domain("--unsubscribe-host", given["unsubscribe_host"]) if bulk else "",
        dkim=dkim,
    )


def _host_port(option: str, text: str, port: int) -> HostPort | None:
    try:
        return HostPort.parse(text, port) if text else None
    except UnitError as error:
        raise InputError(f"{option} {text}: {error}") from None


def _domain(option: str, text: str) -> str:
    try:
        return normalise_domain(text) if text else ""
    except AddressError as error:
        raise InputError(f"{option} {text}: {error}") from None


def _load(options: SendOptions) -> Config:
    return load_config(Path(options.config) if options.config else None, os.environ)


def _choose_folder(named: str | None, csv_path: Path, now: float) -> Path:
    if named:
        return Path(named)
    return Path(f"emass-{slug(csv_path.stem)}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}")


def _note_missing_signature(content: Content, options: SendOptions) -> None:
    if not content.dkim and not options.private_only:
        click.echo(
            "emass: note: without --dkim-key this mail is unsigned; large providers refuse it", err=True
        )
