"""What events tell of a run: outcomes, finishes by provider, knobs summed over a provider's paths."""

from bench.world_watch import Watch
from engine.model.event import Adapted, Bounced, ChunkAccepted, Deferred, Delivered, EventBatch

PROVIDERS = {"a.test": "alpha", "b.test": "beta"}


def attempt(kind, domain, site):
    return kind(1, 1, 1, domain, 1, "rcpt", "", "", "", site, "ip1", "mx", "", 0.1)


def watched(*batches):
    watch = Watch(PROVIDERS, began=100.0)
    for at, *events in batches:
        watch.add(EventBatch("bench", "e", 1, at, "bench", tuple(events)))
    return watch


def test_only_final_outcomes_finish_an_envelope():
    watch = watched(
        (101.0, ChunkAccepted(1, "c", 2), attempt(Deferred, "a.test", "s1")),
        (102.5, attempt(Delivered, "a.test", "s1"), attempt(Bounced, "b.test", "s2")),
        (104.0, attempt(Delivered, "a.test", "s1")),
    )
    assert watch.finished == 3
    assert watch.outcomes == {"deferred": 1, "delivered": 2, "bounced": 1}
    assert watch.finish_seconds == {"alpha": 4.0, "beta": 2.5}


def test_changes_of_a_path_become_steps_of_its_provider_even_if_they_come_first():
    watch = watched(
        (101.0, Adapted("ip1>s1", "", "connections", 2.0, 4.0, "room")),
        (102.0, Adapted("ip1>s2", "", "connections", 2.0, 3.0, "room")),
        (103.0, Adapted("ip1>s1", "", "connections", 4.0, 1.0, "421")),
        (103.0, Adapted("ip1>s1", "", "rate", None, 50.0, "451")),
        (103.5, Adapted("ip1>elsewhere", "", "rate", None, 1.0, "451")),
        (104.0, attempt(Delivered, "a.test", "s1"), attempt(Delivered, "a.test", "s2")),
    )
    assert watch.steps("connections") == {"alpha": [(0.0, 2.0), (1.0, 4.0), (2.0, 7.0), (3.0, 4.0)]}
    assert watch.steps("rate") == {"alpha": [(0.0, None), (3.0, 50.0)]}


def test_one_path_without_a_limit_leaves_its_provider_without():
    watch = watched(
        (101.0, Adapted("ip1>s1", "", "rate", 1.0, 4.0, "room")),
        (102.0, Adapted("ip1>s2", "", "rate", 9.0, None, "room")),
        (104.0, attempt(Delivered, "a.test", "s1"), attempt(Delivered, "a.test", "s2")),
    )
    assert watch.steps("rate")["alpha"][-1] == (2.0, None)


def test_rests_and_reasons_are_told_by_provider():
    watch = watched(
        (101.0, Adapted("ip1>s1", "google", "rest", None, 900.0, "blocked", "r7")),
        (102.0, Adapted("ip1>s1", "google", "breaker", None, None, "open")),
        (104.0, attempt(Delivered, "a.test", "s1")),
    )
    assert watch.rests() == {"alpha": [(1.0, 900.0)]}
    first, second = watch.told()
    assert (first["provider"], first["knob"], first["rule"]) == ("alpha", "rest", "r7")
    assert (second["seconds"], second["reason"]) == (2.0, "open")
