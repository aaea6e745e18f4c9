"""The DNS of a simulated world: routes as `net.mx` makes them, after a while, with trouble by share.

Stands where `engine.mta.net.resolver.Resolver` does. Trouble is always temporary, except for domains
that the world says are broken, missing or take no mail.
"""

import random

import trio

from bench.world.spec import WorldSpec
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.mx import Addresses, Exchange, Route, make_route
from tests.sim.scenario import DnsManners
from tests.sim.witness import Witness

TIMEOUT_SECONDS = 3.0


class SimResolver:
    """`mail_hosts` from the world's specification."""

    def __init__(self, world: WorldSpec, manners: DnsManners, dice: random.Random, witness: Witness) -> None:
        self._world = world
        self._manners = manners
        self._dice = dice
        self._witness = witness
        self._hosts = {
            domain: site.hosts
            for provider in world.providers
            for site in provider.sites
            for domain in site.domains
        }

    async def mail_hosts(self, domain: str) -> Route | TransportFailure:
        await trio.sleep(self._dice.uniform(0.0, 0.05))
        chance = self._dice.random()
        if chance < self._manners.failing or domain in self._world.failing:
            self._witness.fault("SERVFAIL", domain)
            return TransportFailure(FailureKind.DNS, Verb.RESOLVE, "SERVFAIL")
        if chance < self._manners.failing + self._manners.timeouts:
            self._witness.fault("DNS timeout", domain)
            await trio.sleep(TIMEOUT_SECONDS)
            return TransportFailure(FailureKind.DNS, Verb.RESOLVE, "timeout")
        if domain in self._world.null_mx:
            return TransportFailure(FailureKind.NULL_MX, Verb.RESOLVE, "the domain accepts no mail (null MX)")
        if domain not in self._hosts:
            return TransportFailure(FailureKind.NO_SUCH_DOMAIN, Verb.RESOLVE, "the domain does not exist")
        hosts = self._hosts[domain]
        ttl = self._manners.ttl_seconds
        return make_route(
            [Exchange(host.preference, host.name) for host in sorted(hosts, key=lambda one: one.preference)],
            {host.name: Addresses((self._world.addresses_of_hosts[host.name],), ttl) for host in hosts},
            ttl_seconds=ttl,
            allow_private=True,
        )
