"""The checks do find what they look for: a clean run's evidence, changed in one place each time."""

import copy
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from engine.model.event import Bounced, Deferred, Delivered, EnvelopeEvent
from tests.sim import checks
from tests.sim.run import Evidence, run_seed
from tests.sim.witness import CrashFacts, WireFacts

SEEDS = range(34, 64)  # one of the first serves; which one may change with the engine


@pytest.fixture(scope="module")
def clean() -> Evidence:
    """A clean run of some size, with retries and with a path that has a rate."""
    for seed in SEEDS:
        evidence = run_seed(seed)
        kinds = {type(event) for many in checks.events_of(evidence).values() for event in many}
        limited = [path for path in evidence.witness.mails if evidence.scenario.ceilings[path[1]].rate]
        if {Deferred, Delivered} <= kinds and limited and len(evidence.batches) > 20:
            assert not checks.check(evidence)
            return evidence
    raise AssertionError(f"no seed of {SEEDS} is fit")


@pytest.fixture
def evidence(clean: Evidence) -> Evidence:
    """A copy to be changed; contents and scenario are frozen and shared."""
    changed = copy.copy(clean)
    changed.witness = copy.copy(clean.witness)
    for name in ("receipts", "wires", "crashes", "errors", "starts"):
        setattr(changed.witness, name, [copy.copy(item) for item in getattr(clean.witness, name)])
    changed.witness.mails = {path: list(times) for path, times in clean.witness.mails.items()}
    changed.witness.protocol_errors = clean.witness.protocol_errors.copy()
    changed.batches = list(clean.batches)
    changed.counts = {campaign: copy.copy(counts) for campaign, counts in clean.counts.items()}
    changed.listing, changed.trouble = list(clean.listing), list(clean.trouble)
    return changed


def change_event(
    evidence: Evidence, kind: type[EnvelopeEvent], change: Callable[[EnvelopeEvent], EnvelopeEvent]
) -> None:
    """Put another event in the place of the first one of its kind."""
    for number, batch in enumerate(evidence.batches):
        for place, event in enumerate(batch.events):
            if isinstance(event, kind):
                events = (*batch.events[:place], change(event), *batch.events[place + 1 :])
                evidence.batches[number] = replace(batch, events=events)
                return
    raise AssertionError(f"no {kind.__name__} in the run")


def only(evidence: Evidence, word: str) -> None:
    """At least one finding, and one of them says the word."""
    found = checks.check(evidence)
    assert any(word in finding for finding in found), found


def test_a_lost_message_is_found(evidence: Evidence) -> None:
    sure = {r.recipient for r in evidence.witness.receipts if r.answered}
    recipient = next(iter(sorted(sure)))
    evidence.witness.receipts = [r for r in evidence.witness.receipts if r.recipient != recipient]
    only(evidence, "is lost")


def test_a_doubled_message_is_found(evidence: Evidence) -> None:
    evidence.witness.receipts.append(evidence.witness.receipts[0])
    only(evidence, "is doubled")


def test_a_second_message_id_is_found(evidence: Evidence) -> None:
    first = evidence.witness.receipts[0]
    evidence.witness.receipts.append(replace(first, message_id="<another@x.test>"))
    only(evidence, "several Message-IDs")


def test_mail_to_a_stranger_is_found(evidence: Evidence) -> None:
    evidence.witness.receipts.append(replace(evidence.witness.receipts[0], recipient="nobody@x.test"))
    only(evidence, "nobody submitted")


def test_an_envelope_without_an_end_is_found(evidence: Evidence) -> None:
    change_event(evidence, Delivered, lambda event: replace(event, subscriber=event.subscriber + 10_000))
    only(evidence, "has 0 ends")


def test_a_second_end_is_found(evidence: Evidence) -> None:
    change_event(evidence, Deferred, _as(Bounced))
    only(evidence, "has 2 ends")


def test_a_bounce_of_a_good_address_is_found(evidence: Evidence) -> None:
    change_event(evidence, Delivered, _as(Bounced))
    only(evidence, "its receiver would take it")


def test_a_missing_batch_of_events_is_found(evidence: Evidence) -> None:
    del evidence.batches[1]
    only(evidence, "are missing")


def test_a_repeated_batch_that_differs_is_found(evidence: Evidence) -> None:
    first = evidence.batches[0]
    evidence.batches.insert(1, replace(first, at=first.at + 1))
    only(evidence, "not the same")


def test_a_repeated_batch_is_no_finding(evidence: Evidence) -> None:
    evidence.batches.insert(1, evidence.batches[0])
    assert not checks.check(evidence)


def test_counts_that_do_not_match_events_are_found(evidence: Evidence) -> None:
    counts = next(iter(evidence.counts.values()))
    counts.delivered += 1
    only(evidence, "counted as delivered")


def test_a_wait_without_a_reason_is_found(evidence: Evidence) -> None:
    change_event(evidence, Deferred, lambda event: replace(event, reason=""))
    only(evidence, "without a reason")


def test_a_connection_too_many_is_found(evidence: Evidence) -> None:
    wire = max(evidence.witness.wires, key=lambda one: one.closed_at - one.opened_at)
    for _ in range(evidence.scenario.ceilings[wire.site].connections):
        evidence.witness.wires.append(
            WireFacts(9_999, wire.source, wire.site, wire.opened_at, wire.closed_at)
        )
    only(evidence, "are configured")


def test_a_message_too_many_on_a_connection_is_found(evidence: Evidence) -> None:
    wire = evidence.witness.wires[0]
    wire.messages = evidence.scenario.ceilings[wire.site].messages_per_connection + 1
    only(evidence, "carried")


def test_a_connection_that_is_never_closed_is_found(evidence: Evidence) -> None:
    evidence.witness.wires[-1].closed_at = float("inf")
    only(evidence, "never closed")


def test_a_rate_that_is_exceeded_is_found(evidence: Evidence) -> None:
    limited = [path for path in evidence.witness.mails if evidence.scenario.ceilings[path[1]].rate]
    times = evidence.witness.mails[limited[0]]
    evidence.witness.mails[limited[0]] = sorted([*times, *[times[0]] * 500])
    only(evidence, "messages ahead of")


def test_a_protocol_error_is_found(evidence: Evidence) -> None:
    evidence.witness.protocol_errors["nested_mail"] += 1
    only(evidence, "protocol errors")


def test_a_crash_of_its_own_is_found(evidence: Evidence) -> None:
    evidence.witness.crashes.append(CrashFacts("scheduler", "KeyError: 7", injected=False))
    only(evidence, "crashed by itself")


def test_an_injected_crash_is_no_finding(evidence: Evidence) -> None:
    evidence.witness.crashes.append(CrashFacts("scheduler", "Killed", injected=True))
    assert not checks.check(evidence)


def test_an_open_lease_is_found(evidence: Evidence) -> None:
    evidence.open_leases = 1
    only(evidence, "leases are open")


def test_a_run_that_does_not_end_is_found(evidence: Evidence) -> None:
    evidence.trouble.append("not over after 9 virtual seconds")
    only(evidence, "not over")


def _as(kind: type[EnvelopeEvent]) -> Callable[[EnvelopeEvent], EnvelopeEvent]:
    def change(event: EnvelopeEvent) -> EnvelopeEvent:
        return kind(*(getattr(event, name) for name in event.__struct_fields__))

    return change
