"""The engine's supervision tree, as data: one screen.

Root rest_for_one, 5 restarts in 60 s. Left starts first; stopping runs right to left: take no orders,
release no more, finish open transactions, settle, flush. `connections` stand left of `sites`, not below
them: when a site dies, its connections finish their flight and settle.
"""

from collections.abc import Callable

from engine.actors.campaign_states import campaign_states
from engine.actors.commands import commands
from engine.actors.committing import committing
from engine.actors.intake import intake
from engine.actors.journal import journal
from engine.actors.keys import key_keeper
from engine.actors.metering import metering
from engine.actors.parts import Parts
from engine.actors.presence import presence
from engine.actors.resolver import resolver
from engine.actors.scheduler import scheduler
from engine.actors.signer import signers
from engine.actors.single_intake import single_intake
from engine.actors.source_keeper import source_keeper
from engine.actors.spooler import spooler
from engine.actors.suppressor import suppressor
from engine.actors.sweeping import sweeping
from engine.actors.tls_keeping import tls_keeping
from engine.runtime.child import SupervisorStatistics
from engine.runtime.spec import ChildSpec, Strategy, SupervisorSpec

RESTARTS_MAX = 5
PERIOD_SECONDS = 60.0
SPOOLER_MAILBOX = 20_000  # two settles per connection at most; full, connections wait
SCHEDULER_MAILBOX = 20_000  # credits of every site and a route per domain


def engine_tree(
    parts: Parts, statistics: Callable[[], SupervisorStatistics], *, restarts_max: int = RESTARTS_MAX
) -> SupervisorSpec:
    """The tree of one broadcaster. `statistics` gives the running tree's."""
    return SupervisorSpec(
        name="engine",
        strategy=Strategy.REST_FOR_ONE,
        restarts_max=restarts_max,
        period_seconds=PERIOD_SECONDS,
        children=(
            ChildSpec("committing", committing(parts), mailbox_capacity=0, shutdown_seconds=30.0),
            ChildSpec("signers", signers(parts), mailbox_capacity=4_096),
            ChildSpec("keys", key_keeper(parts), mailbox_capacity=0),
            ChildSpec("spooler", spooler(parts), mailbox_capacity=SPOOLER_MAILBOX, shutdown_seconds=30.0),
            ChildSpec("journal", journal(parts), mailbox_capacity=1, shutdown_seconds=30.0),
            ChildSpec("suppressor", suppressor(parts), mailbox_capacity=0, shutdown_seconds=30.0),
            ChildSpec("resolver", resolver(parts), mailbox_capacity=4_096),
            ChildSpec("tls_keeping", tls_keeping(parts), mailbox_capacity=0, shutdown_seconds=15.0),
            parts.connections.spec(),
            parts.sites.spec(),
            ChildSpec("scheduler", scheduler(parts), mailbox_capacity=SCHEDULER_MAILBOX),
            parts.domains.spec(),
            ChildSpec("presence", presence(parts), mailbox_capacity=0),
            ChildSpec("campaign_states", campaign_states(parts), mailbox_capacity=0),
            ChildSpec("intake", intake(parts), mailbox_capacity=0),
            ChildSpec("single_intake", single_intake(parts), mailbox_capacity=0),
            ChildSpec("sources", source_keeper(parts), mailbox_capacity=0),
            ChildSpec("sweeping", sweeping(parts), mailbox_capacity=0),
            ChildSpec("metering", metering(parts, statistics), mailbox_capacity=0),
            ChildSpec("commands", commands(parts, statistics), mailbox_capacity=0),
        ),
    )
