"""What an operator means by a campaign, domain, workspace, site or source; and which envelopes that is.

Names are checked against what the engine knows, so that a slip of the pen stops nothing silently: what is
unknown is refused with the nearest names. A domain may be one that no mail has been for yet: then that is
said. An envelope is of a site or source when its destination is routed there at the moment: one whose
destination has no route now is of none. Decides nothing; reads what the actors share.
"""

from collections.abc import Callable, Iterable
from difflib import get_close_matches

import trio

from engine.actors.operating import TEXT_MAX, Refused
from engine.actors.parts import Parts
from engine.actors.path import NO_ROUTE
from engine.actors.routing import POOL, RELAY, domain_of
from engine.actors.stops import Aim, Scope
from engine.model.address import AddressError, normalise_domain
from engine.mta.spool.api import Listed

NEAREST = 3
QUEUES_PER_PASS = 1_000
CAMPAIGNS_PER_PASS = 20  # whose contents are read before others have a turn: some 10 ms

Match = Callable[[Listed], bool]


async def find_aim(parts: Parts, scope: str, said: str) -> Aim:
    """What is meant. Raises Refused with what would make sense."""
    try:
        kind = Scope(scope)
    except ValueError:
        raise Refused(
            f"mail is named by {', '.join(each.value for each in Scope)}, not by {scope!r}"
        ) from None
    match kind:
        case Scope.ALL:
            return Aim(kind)
        case Scope.CAMPAIGN:
            return Aim(kind, _campaign(parts, said))
        case Scope.DOMAIN:
            try:
                return Aim(kind, normalise_domain(said.removeprefix("@")))
            except AddressError as error:
                raise Refused(f"{said[:TEXT_MAX]!r}: {error}") from error
        case Scope.WORKSPACE:
            return Aim(kind, _named(said, await _workspaces(parts), "workspace"))
        case Scope.SOURCE:
            return Aim(kind, _named(said, [source.name for source in parts.sources], "source"))
        case Scope.SITE:
            return Aim(kind, _site(parts, said))


def doubts(parts: Parts, aim: Aim) -> list[str]:
    """What is odd about an aim that is taken all the same."""
    if aim.scope is not Scope.DOMAIN:
        return []
    known = {domain_of(name) for name in parts.routes} | set(parts.queues.domains())
    if aim.value in known:
        return []
    near = get_close_matches(aim.value, known, NEAREST, 0.8)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    return [f"no mail is on its way to {aim.value} at the moment{hint}"]


def matcher(parts: Parts, aim: Aim) -> Match:
    """Tells whether an envelope is aimed at. For one page of envelopes: routes move."""
    match aim.scope:
        case Scope.CAMPAIGN:
            campaign = aim.campaign
            return lambda item: item.campaign == campaign
        case Scope.DOMAIN:
            return lambda item: item.domain == aim.value
        case Scope.WORKSPACE:
            return lambda item: parts.standing(item.campaign).workspace == aim.value
        case Scope.ALL:
            return lambda item: True
        case Scope.SITE | Scope.SOURCE:
            known: dict[tuple[int, str], bool] = {}

            def routed_there(item: Listed) -> bool:
                key = item.campaign, item.domain
                found = known.get(key)
                if found is None:
                    source, site = place_of(parts, *key)
                    found = known[key] = aim.value == (site if aim.scope is Scope.SITE else source)
                return found

            return routed_there


def place_of(parts: Parts, campaign: int, domain: str) -> tuple[str, str]:
    """Source and site that a campaign's mail to a domain is routed over now, ("", "") = over none."""
    workspace, override = parts.standing(campaign).workspace, None
    if parts.stops:
        override = parts.stops.reroute(campaign, workspace, domain, parts.clock.now())
    way = parts.egress.way(campaign, workspace, domain, override)
    destination = domain
    if way.name:
        destination = f"{RELAY}{way.relay}" if way.relay else f"{domain}{POOL}{way.name}"
    key = parts.routes.get(destination, "")
    return key.partition(">")[0], site_of(key)


async def count_left(parts: Parts) -> int:
    """Envelopes that a drain waits for: queued and not stopped, on their way, or not settled yet."""
    left = parts.queues.waiting
    if parts.stops:
        wall = parts.clock.now()
        for number, queue in enumerate(parts.queues.all()):
            workspace = parts.standing(queue.campaign).workspace
            stop = parts.stops.holds_flow(queue.campaign, workspace, wall)
            if stop or parts.stops.holds_domain(queue.domain, wall):
                left -= len(queue)
            if not number % QUEUES_PER_PASS:
                await trio.lowlevel.checkpoint()
    left += sum(len(path.released) for path in parts.paths.values())
    return max(0, left) + parts.spool.open_leases() + len(parts.unsettled)


def site_of(key: str) -> str:
    """The site in the name of a path."""
    return key.partition(">")[2].partition("/")[0]


def _campaign(parts: Parts, said: str) -> str:
    known = [str(campaign) for campaign in parts.spool.campaigns()]
    if not said.isdecimal():
        raise Refused(f"{said[:TEXT_MAX]!r}: a campaign is named by its number; {_some(known, 'campaign')}")
    return _named(str(int(said)), known, "campaign")


async def _workspaces(parts: Parts) -> list[str]:
    """Those of all campaigns; their contents are read, which may take a moment."""
    found: dict[str, None] = {}
    for number, campaign in enumerate(parts.spool.campaigns()):
        found[parts.standing(campaign).workspace] = None
        if not number % CAMPAIGNS_PER_PASS:
            await trio.lowlevel.checkpoint()
    return list(found)


def _site(parts: Parts, said: str) -> str:
    """A site by its name, by a host of it, or by the domain that all its hosts are in."""
    keys = [key for key in (*parts.paths, *parts.memory) if not key.startswith(NO_ROUTE)]
    known = list(dict.fromkeys(site_of(key) for key in keys))
    if said in known:
        return said
    meant = [site for site in known if _is_meant(said, site.split("+"))]
    if len(meant) > 1:
        raise Refused(f"{said[:TEXT_MAX]!r} has {len(meant)} sites, name one: {', '.join(meant[:NEAREST])}")
    return meant[0] if meant else _named(said, known, "site")


def _is_meant(said: str, hosts: list[str]) -> bool:
    return said in hosts or all(host.endswith(f".{said}") for host in hosts)


def _named(said: str, known: Iterable[str], what: str) -> str:
    names = list(known)
    if said in names:
        return said
    near = get_close_matches(said, names, NEAREST, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else _some(names, what)
    raise Refused(f"no {what} is called {said[:TEXT_MAX]!r}; {hint}")


def _some(names: list[str], what: str) -> str:
    if not names:
        return f"no {what} is known yet"
    more = f" and {len(names) - NEAREST:,} more" if len(names) > NEAREST else ""
    return f"known are: {', '.join(names[:NEAREST])}{more}"
