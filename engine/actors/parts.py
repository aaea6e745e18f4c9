"""What the actors of one engine share: configuration, rules, stores, dynamic supervisors, memory of paths.

Made once by `engine.app` and outliving every actor, so that a crash of one loses nothing that another
needs. No decisions here.
"""

import math
import pathlib
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sized
from itertools import count

import trio
from msgspec import Struct

from engine.actors.controls import Controls
from engine.actors.dkim_keys import DkimKeys
from engine.actors.membership import Membership
from engine.actors.memory import Door, PathMemory, Place, ProviderMemory
from engine.actors.messages import Settle
from engine.actors.overrides import Overrides
from engine.actors.path import Path
from engine.actors.remote_addresses import RemoteAddresses
from engine.actors.source_states import SourceStates
from engine.actors.stops import Stops
from engine.actors.taps import Taps
from engine.actors.timelines import Timelines
from engine.actors.tls_results import TlsResults
from engine.actors.warming import WarmUpAccount
from engine.bus.api import Bus, NodeBus
from engine.config.replies import ReplyRules, load_reply_rules
from engine.config.tables import Config
from engine.model.content import Content, MessageClass
from engine.model.egress import Credentials, Source
from engine.model.envelope import Envelope
from engine.model.event import Adapted, Event
from engine.mta.compose.errors import ContentError
from engine.mta.compose.message import CompiledContent, compile_content
from engine.mta.compose.raw import RawContent
from engine.mta.compose.token import TokenKeys
from engine.mta.net.mx import Route
from engine.mta.net.network import Network, SystemNetwork
from engine.mta.net.resolver import Resolver
from engine.mta.net.tls import TlsContexts, system_contexts
from engine.mta.net.tls_policy import TlsPolicies
from engine.mta.net.tls_sessions import TlsSessions
from engine.mta.policy.breaker import Breaker
from engine.mta.policy.classify import Judge
from engine.mta.policy.dns_doubt import DnsDoubt
from engine.mta.policy.egress import Egress, Way
from engine.mta.policy.holds import Holds
from engine.mta.policy.shaping import Shaping, ShapingRules, shaping_rules, target_of
from engine.mta.queue.scheduled import ScheduledQueues
from engine.mta.spool.api import Spool
from engine.mta.spool.suppressions import Suppressions
from engine.mta.spool.suppressions_memory import MemorySuppressions
from engine.runtime.clock import Clock
from engine.runtime.dynamic import DynamicSupervisor
from engine.storage import Committer, Space
from engine.token_ring import TokenRing

CONTENTS_COMPILED_MAX = 64  # campaigns in memory at a time; one is some 100 kB
STANDINGS_MAX = 10_000  # campaigns whose class and workspace are remembered
PATHS_KEPT_MAX = 20_000  # idle paths that are remembered; one is 3 kB, or up to 200 kB after hours of work
NOTES_MAX = 10_000  # events that wait for the next look of a site
CHANGES_KEPT = 1_000  # what an operator may look back at without reading events; 0.4 MB


class Standing(Struct, frozen=True):
    """What a campaign's mail is to scheduling and reactions."""

    message_class: MessageClass
    workspace: str
    sending_domain: str
    list_id: str = ""
    single: bool = False  # its envelopes have no subscriber, but a message id


class Noted(Struct, frozen=True):
    """A change, and when it was (wall seconds)."""

    at: float
    change: Adapted


class ConfigFile(Struct, frozen=True):
    """Where the configuration came from, and what file and environment said at the start."""

    path: pathlib.Path
    environ: Mapping[str, str]
    at_start: Config


