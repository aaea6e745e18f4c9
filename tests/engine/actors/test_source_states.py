"""Suspension of sources: once for many failures, longer each time, and over only after a probe."""

import pytest

from engine.actors.source_states import SUSPEND_SECONDS_FIRST, SUSPEND_SECONDS_MAX, SourceStates
from engine.model.egress import Proxy, ProxyKind, Source
from engine.model.event import Adapted
from engine.model.reply import FailureKind, TransportFailure, Verb

GONE = TransportFailure(FailureKind.SOURCE, Verb.CONNECT, "address is gone")
A = Source("a", "a.test", "192.0.2.1")
B = Source("b", "b.test", None, Proxy(ProxyKind.SOCKS5, "127.0.0.1", 1080, "me", "secret"), 0)


@pytest.fixture
def notes() -> list[Adapted]:
    return []


@pytest.fixture
def states(notes: list[Adapted]) -> SourceStates:
    return SourceStates((A, B), notes.append)


def test_a_failure_suspends_that_source_alone(states: SourceStates, notes: list[Adapted]) -> None:
    states.failed("a", GONE, 100.0)
    assert states.rest("a", 100.0) == (130.0, "source a is suspended: address is gone")
    assert states.rest("b", 100.0) == (0.0, "")
    assert (states.usable("a"), states.usable("b")) == (False, True)
    assert [(note.path, note.knob, note.after) for note in notes] == [("a", "source", SUSPEND_SECONDS_FIRST)]
    assert repr(states) == "<SourceStates of 2, suspended: a>"


def test_those_that_were_on_their_way_count_once(states: SourceStates, notes: list[Adapted]) -> None:
    for now in (100.0, 100.1, 129.0):
        states.failed("a", GONE, now)
    assert states.rest("a", 100.0)[0] == 130.0
    assert len(notes) == 1


def test_it_rests_until_a_probe_has_found_it(states: SourceStates, notes: list[Adapted]) -> None:
    states.failed("a", GONE, 100.0)
    assert states.due(129.0) == []
    assert states.due(130.0) == [A]
    assert states.rest("a", 500.0)[0] > 500.0
    states.found("a")
    assert states.rest("a", 500.0) == (0.0, "")
    assert states.due(500.0) == []
    assert notes[-1].reason == "source a is there again"


def test_each_failure_that_follows_doubles_the_rest(states: SourceStates) -> None:
    now, rests = 0.0, []
    for _ in range(8):
        states.failed("a", GONE, now)
        rests.append(states.rest("a", now)[0] - now)
        now += rests[-1]
        states.found("a")  # a proxy that greets, and then lets nobody through
    assert rests == [30.0, 60.0, 120.0, 240.0, 480.0, *[SUSPEND_SECONDS_MAX] * 3]


def test_a_connection_that_became_ready_forgets_it_all(states: SourceStates, notes: list[Adapted]) -> None:
    states.works("a")
    assert not notes
    states.failed("a", GONE, 0.0)
    states.failed("a", GONE, 30.0)
    states.works("a")
    assert states.rest("a", 31.0) == (0.0, "")
    states.failed("a", GONE, 40.0)
    assert states.rest("a", 40.0)[0] == 70.0


def test_rows_tell_an_operator(states: SourceStates) -> None:
    states.failed("b", GONE, 0.0)
    states.remark({"a": ("no PTR record",)})
    first, second = states.rows(10.0)
    assert (first["suspended_seconds"], first["findings"]) == (0.0, ["no PTR record"])
    assert (second["suspended_seconds"], second["proxy"]) == (20.0, "socks5://127.0.0.1:1080")
    assert second["suspended_why"].endswith("address is gone")
    assert "secret" not in str(second)
