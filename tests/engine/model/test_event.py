"""Events survive their encoding, and old readers survive new fields."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.disposition import Outcome
from engine.model.event import (
    Adapted,
    Bounced,
    ChunkAccepted,
    Delivered,
    EnvelopeEvent,
    Event,
    EventBatch,
    decode_events,
    encode_events,
)
from engine.mta.spool.codec import EVENT_OF_OUTCOME

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBER = st.integers(0, 2**64 - 1)
ENVELOPE_EVENTS = st.builds(
    lambda kind, *fields: kind(*fields),
    st.sampled_from(EnvelopeEvent.__args__),
    NUMBER, NUMBER, NUMBER, TEXT, st.integers(0, 255), *[TEXT] * 8, st.floats(0, 1e6), TEXT,
)  # fmt: skip
VALUE = st.none() | st.floats(0, 1e6)
ADAPTED = st.builds(Adapted, TEXT, TEXT, TEXT, VALUE, VALUE, TEXT, TEXT, TEXT, NUMBER)
EVENTS = st.one_of(ENVELOPE_EVENTS, ADAPTED, st.builds(ChunkAccepted, NUMBER, TEXT, NUMBER))
BATCHES = st.builds(
    EventBatch, TEXT, TEXT, st.integers(1, 2**63), st.floats(0, 4e9), TEXT, st.lists(EVENTS).map(tuple)
)


@given(BATCHES)
def test_a_batch_comes_back_as_it_was(batch: EventBatch) -> None:
    again = decode_events(encode_events(batch))
    assert again == batch
    assert [type(event) for event in again.events] == [type(event) for event in batch.events]
    assert again.next_sequence == batch.sequence + len(batch.events)


def test_every_outcome_but_a_return_has_an_event_of_its_own() -> None:
    assert set(EVENT_OF_OUTCOME) == set(Outcome) - {Outcome.RETURNED}
    assert len(set(EVENT_OF_OUTCOME.values())) == len(EVENT_OF_OUTCOME)
    for outcome, kind in EVENT_OF_OUTCOME.items():
        assert kind.__struct_config__.tag == outcome.value


def test_a_field_that_a_newer_program_adds_is_skipped() -> None:
    fields = ["d.example", 0, "content", "250", "", "", "", "", "", "", 0.5, "delivered"]
    event = ["delivered", 1, 2, 3, *fields, "new", 7]
    octets = msgspec.msgpack.encode(["node", "epoch", 5, 9.0, "node", [event], {"new": True}])
    (found,) = decode_events(octets).events
    assert isinstance(found, Delivered)
    assert (found.spool_id, found.reply, found.seconds) == (3, "250", 0.5)


def test_events_of_before_there_were_categories_are_read() -> None:
    event = ["bounced", 1, 2, 3, "d.example", 0, "rcpt", "550", "", "", "", "", "", "", 0.5]
    octets = msgspec.msgpack.encode(["node", "epoch", 5, 9.0, "node", [event]])
    (found,) = decode_events(octets).events
    assert isinstance(found, Bounced)
    assert found.category == ""


@given(st.binary(max_size=64))
def test_any_octets_are_a_batch_or_are_refused(octets: bytes) -> None:
    try:
        decode_events(octets)
    except msgspec.DecodeError:
        return


@pytest.mark.parametrize("event", [["unknown", 1], ["delivered", "x"], [], 5])
def test_an_unknown_event_is_refused(event: Event) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_events(msgspec.msgpack.encode(["node", "epoch", 5, 9.0, "node", [event]]))
