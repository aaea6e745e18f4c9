"""What a monitor reads of an engine, as families of numbers; made when it asks, at no cost before.

Reads what the actors share, the spool's counts and the statistics of the tree, and changes nothing. A big
engine has more to count than the loop may stand still for: mail and paths are counted in pages, with room for
others between, so numbers of one answer may be some milliseconds apart. `measuring_mail` and
`measuring_paths` count those two. Touches: reads of the spool and the bus.
"""

import platform
from collections import Counter
from collections.abc import Mapping

import trio

from engine.actors.measuring_mail import mail_families
from engine.actors.measuring_paths import path_families
from engine.actors.parts import Parts
from engine.actors.stops import StopKind
from engine.bus.api import WORK_QUEUES
from engine.model.event import decode_events
from engine.mta.policy.holds import Subject
from engine.observe.lag import LoopLag
from engine.observe.metrics import Family, Labels, counter, gauge, histogram
from engine.observe.version import own_version
from engine.runtime.child import ChildState, SupervisorStatistics

TLS_KINDS = ("none", "unverified", "verified")
SUPERVISORS = ("connections", "sites", "domains")  # of temporary actors

NUMBER = tuple[str, str, float]  # name, help, value


async def measure(parts: Parts, statistics: SupervisorStatistics, lag: LoopLag) -> list[Family]:
    """Everything, at about this moment."""
    now = trio.current_time()
    found = _about(parts)
    found += await mail_families(parts)
    found += await path_families(parts, now)
    found += _queue(parts)
    found += _storage(parts)
    found += _bus(parts)
    found += _resolver(parts)
    found += _tls(parts)
    found += _controls(parts, now)
    found += _actors(parts, statistics)
    found += _times(parts, lag)
    return found


def _about(parts: Parts) -> list[Family]:
    facts = {(own_version(), platform.python_version(), parts.config.node.name): 1.0}
    return [
        gauge("emass_build_info", "What runs here.", facts, "version", "python", "node"),
        gauge("emass_clock_timestamp_seconds", "The engine's wall clock, since 1970.", parts.clock.now()),
        gauge(
            "emass_memory_private_octets",
            "Memory that is the engine process's own: without the mapped files of its stores.",
            private_octets(),
        ),
    ]


def _queue(parts: Parts) -> list[Family]:
    engine = parts.config.engine
    return _gauges(
        ("emass_queue_scheduled_envelopes", "Wait in memory for a path or its room.", len(parts.queues)),
        (
            "emass_queue_active_envelopes",
            "Released to their paths, and not leased yet.",
            sum(len(path.released) for path in parts.paths.values()),
        ),
        ("emass_queue_active_envelopes_max", "How many may be released.", engine.active_set_max),
        ("emass_queue_leases", "Leases that are open.", parts.spool.open_leases()),
        ("emass_queue_unsettled_messages", "Settles told, not durable yet.", len(parts.unsettled)),
        ("emass_prepared_octets", "Messages composed ahead of their sending.", parts.prepared_octets),
        ("emass_prepared_octets_max", "How much may be.", engine.prepared_bytes_max),
        ("emass_signer_queue_signatures", "Signatures asked for and not begun.", len(parts.to_sign)),
    )


def _storage(parts: Parts) -> list[Family]:
    found: list[Family] = []
    if parts.space is not None:
        found += _gauges(
            (
                "emass_disk_free_octets",
                "What the spool can still write: disk or map.",
                parts.space.free_octets,
            ),
            ("emass_disk_level", "0 open, 1 no new work, 2 nothing is sent.", parts.space.level),
        )
    if (committer := parts.committer) is None:
        return found
    environment = committer.environment
    return [
        *found,
        *_gauges(
            ("emass_spool_used_octets", "Pages of the spool that hold something.", environment.used_octets()),
            (
                "emass_spool_file_octets",
                "The most that the spool's file ever held.",
                environment.file_octets(),
            ),
            ("emass_spool_map_octets", "How large the spool may become.", environment.map_octets()),
            ("emass_spool_full", "1 = commits wait for room.", committer.full),
            ("emass_spool_failed", "1 = the store was given up.", committer.failed is not None),
        ),
        counter("emass_spool_operations_total", "Operations that were committed.", committer.operations),
        histogram(
            "emass_spool_commit_seconds",
            "How long commits of the spool took, with their sync.",
            committer.commit_times.buckets(),
        ),
    ]


def _bus(parts: Parts) -> list[Family]:
    stream = f"{WORK_QUEUES[0]}{parts.config.node.name}"
    oldest = parts.spool.events(0, 1)
    lag = parts.clock.now() - decode_events(oldest[0][1]).at if oldest else 0.0
    return _gauges(
        (
            "emass_bus_backlog_entries",
            "Chunks and contents on the bus that are not taken in yet.",
            parts.bus.backlog(stream, "intake"),
        ),
        ("emass_journal_lag_seconds", "Age of the oldest event that is not published.", max(0.0, lag)),
        ("emass_journal_notes", "Changes that wait to be written into the journal.", len(parts.notes)),
    )


def _resolver(parts: Parts) -> list[Family]:
    found = parts.resolver.statistics()
    answers = {("hit",): float(found.hits), ("miss",): float(found.misses)}
    return [
        counter("emass_resolver_questions_total", "Questions put to name servers.", found.questions),
        counter("emass_resolver_failures_total", "Look-ups that found no answer.", found.failures),
        counter("emass_resolver_cache_total", "Looks into the cache, by result.", answers, "result"),
        *_gauges(
            ("emass_resolver_cached_answers", "Answers in the cache.", found.cached),
            ("emass_resolver_questions_under_way", "Look-ups that wait for an answer.", found.under_way),
        ),
    ]


