"""`emass queue explain`: for any address, which values hold, which layer said so, and why mail waits now.

A running engine is asked: it knows what it has learnt. Without one the configuration is read and the MX
looked up with its resolver, and it is said that no engine runs. Replies of strangers and names from DNS
are escaped before they are printed.
"""

import json
from pathlib import Path
from typing import Any

import click
import trio
from msgspec.structs import asdict
from rich.console import Console
from rich.text import Text

from control.cli.ask import ACT_SECONDS, ask, check_folder, config_of, config_option, data_option, json_option
from control.cli.errors import InputError
from control.cli.route import find_route
from control.cli.table import plain_table
from control.cli.visible import short
from control.cli.words import rate_words, seconds_words, site_words
from engine.app import resolver_config
from engine.config import Config
from engine.model.address import AddressError, normalise_domain
from engine.model.reply import TransportFailure
from engine.mta.net.egress import egress_sources
from engine.mta.net.mx import Route
from engine.mta.net.resolver import Resolver
from engine.mta.policy.egress import DEFAULT_WAY, Egress
from engine.mta.policy.shaping import DEFAULTS_LAYER, shaping_rules
from engine.runtime.clock import SystemClock

HOSTS_SHOWN = 3
ALWAYS = frozenset({"connections", "rate", "messages_per_connection", "tls"})  # also where nobody said them


@click.command()
@click.argument("address")
@click.option("--campaign", metavar="N", type=click.IntRange(0), default=0, help="As mail of this campaign.")
@click.option("--all", "everything", is_flag=True, help="Every value, also those at their defaults.")
@data_option
@config_option
@json_option
def explain(
    address: str, campaign: int, everything: bool, data: str, named_config: str | None, as_json: bool
) -> int:
    """Say how mail to ADDRESS goes: route, provider, values with their origin, and why it waits.

    ADDRESS may be a domain alone. With a running engine it tells what has been learnt, too.

    \b
    Example:
      emass queue explain ann@example.net --data emass-people-20260102-030405
    """
    facts = _from_engine(address, campaign, data)
    if facts is None:
        facts = _from_configuration(address, campaign, Path(data), named_config)
    if as_json:
        click.echo(json.dumps(facts))
    else:
        show(facts, address, Console(), everything=everything)
    return 0


def _from_engine(address: str, campaign: int, data: str) -> dict[str, Any] | None:
    if not (Path(data) / "spool" / "data.mdb").exists():
        return None
    answer = ask(check_folder(data), ACT_SECONDS, command="explain", address=address, campaign=campaign)
    return None if answer is None else {"engine": True} | answer


def _from_configuration(address: str, campaign: int, folder: Path, named: str | None) -> dict[str, Any]:
    try:
        domain = normalise_domain(address.rpartition("@")[2])
    except AddressError as error:
        raise InputError(f"{address}: {error}") from None
    config, static = config_of(folder, named)
    route = trio.run(_look_up, domain, config, static)
    if isinstance(route, TransportFailure):
        trouble = route.detail or route.kind.value
        return {
            "engine": False,
            "domain": domain,
            "trouble": trouble,
            "why": [f"there is no route: {trouble}"],
        }
    hosts = [host.name for host in route.hosts]
    egress = Egress(egress_sources(config))
    source = egress.source_for(DEFAULT_WAY, domain, lambda each: True)  # warm-up and routes left aside
    rules = shaping_rules(config)
    rows = rules.explain(source.name, route.site, hosts, domain, "", campaign)
    return {
        "engine": False,
        "domain": domain,
        "site": route.site,
        "hosts": hosts,
        "provider": rules.provider_of(hosts, domain) or route.site,
        "source": source.name,
        "path": f"{source.name}>{route.site}",
        "values": [asdict(row) for row in rows],
        "why": [],
    }


async def _look_up(domain: str, config: Config, static: str) -> Route | TransportFailure:
    if static:
        route = await find_route(static, config)
        assert route is not None
        return route
    return await Resolver(
        resolver_config(config, egress_sources(config)), SystemClock().monotonic
    ).mail_hosts(domain)


def show(facts: dict[str, Any], address: str, console: Console, *, everything: bool = False) -> None:
    """For people: route, values, what holds now, why it waits."""

    def say(line: str, style: str = "") -> None:
        console.print(Text(line, style=style), soft_wrap=True)

    if "trouble" in facts:
        say(f"{short(address)}: {short(facts['why'][0])}")
        return
    provider = short(site_words(facts["provider"]))
    hosts = [short(host, 60) for host in facts["hosts"]]
    more = f" and {len(hosts) - HOSTS_SHOWN} more" if len(hosts) > HOSTS_SHOWN else ""
    say(f"{short(address)} -> {', '.join(hosts[:HOSTS_SHOWN])}{more} -> {provider}", "bold")
    say(f"path {short(facts['path'], 300)}")
    values = [row for row in facts["values"] if everything or _worth_showing(row)]
    table = plain_table("", "value", "in force", "said by")
    table.columns[2].justify = "left"
    for row in values:
        origin = f"{row['layer']}, {row['rule']}" if row["rule"] else row["layer"]
        table.add_row(Text(row["key"]), Text(short(row["value"], 40)), Text(short(origin, 80)))
    console.print(table)
    hidden = len(facts["values"]) - len(values)
    if hidden:
        say(f"... and {hidden} more at their defaults (--all)")
    say("")
    if not facts["engine"]:
        say("No engine is running here: this is what the configuration says.")
        return
    _show_now(facts, say)


def _worth_showing(row: dict[str, Any]) -> bool:
    return row["key"] in ALWAYS or row["layer"] not in (DEFAULTS_LAYER, "[engine.retry]")


def _show_now(facts: dict[str, Any], say: Any) -> None:
    say("What holds now", "bold")
    state, door = facts["state"], facts["provider_state"]
    if state is not None:
        allowed, ceiling = state["connections"], state["connections_ceiling"]
        say(f"  connections: {facts['connections']} open, {allowed} allowed now, {ceiling} at most")
        most = state["rate_ceiling"]
        bound = "" if most is None else f", {rate_words(most)} at most"
        phase = "" if state["rate_per_second"] is None else f" ({state['rate_phase']})"
        say(f"  rate: {rate_words(state['rate_per_second'])}{bound}{phase}")
    if door is not None:
        if door["connections_limit"] is not None:
            taken = f"{door['connections_taken']} of {door['connections_limit']} connections"
            say(f"  {short(site_words(facts['provider']))} in all: {taken}")
        if door["warm_up"]:
            say(f"  warm-up: {door['warm_up']}")
        if door["breaker"] != "closed":
            say(f"  circuit breaker: {short(door['breaker_why'] or door['breaker'], 300)}")
    for pin in facts["pins"]:
        value = rate_words(pin["value"]) if pin["knob"] == "rate" else f"{pin['value']:g}"
        say(f"  pinned: {pin['knob']} at {value} by {short(pin['author'])}: {short(pin['reason'])}")
    for hold in facts["holds"]:
        what = f"{hold['subject']} {short(hold['value'])}"
        say(f"  held: {what}, {seconds_words(hold['seconds'])} more: {short(hold['reason'])}")
    waiting = [f"{count:,} {name}" for name, count in facts["waiting"].items() if count]
    say(f"  waiting on this path: {', '.join(waiting) or 'nothing'}")
    say("Why it waits", "bold")
    for line in facts["why"]:
        say(f"  {short(line, 300)}")
    if facts["forecast"] is not None:
        say(f"Forecast: {short(site_words(facts['forecast']['sentence']), 300)}")
