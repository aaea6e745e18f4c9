"""What the actors of one engine share: configuration, stores, dynamic supervisors, memory of sites.

Made once by `engine.app` and outliving every actor, so that a crash of one loses nothing that another
needs. No decisions here. `SiteMemory` is what is known of a site while no actor lives for it.
"""

import math
import random
from collections import deque
from collections.abc import Callable
from itertools import count

from engine.actors.messages import Settle
from engine.bus.api import Bus
from engine.config.tables import Config
from engine.model.content import Content
from engine.model.egress import Source
from engine.mta.compose.errors import ContentError
from engine.mta.compose.message import CompiledContent, compile_content
from engine.mta.compose.token import TokenKeys
from engine.mta.net.mx import Route
from engine.mta.net.resolver import Resolver
from engine.mta.policy.throttle import Throttle
from engine.mta.proto.smtp_options import Credentials, PipeliningVerdict
from engine.mta.spool.api import Spool
from engine.runtime.clock import Clock
from engine.runtime.dynamic import DynamicSupervisor
from engine.storage import Committer, Space

CONTENTS_COMPILED_MAX = 64  # campaigns in memory at a time; one is some 100 kB


class SiteMemory:
    """What outlives a site's actor: an idle site is this record."""

    __slots__ = ("failures", "suspended_until", "throttle", "tls_broken_until", "verdict")

    def __init__(self, throttle: Throttle) -> None:
        self.throttle = throttle
        self.verdict = PipeliningVerdict()
        self.failures = 0  # connections in a row that never became ready
        self.suspended_until = 0.0  # monotonic seconds
        self.tls_broken_until: dict[str, float] = {}  # host name -> monotonic seconds


class Parts:
    """One engine's shared things. Attributes are set once, before the tree runs."""

    def __init__(
        self,
        *,
        config: Config,
        clock: Clock,
        spool: Spool,
        committer: Committer | None,
        space: Space | None,
        bus: Bus,
        resolver: Resolver,
        sources: tuple[Source, ...],
        tokens: TokenKeys,
        dkim_keys: dict[str, str],
        static_route: Callable[[], "Route | None"],
        credentials: Credentials | None = None,
        dice: random.Random | None = None,
    ) -> None:
        self.config = config
        self.clock = clock
        self.spool = spool
        self.committer = committer
        self.space = space
        self.bus = bus
        self.resolver = resolver
        self.sources = sources
        self.tokens = tokens
        self.dkim_keys = dkim_keys  # key name -> file, for the signer processes only
        self.static_route = static_route
        self.credentials = credentials
        self.dice = dice or random.Random()  # noqa: S311 - spreads retries, guards nothing
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
        self.ended: deque[tuple[str, str]] = deque()  # kind and name of what the scheduler started
        self.unsettled: dict[int, Settle] = {}  # by id(): in the spooler's hands or for them, not durable yet
        self.memory: dict[str, SiteMemory] = {}
        self.prepared_octets = 0
        self.connection_numbers = count(1)  # a name is never used twice, whatever restarts
        self._contents: dict[int, CompiledContent] = {}

    def compiled(self, campaign: int) -> CompiledContent:
        """The compiled content of a campaign. Raises ContentError when it has none or it does not compile."""
        found = self._contents.get(campaign)
        if found is None:
            content: Content | None = self.spool.content(campaign)
            if content is None:
                raise ContentError("campaign", 0, f"campaign {campaign} has no content")
            if len(self._contents) >= CONTENTS_COMPILED_MAX:
                self._contents.pop(next(iter(self._contents)))
            found = self._contents[campaign] = compile_content(content, self.tokens)
        return found


SITES_MAX = 20_000  # an idle site is a record; busy ones are bounded by connections anyway
DOMAINS_MAX = 2_000  # architecture 4: 6 KB and 0.1 ms each
EACH_ITS_OWN = math.inf  # a stop lasts as long as each child's own limit allows
