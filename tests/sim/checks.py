"""What must hold at the end of every run, whatever went wrong in it.

Each check reads the evidence and returns findings as sentences; no finding is a clean run. The truth about
deliveries comes from the receivers, the truth about limits from the engine's end of the network, and the
engine's own word (events, counts) is held against both.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

from engine.model.event import (
    Ambiguous,
    Bounced,
    Cancelled,
    ChunkAccepted,
    Deferred,
    Delivered,
    EnvelopeEvent,
    Expired,
    Quarantined,
    RenderFailed,
    Suppressed,
)
from tests.sim.run import Evidence
from tests.sim.witness import WireFacts

FINAL = (Delivered, Bounced, Expired, Suppressed, Cancelled, RenderFailed)
FINDINGS_SHOWN = 20
HELD_PER_CONNECTION = 2
HELD_MESSAGES = 16  # seen: a connection's lease of slow first messages goes out fast once it may pipeline
HELD_SECONDS = 0.25  # a lease is worth 150 ms of its connection's rate

Key = tuple[int, int]  # campaign, subscriber


def check(evidence: Evidence) -> list[str]:
    """All findings, the first few of each kind."""
    found: list[str] = []
    for each in CHECKS:
        findings = list(each(evidence))
        found += findings[:FINDINGS_SHOWN]
        if len(findings) > FINDINGS_SHOWN:
            found.append(f"... and {len(findings) - FINDINGS_SHOWN} more like that")
    return found


def the_run_ends(evidence: Evidence) -> Iterator[str]:
    yield from evidence.trouble
    if evidence.open_leases:
        yield f"{evidence.open_leases} leases are open after a polite stop"
    if evidence.unsettled:
        yield f"{evidence.unsettled} settles are still in hand after a polite stop"
    for item in evidence.listing:
        if item.state not in ("held", "ambiguous", "quarantined"):
            yield f"envelope {item.spool_id} is still {item.state}"


def only_the_saboteur_crashes_actors(evidence: Evidence) -> Iterator[str]:
    for crash in evidence.witness.crashes:
        if not crash.injected:
            yield f"{crash.actor} crashed by itself: {crash.error}"
    yield from (f"an error was logged: {line}" for line in evidence.witness.errors)


def events_have_no_gap(evidence: Evidence) -> Iterator[str]:
    """By (epoch, sequence); a batch that comes again is the same batch."""
    following: dict[str, int] = defaultdict(lambda: 1)
    seen: dict[tuple[str, int], object] = {}
    for batch in evidence.batches:
        key = (batch.epoch, batch.sequence)
        if batch.sequence < following[batch.epoch]:
            if seen.get(key) != batch:
                yield f"events {key} came again and were not the same"
            continue
        if batch.sequence > following[batch.epoch]:
            yield f"events {following[batch.epoch]} to {batch.sequence - 1} of {batch.epoch} are missing"
        seen[key] = batch
        following[batch.epoch] = batch.next_sequence


def events_of(evidence: Evidence) -> dict[Key, list[EnvelopeEvent]]:
    """What was told of each envelope, in order, repeated batches left out."""
    told: dict[Key, list[EnvelopeEvent]] = defaultdict(list)
    following: dict[str, int] = defaultdict(lambda: 1)
    for batch in evidence.batches:
        if batch.sequence < following[batch.epoch]:
            continue
        following[batch.epoch] = batch.next_sequence
        for event in batch.events:
            if isinstance(event, EnvelopeEvent):
                told[event.campaign, event.subscriber].append(event)
    return told


def submitted(evidence: Evidence) -> dict[Key, str]:
    """Who was written to: the feeder numbers subscribers from 1 in each campaign."""
    return {
        (mailing.campaign, number): recipient
        for mailing in evidence.scenario.mailings
        for number, recipient in enumerate(mailing.recipients, 1)
    }


def nothing_is_lost(evidence: Evidence) -> Iterator[str]:
    """Each envelope has exactly one end; a delivered one is at its receiver, a bounced one was refused."""
    told = events_of(evidence)
    at_receivers = Counter(receipt.recipient for receipt in evidence.witness.receipts)
    waiting = {
        (item.campaign, item.subscriber): item.state
        for item in evidence.listing
        if item.state in ("held", "ambiguous", "quarantined")
    }
    every = submitted(evidence)
    for key in told.keys() - every.keys():
        yield f"events tell of {key}, whom nobody wrote to"
    for key, recipient in every.items():
        ends = [event for event in told[key] if isinstance(event, FINAL)]
        if key in waiting:
            if ends:
                yield f"{recipient} is {waiting[key]} and has an end: {ends[0]}"
            elif not any(isinstance(event, Ambiguous | Quarantined) for event in told[key]):
                yield f"{recipient} is {waiting[key]} and no event says so"
            continue
        if len(ends) != 1:
            yield f"{recipient} has {len(ends)} ends: {[type(event).__name__ for event in told[key]]}"
            continue
        if isinstance(ends[0], Delivered) and not at_receivers[recipient]:
            yield f"{recipient} is lost: delivered, says the engine; no receiver has it"
        predicted = evidence.scenario.world.predict(recipient)
        if (
            isinstance(ends[0], Bounced)
            and predicted.final != "bounced"
            and not _refused(evidence, recipient)
        ):
            yield f"{recipient} bounced, and its receiver would take it: {ends[0].reply}"
        if isinstance(ends[0], Cancelled | Suppressed | RenderFailed):
            yield f"{recipient} ended for no reason: {ends[0]}"


def _refused(evidence: Evidence, recipient: str) -> bool:
    """Troubles that only last for a while may still say 5yz; nobody has to try again after that."""
    return any(
        trouble.reply.startswith("5") and trouble.hits(evidence.scenario.world.seed, recipient)
        for provider in evidence.scenario.world.providers
        if recipient.rpartition("@")[2] in provider.domains
        for trouble in provider.manners.troubles
    )


def nothing_is_doubled(evidence: Evidence) -> Iterator[str]:
    """A receiver has a message once, and once more for each time that the engine admits not to know."""
    told = events_of(evidence)
    at_receivers = Counter(receipt.recipient for receipt in evidence.witness.receipts)
    ids: dict[str, set[str]] = defaultdict(set)
    for receipt in evidence.witness.receipts:
        ids[receipt.recipient].add(receipt.message_id)
    for key, recipient in submitted(evidence).items():
        delivered = sum(isinstance(event, Delivered) for event in told[key])
        unsure = sum(isinstance(event, Ambiguous | Quarantined) for event in told[key])
        if at_receivers[recipient] > delivered + unsure:
            yield (
                f"{recipient} is doubled: {at_receivers[recipient]} times at its receiver, "
                f"{delivered} delivered, {unsure} ambiguous: {[type(event).__name__ for event in told[key]]}"
            )
        if len(ids[recipient]) > 1:
            yield f"{recipient} got one message under several Message-IDs: {sorted(ids[recipient])}"
    for recipient in at_receivers.keys() - set(submitted(evidence).values()):
        yield f"{recipient} got mail that nobody submitted"


def counts_add_up(evidence: Evidence) -> Iterator[str]:
    """The spool's counters say what its events say."""
    told = events_of(evidence)
    accepted: Counter[int] = Counter()
    following: dict[str, int] = defaultdict(lambda: 1)
    for batch in evidence.batches:
        if batch.sequence >= following[batch.epoch]:
            following[batch.epoch] = batch.next_sequence
            for event in batch.events:
                if isinstance(event, ChunkAccepted):
                    accepted[event.campaign] += event.count
    for mailing in evidence.scenario.mailings:
        counts, campaign = evidence.counts[mailing.campaign], mailing.campaign
        events = [event for key, many in told.items() if key[0] == campaign for event in many]
        if not counts.accepted == accepted[campaign] == len(mailing.recipients):
            yield (
                f"campaign {campaign}: {len(mailing.recipients)} submitted, {counts.accepted} counted, "
                f"{accepted[campaign]} told of"
            )
        for kind, name in (
            (Delivered, "delivered"),
            (Bounced, "bounced"),
            (Expired, "expired"),
            (RenderFailed, "render_failed"),
            (Cancelled, "cancelled"),
            (Suppressed, "suppressed"),
        ):
            number = sum(isinstance(event, kind) for event in events)
            if number != getattr(counts, name):
                yield f"campaign {campaign}: {getattr(counts, name)} counted as {name}, {number} told of"
        if counts.finished + counts.ambiguous + counts.quarantined != counts.accepted:
            yield f"campaign {campaign}: the counts do not add up: {counts}"
        unsure = len({event.spool_id for event in events if isinstance(event, Ambiguous)})
        if counts.was_ambiguous != unsure:
            yield f"campaign {campaign}: {counts.was_ambiguous} counted as once ambiguous, {unsure} told of"


