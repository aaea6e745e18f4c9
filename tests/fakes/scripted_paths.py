"""Sites and domains that do what a test says, started by a real scheduler on a jumping clock.

`PathHouse` runs one scheduler under a supervisor. In the place of site and domain actors come scripted
ones, which only register: the test reads their mailboxes and tells the scheduler what they would.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from engine.actors import domain as domain_actor
from engine.actors import site as site_actor
from engine.actors.messages import Credit, GiveBack, Leased, Offer, Queued, Routed, Unroutable
from engine.actors.parts import Parts
from engine.actors.path import path_key
from engine.actors.scheduler import scheduler
from engine.model.content import Content
from engine.mta.net.mx import Route
from engine.mta.spool.api import QueueEntry
from engine.runtime.spec import ChildSpec, Context, SupervisorSpec
from engine.runtime.supervisor import Tree
from tests.fakes.engine_house import Desk, accepted, alive, host_route, memory_parts
from tests.fakes.trees import Crashes, running_tree, until_quiet


class PathHouse:
    """`sites` and `domains` by name; `started` is every start in order."""

    def __init__(self, parts: Parts, tree: Tree) -> None:
        self.parts = parts
        self.tree = tree
        self.ref = tree.ref("scheduler")
        self.sites: dict[str, Context[Any]] = {}
        self.domains: dict[str, Context[Any]] = {}
        self.started: list[str] = []
        self.seen: dict[str, int] = {}
        self.urgent = 0  # of the ids that `offers` returned last
        self._leave: dict[str, trio.Event] = {}

    def start(self, registry: dict[str, Context[Any]]) -> Any:
        async def start(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
            registry[context.name] = context
            self.started.append(context.name)
            self.seen[context.name] = 0
            leave = self._leave[context.name] = trio.Event()
            task_status.started()
            try:
                async with trio.open_nursery() as nursery:
                    for event in (leave, context.stop):
                        nursery.start_soon(_cancel_at, event, nursery.cancel_scope)
                    await trio.sleep_forever()
            finally:
                del registry[context.name]

        return start

    async def tell(self, *messages: Any) -> None:
        for message in messages:
            await self.ref.tell(message)
        await until_quiet()

    async def accept(self, *recipients: str, **content: Any) -> list[int]:
        """Into the spool and to the scheduler, as returned envelopes come."""
        ids = await accepted(self.parts, recipients, **content)
        wanted = set(ids)
        entries = tuple(entry for entry in self.parts.spool.queued() if entry.spool_id in wanted)
        await self.tell(Queued(entries))
        return ids

    async def queue(self, *entries: tuple[int, int, str]) -> None:
        """(id, campaign, domain): ids that no spool needs to know."""
        await self.tell(Queued(tuple(QueueEntry(*entry) for entry in entries)))

    async def write(self, *contents: Content) -> None:
        """Contents of campaigns whose envelopes are only queued."""
        for content in contents:
            await self.parts.spool.put_content(content, 0.0)

    async def route(
        self, domain: str, site: str = "mx.test", ttl_seconds: float = 3600.0, *, lane: str = ""
    ) -> str:
        """The domain actor finds a route and ends. Returns the path's key; `lane`: a path for itself."""
        base = host_route("127.0.0.1", 25, site)
        route = Route(base.site, base.hosts, ttl_seconds)
        self.ref.try_tell(Routed(domain, route))
        await self.leave(domain)
        return path_key(self.parts.sources[0], site, lane)

    async def leave(self, name: str) -> None:
        self._leave[name].set()
        await until_quiet()

    async def credit(self, path: str, places: int) -> list[int]:
        """A site says how much room it has; what it is offered then."""
        await self.tell(Credit(path, places, self.seen[path]))
        return self.offers(path)

    def offers(self, path: str) -> list[int]:
        """Ids offered since the last look."""
        ids: list[int] = []
        self.urgent = 0
        registry = self.domains if path in self.domains else self.sites
        while (message := registry[path].mailbox.get_nowait()) is not None:
            if isinstance(message, Offer):
                ids += message.ids
                self.urgent += message.urgent
        self.seen[path] += len(ids)
        return ids

    async def leased(self, path: str, ids: list[int]) -> None:
        await self.tell(Leased(((path, ids),)))

    async def give_back(self, path: str, ids: list[int]) -> None:
        await self.tell(GiveBack(path, ids))

    async def unroutable(self, domain: str, places: int, retry_after: float | None) -> None:
        retry_at = None if retry_after is None else trio.current_time() + retry_after
        ref = self.domains[domain].ref
        await self.tell(Unroutable(domain, domain_actor.path_key(domain), ref, places, retry_at))

    async def crash(self) -> None:
        self.tree.kill("scheduler")
        await until_quiet()


async def _cancel_at(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


@asynccontextmanager
async def path_house(monkeypatch: pytest.MonkeyPatch, **engine: Any) -> AsyncIterator[PathHouse]:
    parts, desk = memory_parts(**engine), Desk()
    start = scheduler(parts)

    async def at_desk(context: Context[Any], task_status: trio.TaskStatus[None]) -> None:
        context.peer = desk.peer
        await start(context, task_status)

    house: PathHouse
    monkeypatch.setattr(site_actor, "site", lambda *_: house.start(house.sites))
    monkeypatch.setattr(domain_actor, "domain", lambda *_: house.start(house.domains))
    spec = SupervisorSpec("root", (ChildSpec("scheduler", at_desk, mailbox_capacity=10_000),))
    async with alive(parts, "sites", "domains"), running_tree(spec, on_crash=Crashes()) as tree:
        house = PathHouse(parts, tree)
        yield house