def _tls(parts: Parts) -> list[Family]:
    sessions = parts.tls_sessions
    kinds = Counter(dict.fromkeys(TLS_KINDS, 0))
    kinds.update(parts.tls_kinds)
    policies = {
        (kind.value, "met" if met else "failed"): float(count)
        for (kind, met), count in parts.tls_results.counted.items()
    }
    return [
        counter(
            "emass_tls_connections_total",
            "Connections that became ready, by how they are secured.",
            _by(kinds),
            "kind",
        ),
        counter("emass_tls_resumable_total", "Handshakes with a session to resume.", sessions.taken),
        counter("emass_tls_resumed_total", "Handshakes in which the peer resumed it.", sessions.resumed),
        gauge("emass_tls_sessions_kept", "Sessions that may be resumed.", len(sessions)),
        counter(
            "emass_tls_policy_sessions_total",
            "Sessions under a policy of the recipients' side, by recipient domain and connection.",
            policies,
            "policy",
            "result",
        ),
    ]


def _controls(parts: Parts, now: float) -> list[Family]:
    orders = Counter({kind.value: 0 for kind in StopKind})
    orders.update(order.kind.value for order in parts.stops.all())
    suspended = {
        (source.name,): max(0.0, parts.source_states.rest(source.name, now)[0] - now)
        for source in parts.sources
    }
    holds = Counter({subject.value: 0 for subject in Subject})
    holds.update(hold.subject.value for hold in parts.holds.all(now))
    return [
        *_gauges(
            ("emass_suppression_keys", "Addresses, domains and subscribers.", parts.suppressions.keys()),
            ("emass_suppression_version", "Moves with each applied change.", parts.suppressions.version),
            ("emass_draining", "1 = an operator wants the queue emptied.", parts.stops.draining is not None),
        ),
        gauge("emass_stops", "Operators' orders that stand.", _by(orders), "kind"),
        gauge("emass_holds", "What receivers complained of, held at a provider.", _by(holds), "subject"),
        gauge(
            "emass_source_suspended_seconds",
            "For how long a source is not used; 0 = it is.",
            suspended,
            "source",
        ),
    ]


def _actors(parts: Parts, statistics: SupervisorStatistics) -> list[Family]:
    children = statistics.children
    pools = [getattr(parts, name) for name in SUPERVISORS]
    crashed = {(one.name,): one.last_crash.when for one in children if one.last_crash is not None}
    return [
        gauge(
            "emass_actor_running",
            "1 = it is ready.",
            {(one.name,): float(one.state is ChildState.RUNNING) for one in children},
            "actor",
        ),
        counter(
            "emass_actor_restarts_total",
            "How often it was started again: after its crash, or that of one before it.",
            {(one.name,): one.restarts for one in children},
            "actor",
        ),
        counter(
            "emass_actor_crashes_total",
            "How often it crashed; the log has the reason.",
            {(one.name,): one.crashes for one in children},
            "actor",
        ),
        gauge(
            "emass_actor_last_crash_timestamp_seconds", "When it crashed last, since 1970.", crashed, "actor"
        ),
        gauge(
            "emass_actor_mailbox_messages",
            "Messages that wait for it.",
            {(one.name,): one.mailbox_depth for one in children if one.mailbox_capacity},
            "actor",
        ),
        counter(
            "emass_actor_mailbox_dropped_total",
            "Messages that found no room.",
            {(one.name,): one.mailbox_dropped for one in children if one.mailbox_capacity},
            "actor",
        ),
        gauge(
            "emass_temporary_actors",
            "Connections, sites and look-ups of domains that live now.",
            {(pool.name,): len(pool) for pool in pools},
            "kind",
        ),
        counter(
            "emass_temporary_actors_started_total",
            "How many were started.",
            {(pool.name,): pool.started_count for pool in pools},
            "kind",
        ),
        counter(
            "emass_temporary_actors_crashed_total",
            "How many crashed.",
            {(pool.name,): pool.crash_count for pool in pools},
            "kind",
        ),
        gauge("emass_connections_max", "How many may be open.", parts.config.engine.connections_max),
    ]


def _times(parts: Parts, lag: LoopLag) -> list[Family]:
    found = [
        histogram(
            "emass_loop_lag_seconds",
            "How late the event loop ran what was due, looked at ten times a second.",
            lag.times.buckets(),
        )
    ]
    if parts.timelines.every:
        stages = {(stage,): buckets for stage, buckets in parts.timelines.histograms().items()}
        text = "What messages waited for, of those that are timed."
        found.append(histogram("emass_message_stage_seconds", text, stages, "stage"))
    return found


def private_octets() -> float:
    """Anonymous and shared memory of this process; 0 where the system does not say."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            sizes = dict(line.split(":", 1) for line in status if line.startswith("Rss"))
    except OSError:
        return 0.0
    return sum(1024.0 * int(sizes.get(name, "0").split()[0]) for name in ("RssAnon", "RssShmem"))


def _by(counts: Mapping[str, int]) -> dict[Labels, float]:
    return {(name,): float(count) for name, count in counts.items()}


def _gauges(*numbers: NUMBER) -> list[Family]:
    return [gauge(name, text, float(value)) for name, text, value in numbers]