def every_wait_has_a_reason(evidence: Evidence) -> Iterator[str]:
    for many in events_of(evidence).values():
        for event in many:
            if isinstance(event, Deferred | Ambiguous | Quarantined) and not event.reason:
                yield f"envelope {event.spool_id} waits without a reason: {event}"


def connections_are_within_the_ceiling(evidence: Evidence) -> Iterator[str]:
    """Over each path, from the dial to the close, as the engine's end of the network saw them."""
    ceilings = evidence.scenario.ceilings
    by_path: dict[tuple[str, str], list[WireFacts]] = defaultdict(list)
    by_provider: dict[tuple[str, str], list[WireFacts]] = defaultdict(list)
    for wire in evidence.witness.wires:
        by_path[wire.source, wire.site].append(wire)
        by_provider[wire.source, ceilings[wire.site].provider].append(wire)
        if wire.closed_at == float("inf"):
            yield f"connection {wire.number} to {wire.site} was never closed"
    for (source, site), wires in by_path.items():
        most, ceiling = most_at_once(wires), ceilings[site].connections
        if most > ceiling:
            yield f"{source}>{site} had {most} connections, {ceiling} are configured"
    for (source, provider), wires in by_provider.items():
        door = ceilings[wires[0].site].provider_connections
        if door is not None and (most := most_at_once(wires)) > door:
            yield f"{provider} had {most} connections from {source}, {door} are configured"


