"""Records: what is sealed, what damage shows, and the steps of an envelope."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.keyring import KeyringError, RowSealer
from engine.model.disposition import FINAL, DelayReason, Disposition, Outcome
from engine.mta.spool import codec

SEALER = RowSealer(bytes(32))
SALT = b"salt"
MUTABLE = range(codec.FIXED_SIZE, codec.HEAD_SIZE - 5)  # due, attempt, crashes, flags


def a_record(spool_id: int = 7, row: tuple[str, ...] = ("Ann",), recipient: str = "ann@d.example") -> bytes:
    return codec.encode_record(spool_id, 3, 42, recipient, row, 1_000.9, 2_000.9, SEALER, SALT)[0]


@given(
    st.integers(1, 2**64 - 1),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]))).map(tuple),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_a_record_opens_to_what_was_sealed(spool_id: int, row: tuple[str, ...], local: str) -> None:
    envelope = codec.decode_envelope(spool_id, a_record(spool_id, row, f"{local}@d.example"), SEALER)
    assert (envelope.recipient, envelope.domain, envelope.row) == (f"{local}@d.example", "d.example", row)
    assert (envelope.campaign, envelope.subscriber) == (3, 42)
    assert (envelope.accepted_at, envelope.expires_at) == (1_000, 2_000)


@pytest.mark.parametrize("position", [i for i in range(len(a_record())) if i not in MUTABLE])
def test_any_changed_octet_that_may_not_change_shows(position: int) -> None:
    record = bytearray(a_record())
    for bit in range(8):
        record[position] ^= 1 << bit
        with pytest.raises((codec.DamagedRecord, KeyringError)):
            codec.decode_envelope(7, bytes(record), SEALER)
        record[position] ^= 1 << bit


@given(st.binary(max_size=90))
def test_any_octets_are_refused_or_listed_but_never_crash(record: bytes) -> None:
    with pytest.raises((codec.DamagedRecord, KeyringError)):
        codec.decode_envelope(7, record, SEALER)
    assert codec.listed(7, record).spool_id == 7
    parked = codec.rebuilt(3, record)
    assert codec.is_intact(parked)
    assert codec.record_campaign(parked) == 3


def test_a_record_of_another_envelope_does_not_open() -> None:
    with pytest.raises(KeyringError):
        codec.decode_envelope(8, a_record(7), SEALER)


def test_the_plain_part_is_read_without_the_key() -> None:
    record = a_record()
    assert (codec.record_campaign(record), codec.record_domain(record)) == (3, "d.example")
    assert (codec.record_attempt(record), codec.record_is_suspect(record)) == (0, False)
    assert codec.record_is_queued(record)
    assert not codec.record_is_parked(record)
    assert codec.record_is_suspect(codec.mark_suspect(record))
    assert not codec.record_is_queued(codec.with_due(record, 5))
    assert codec.listed(7, codec.with_due(record, 5_500)).due == 5.5


def test_keys_sort_as_numbers() -> None:
    numbers = [1, 255, 256, 2**32, 2**63]
    assert sorted(map(codec.id_key, numbers)) == [codec.id_key(number) for number in numbers]
    pairs = [(1, 9), (2, 1), (256, 0), (2**40, 3)]
    assert sorted(codec.due_key(*pair) for pair in pairs) == [codec.due_key(*pair) for pair in pairs]


# outcome, crashed, crashes before, held -> state after, attempt after, due written, counters, event, requeued
STEPS = [
    *((end, False, 0, False, None, 0, 0, (end.value,), True, False) for end in sorted(FINAL, key=str)),
    (Outcome.DEFERRED, False, 0, False, "deferred", 1, 9_000, (), True, False),
    (Outcome.DEFERRED, True, 0, False, "deferred", 1, 9_000, (), True, False),
    (Outcome.DEFERRED, True, 1, False, "quarantined", 0, 0, ("quarantined",), True, False),
    (Outcome.RETURNED, False, 1, False, "queued", 0, 0, (), False, True),
    (Outcome.RETURNED, True, 0, False, "queued", 0, 0, (), False, True),
    (Outcome.RETURNED, True, 1, False, "quarantined", 0, 0, ("quarantined",), True, False),
    (Outcome.AMBIGUOUS, False, 0, False, "deferred", 1, 9_000, ("was_ambiguous",), True, False),
    (Outcome.AMBIGUOUS, False, 0, True, "ambiguous", 1, 0, ("was_ambiguous", "ambiguous"), True, False),
    (Outcome.AMBIGUOUS, True, 1, True, "quarantined", 0, 0, ("was_ambiguous", "quarantined"), True, False),
    (Outcome.QUARANTINED, False, 0, False, "quarantined", 0, 0, ("quarantined",), True, False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "crashed", "crashes", "held", "state", "attempt", "due", "counters", "event", "requeued"),
    STEPS,
)
def test_a_step_of_an_envelope(
    outcome: Outcome,
    crashed: bool,
    crashes: int,
    held: bool,
    state: str | None,
    attempt: int,
    due: int,
    counters: tuple[str, ...],
    event: bool,
    requeued: bool,
) -> None:
    record = codec.with_due(a_record(), 1_234)
    record = record[:29] + bytes([crashes]) + record[30:]
    reason = DelayReason.AMBIGUOUS_HELD if held else DelayReason.AMBIGUOUS_RETRY
    step = codec.settle_record(record, Disposition(7, 0, outcome, reason=reason, due=9.0, crashed=crashed))
    assert step is not None
    assert (step.campaign, step.domain, step.old_due) == (3, "d.example", 1_234)
    assert (step.new_due, step.states, step.requeue) == (due, counters, requeued)
    assert (step.event is not None) == event
    if state is None:
        assert step.record is None
    else:
        assert step.record is not None
        seen = codec.listed(7, step.record)
        assert (seen.state, seen.attempt, seen.crashes) == (state, attempt, crashes + crashed)
        assert step.record[codec.HEAD_SIZE :] == record[codec.HEAD_SIZE :], "the sealed rest is never touched"


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_repeat_or_a_parked_envelope_has_no_step(outcome: Outcome) -> None:
    assert codec.settle_record(a_record(), Disposition(7, 1, outcome, due=9.0)) is None
    for end in (Outcome.QUARANTINED, Outcome.AMBIGUOUS):
        held = Disposition(7, 0, end, reason=DelayReason.AMBIGUOUS_HELD, due=9.0)
        step = codec.settle_record(a_record(), held)
        assert step is not None
        assert step.record is not None
        for attempt in (0, 1):
            assert codec.settle_record(step.record, Disposition(7, attempt, outcome, due=9.0)) is None


def test_an_ambiguous_envelope_is_counted_as_such_once() -> None:
    record, counted = a_record(), []
    for attempt in range(3):
        step = codec.settle_record(record, Disposition(7, attempt, Outcome.AMBIGUOUS, due=9.0))
        assert step is not None
        assert step.record is not None
        record = step.record
        counted.append(step.states)
    assert counted == [("was_ambiguous",), (), ()]
    assert codec.decode_envelope(7, record, SEALER).was_ambiguous


def test_attempts_stop_counting_at_their_limit() -> None:
    record = a_record()
    record = record[:28] + bytes([codec.ATTEMPT_MAX]) + record[29:]
    step = codec.settle_record(record, Disposition(7, codec.ATTEMPT_MAX, Outcome.DEFERRED, due=9.0))
    assert step is not None
    assert step.record is not None
    assert codec.record_attempt(step.record) == codec.ATTEMPT_MAX


def test_a_due_time_is_needed_to_defer() -> None:
    with pytest.raises(AssertionError):
        codec.settle_record(a_record(), Disposition(7, 0, Outcome.DEFERRED))


@pytest.mark.parametrize("recipient", ["", "@", "a@", "@b.example", "nobody", "a@bü.example"])
def test_a_recipient_that_is_no_address_is_refused(recipient: str) -> None:
    with pytest.raises(ValueError):
        a_record(recipient=recipient)