class Parts:
    """One engine's shared things. Attributes are set once, before the tree runs; only rules are replaced."""

    def __init__(
        self,
        *,
        config: Config,
        clock: Clock,
        spool: Spool,
        committer: Committer | None,
        space: Space | None,
        bus: NodeBus,
        cluster: Bus | None = None,
        resolver: Resolver,
        sources: tuple[Source, ...],
        tokens: TokenKeys,
        dkim_keys: DkimKeys,
        static_route: Callable[[], "Route | None"],
        credentials: Credentials | None = None,
        dice: random.Random | None = None,
        network: Network | None = None,
        replies: ReplyRules | None = None,
        config_file: ConfigFile | None = None,
        tls_policies: TlsPolicies | None = None,
        egress: Egress | None = None,
        suppressions: Suppressions | None = None,
        tls_contexts: TlsContexts | None = None,
        place: str = "",
    ) -> None:
        self.config = config
        self.config_file = config_file  # None: there is nothing to read anew
        self.clock = clock
        self.spool = spool
        self.committer = committer
        self.space = space
        self.bus = bus  # this node's own: operators' orders, what was learnt, questions of the command line
        self.cluster: Bus = cluster or bus  # what many nodes share: chunks, claims, events, suppressions
        self.membership = Membership(place)
        self.resolver = resolver
        self.tls_policies = tls_policies  # None: nobody's demands are looked for
        self.sources = sources
        self.egress = egress or Egress(sources)
        self.source_states = SourceStates(sources, self.note)
        self.tokens = tokens  # signs what is accepted from `_tokens_since` on; `use_ring` replaces it
        self._tokens_since = -math.inf
        self._ring: TokenRing | None = None
        self.dkim_keys = dkim_keys  # which there are; the keys themselves are in signer processes only
        self.static_route = static_route
        self.credentials = credentials
        self.dice = dice or random.Random()  # noqa: S311 - spreads retries, guards nothing
        self.network = network or SystemNetwork()
        self.tls_contexts = tls_contexts or system_contexts()
        self.tls_sessions = TlsSessions()
        self.tls_kinds: Counter[str] = Counter()  # connections that became ready, by how they are secured
        self.tls_results = TlsResults(bus, clock.now)
        self.remote_addresses = RemoteAddresses(config.engine.connections_per_address)
        self.connections = DynamicSupervisor(
            "connections",
            children_max=config.engine.connections_max,
            shutdown_seconds=EACH_ITS_OWN,
            clock=clock,
        )
        self.sites = DynamicSupervisor(
            "sites", children_max=SITES_MAX, shutdown_seconds=EACH_ITS_OWN, clock=clock
        )
        self.domains = DynamicSupervisor("domains", children_max=DOMAINS_MAX, clock=clock)
        self.routes: dict[str, str] = {}  # destination -> path, the scheduler's
        self.ended: deque[tuple[str, str]] = deque()  # kind and name of what the scheduler started
        self.unsettled: dict[int, Settle] = {}  # by id(): in the spooler's hands or for them, not durable yet
        self.suppressions: Suppressions = MemorySuppressions() if suppressions is None else suppressions
        # By connection: the messages that its protocol has and that are not settled.
        self.under_way: dict[str, Callable[[], Iterable[Envelope]]] = {}
        self.timelines = Timelines(clock, config.metrics.sample)
        self.taps = Taps(self.routes)
        self.stops = Stops(bus)
        self.drained = trio.Event()  # everything that was queued is sent: the engine may stop
        self.overrides = Overrides(bus)
        self.shaping = shaping_rules(config, self.overrides.rules(clock.now()))
        self.ruled_domains = _ruled_domains(self.shaping)
        self.judge = Judge(replies or load_reply_rules())
        self.holds = Holds()
        self.dns_doubt = DnsDoubt()
        self.queues = ScheduledQueues()  # the scheduler's, like `paths`: others only look
        self.paths: dict[str, Path] = {}
        self.controls = Controls(bus)
        self.memory: dict[str, PathMemory] = {}  # by path
        self.doors: dict[tuple[str, str], Door] = {}  # by site and source
        self.providers: dict[tuple[str, str], ProviderMemory] = {}  # by provider and source
        self.breakers: dict[str, Breaker] = {}  # by provider
        self.to_sign: Sized = ()  # the signers' queue; others only look
        self.notes: deque[Event] = deque(maxlen=NOTES_MAX)  # of the control loop, for the journal
        self.changes: deque[Noted] = deque(maxlen=CHANGES_KEPT)
        self._standings: dict[int, Standing] = {}
        self._warm_ups: dict[tuple[str, str], WarmUpAccount] = {}
        self.prepared_octets = 0
        self.connection_numbers = count(1)  # a name is never used twice, whatever restarts
        self._contents: dict[
            tuple[int, int], CompiledContent | RawContent
        ] = {}  # by campaign and token key id

    def note(self, event: Adapted) -> None:
        """Keep a change for the journal, where the next site that looks hands it on, and for who asks."""
        self.notes.append(event)
        self.changes.append(Noted(self.clock.now(), event))

    def path(self, key: str, route: Route, source: Source, domain: str, now: float) -> PathMemory:
        """What is known of a path, made where nothing is. `domain` where it has rules of its own."""
        memory = self.memory.get(key)
        if memory is not None:
            return memory
        if len(self.memory) >= PATHS_KEPT_MAX:
            self._forget_a_path(now)
        place = Place(source.name, route.site, tuple(host.name for host in route.hosts), domain)
        shaping, site, provider = self._rules_at(place, now)
        own_relay = self.static_route() is not None or self.egress.relay_at(route.site) is not None
        memory = self.memory[key] = PathMemory(
            key, place, shaping, site, provider, self.note, now, hasty=own_relay
        )
        self.controls.apply(memory, now, self.clock.now())
        return memory

    def set_shaping(self, rules: ShapingRules, now: float, why: str) -> None:
        """These rules hold from now on, on every path that is known.

        Connections that are open keep to what held when they began. The scheduler sees by itself that
        `shaping` is another object.
        """
        self.shaping = rules
        self.ruled_domains = _ruled_domains(rules)
        wall = self.clock.now()
        for memory in self.memory.values():
            shaping, _, provider = self._rules_at(memory.place, now)
            memory.reshape(shaping, provider, now, why)
            self.controls.apply(memory, now, wall)  # a pin may have been cut to bounds that hold no more

    def _rules_at(self, place: Place, now: float) -> tuple[Shaping, Door, ProviderMemory]:
        """What holds at a place, and the doors of its site and provider, made where there are none.

        The site's rules hold for all its paths together: a recipient domain with rules of its own has a
        path of its own, and no connection more than the site may have.
        """
        shaping = self.shaping.path(place.source, place.site, place.hosts, place.domain)
        of_site = self.shaping.path(place.source, place.site, place.hosts)
        site = self.doors.get((place.site, place.source))
        if site is None:
            site = self.doors[place.site, place.source] = Door(now)
        site.limit(of_site.connections.ceiling, of_site.rate, of_site.burst_seconds, now)
        name = self.shaping.provider_of(place.hosts, place.domain) or place.site
        provider = self.providers.get((name, place.source))
        if provider is None:
            breaker = self.breakers.get(name)
            if breaker is None:
                breaker = self.breakers[name] = Breaker(now)
            provider = self.providers[name, place.source] = ProviderMemory(name, place.source, breaker, now)
        provider.limit(shaping.provider_connections, shaping.provider_rate, shaping.burst_seconds, now)
        provider.warmup = self._warm_up(name, place.source)
        return shaping, site, provider

    def warm_up(self, provider: str, source: Source) -> WarmUpAccount | None:
        """The warm-up of a source at a provider, where it has a plan."""
        return self._warm_up(provider, source.name)

    def _warm_up(self, provider: str, source: str) -> WarmUpAccount | None:
        plan = self.shaping.warm_up(source, provider)
        if plan is None:
            return None
        account = self._warm_ups.get((provider, source))
        if account is None or account.plan != plan:
            account = self._warm_ups[provider, source] = WarmUpAccount(
                self.bus, plan, source, provider, self.clock.now
            )
        return account

    def source_for(self, way: Way, domain: str, provider: str) -> Source:
        """The same source of a way for a domain every time: greylisting wants the same tuple again.

        One that is suspended gives way to the next one; so does one whose warm-up quota at this provider is
        used up, if its plan says so.
        """

        def usable(source: Source) -> bool:
            if not self.source_states.usable(source.name):
                return False
            account = self.warm_up(provider, source)
            return account is None or not (account.overflow and account.exhausted)

        return self.egress.source_for(way, domain, usable)

    def provider_name(self, route: Route, domain: str) -> str:
        """The provider behind a route; a site of nobody that is known is its own."""
        return self.shaping.provider_of([host.name for host in route.hosts], domain) or route.site

    def _forget_a_path(self, now: float) -> None:
        """Make room: the longest known path that no actor serves and that does not rest.

        With the last path of its site or provider, what was kept of those goes, too: a site of nobody
        that is known is a provider of its own, and there may be a million.
        """
        for key, memory in self.memory.items():
            quiet = not memory.rest(now)[0] and memory.provider.breaker.hard_allowed(now)
            if key not in self.sites and quiet:
                break
        else:
            return
        del self.memory[key]
        place, name = memory.place, memory.provider.name
        if self.ruled_domains and any(each.site is memory.site for each in self.memory.values()):
            return
        del self.doors[place.site, place.source]
        if name == place.site:
            del self.providers[name, place.source]
            self._warm_ups.pop((name, place.source), None)
            if not any((name, source.name) in self.providers for source in self.sources):
                del self.breakers[name]

    def standing(self, campaign: int) -> Standing:
        found = self._standings.get(campaign)
        if found is None:
            content = self.spool.content(campaign)
            if content is None:
                return Standing(MessageClass.BULK, "", "")
            if len(self._standings) >= STANDINGS_MAX:
                self._standings.pop(next(iter(self._standings)))
            domain = content.sending_domain or content.return_path_domain
            found = self._standings[campaign] = Standing(
                content.message_class, content.workspace, domain, content.list_id, content.single
            )
        return found

    def use_ring(self, ring: TokenRing) -> None:
        """From now on tokens are signed by this ring: each envelope's by the id of its acceptance."""
        self._ring = ring
        self.tokens = TokenKeys(ring.current, ring.keys)
        self._tokens_since = ring.starts[ring.current]
        self._contents.clear()

    def compiled(self, campaign: int, accepted_at: float = math.inf) -> CompiledContent | RawContent:
        """The compiled content of a campaign, with the token key for what was accepted at that wall time.

        Raises ContentError when it has none or it does not compile.
        """
        key_id = self.tokens.current
        if accepted_at < self._tokens_since and self._ring is not None:
            key_id = self._ring.signing_id(accepted_at)
        found = self._contents.get((campaign, key_id))
        if found is None:
            content: Content | None = self.spool.content(campaign)
            if content is None:
                raise ContentError("campaign", 0, f"campaign {campaign} has no content")
            if len(self._contents) >= CONTENTS_COMPILED_MAX:
                self._contents.pop(next(iter(self._contents)))
            tokens = TokenKeys(key_id, self.tokens.keys)
            compiled = RawContent if content.raw else compile_content
            found = compiled(content, tokens)
            self._contents[campaign, key_id] = found
        return found


def _ruled_domains(rules: ShapingRules) -> frozenset[str]:
    """Recipient domains that have a path of their own."""
    return frozenset(target_of(rule)[1] for layer in rules.layers for rule in layer.rules if rule.domain)


SITES_MAX = 20_000  # an idle site is a record; busy ones are bounded by connections anyway
DOMAINS_MAX = 2_000  # architecture 4: 6 KB and 0.1 ms each
EACH_ITS_OWN = math.inf  # a stop lasts as long as each child's own limit allows