def most_at_once(wires: Iterable[WireFacts]) -> int:
    """How many were open in the busiest moment; one that closes makes room for another at once."""
    changes = [(wire.opened_at, 1) for wire in wires] + [(wire.closed_at, -1) for wire in wires]
    count = most = 0
    for _, change in sorted(changes):
        count += change
        most = max(most, count)
    return most


def connections_carry_no_more_than_configured(evidence: Evidence) -> Iterator[str]:
    for wire in evidence.witness.wires:
        most = evidence.scenario.ceilings[wire.site].messages_per_connection
        if wire.messages > most:
            yield f"connection {wire.number} to {wire.site} carried {wire.messages} messages, not {most}"


def rate_excess(evidence: Evidence, source: str, site: str) -> int:
    """By how many messages a path's MAIL commands were ahead of the configured rate at the worst moment.

    The generic cell rate algorithm over the whole run; a process that begins may send one at once.
    """
    ceiling = evidence.scenario.ceilings[site]
    if ceiling.rate is None:
        return 0
    interval = 1 / ceiling.rate.per_second
    tolerance = max(interval, ceiling.burst_seconds)
    starts = list(evidence.witness.starts)
    due, worst = 0.0, 0
    for at in evidence.witness.mails.get((source, site), []):
        while starts and starts[0] <= at:
            due = max(0.0, due - interval)
            starts.pop(0)
        due = max(due, at) + interval
        worst = max(worst, round((due - at - tolerance - 1e-9) / interval + 0.499))
    return worst


def the_rate_is_within_the_ceiling(evidence: Evidence) -> Iterator[str]:
    """A token is taken at the lease, so what connections hold may come a little later and closer together."""
    for source, site in evidence.witness.mails:
        ceiling = evidence.scenario.ceilings[site]
        per_second = 0.0 if ceiling.rate is None else ceiling.rate.per_second
        held = max(HELD_MESSAGES, HELD_PER_CONNECTION * ceiling.connections, int(HELD_SECONDS * per_second))
        excess = rate_excess(evidence, source, site)
        if excess > held:
            yield f"{source}>{site} was {excess} messages ahead of {ceiling.rate}; {held} may be held back"


def receivers_have_nothing_to_complain_about(evidence: Evidence) -> Iterator[str]:
    for kind, number in sorted(evidence.witness.protocol_errors.items()):
        yield f"receivers saw {number} protocol errors of the kind {kind}"


CHECKS: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    the_run_ends,
    only_the_saboteur_crashes_actors,
    events_have_no_gap,
    nothing_is_lost,
    nothing_is_doubled,
    counts_add_up,
    every_wait_has_a_reason,
    connections_are_within_the_ceiling,
    connections_carry_no_more_than_configured,
    the_rate_is_within_the_ceiling,
    receivers_have_nothing_to_complain_about,
)
