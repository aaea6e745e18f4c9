"""The keeper probes what is due, and one dead proxy holds up nobody; our names are checked beside it."""

from typing import Any

import trio
from trio.testing import MockClock

from engine.actors.source_keeper import source_keeper
from engine.model.egress import Source
from engine.model.reply import FailureKind, TransportFailure, Verb
from engine.mta.net.dns_message import Answer, AnswerKind
from engine.runtime.mailbox import Mailbox
from engine.runtime.spec import Context
from tests.fakes.engine_house import FakeResolver, memory_parts

GONE = TransportFailure(FailureKind.SOURCE, Verb.CONNECT, "gone")
A, B = Source("a", "a.test"), Source("b", "b.test")


class Prober:
    """Sources in `gone` fail; one in `silent` never answers."""

    def __init__(self) -> None:
        self.gone: set[str] = set()
        self.silent: set[str] = set()
        self.asked: list[str] = []

    async def __call__(self, source: Source, timeout_seconds: float) -> TransportFailure | None:
        self.asked.append(source.name)
        await trio.sleep(timeout_seconds if source.name in self.silent else 0)
        return GONE if source.name in self.gone | self.silent else None


async def test_a_source_comes_back_when_its_probe_finds_it(autojump_clock: MockClock) -> None:
    parts, prober = memory_parts(sources=(A, B)), Prober()
    stop = trio.Event()
    prober.gone, prober.silent = {"a"}, {"b"}
    async with trio.open_nursery() as nursery:
        context: Context[Any] = Context("sources", Mailbox("sources", 1), stop=stop)
        await nursery.start(source_keeper(parts, prober), context)
        start = trio.current_time()
        for source in (A, B):
            parts.source_states.failed(source.name, GONE, start)
        await trio.sleep(29)
        assert not prober.asked
        await trio.sleep(5)
        assert sorted(prober.asked) == ["a", "b"]
        assert parts.source_states.rest("a", trio.current_time())[0] > start + 80  # longer this time
        prober.gone.clear()
        await trio.sleep(90)
        assert parts.source_states.usable("a")
        assert not parts.source_states.usable("b")
        stop.set()
    assert [noted.change.path for noted in parts.changes].count("a") == 3


async def test_what_dns_says_of_our_names_is_remarked(autojump_clock: MockClock) -> None:
    class NoNames(FakeResolver):
        async def ask(self, name: str, rdtype: object) -> tuple[Answer, float]:
            await trio.sleep(1)
            return Answer(AnswerKind.FAILED, detail="server failure"), 5.0

    parts = memory_parts(sources=(A, Source("out", "out.test", "11.22.33.44")))
    parts.resolver = NoNames()  # type: ignore[assignment]
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            source_keeper(parts, Prober()), Context("sources", Mailbox("sources", 1), stop=stop)
        )
        assert trio.current_time() < 0.5  # the start does not wait for it
        await trio.sleep(2)
        stop.set()
    rows = {row["source"]: row["findings"] for row in parts.source_states.rows(0.0)}
    assert rows["a"] == []
    assert "server failure" in rows["out"][0]
