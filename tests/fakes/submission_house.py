"""A submission worker for tests: real sockets on loopback, a bus in memory, accounts in a folder.

`running_worker` runs `services.submission.worker.serve` over a certificate of a private authority and
yields a `SubmissionHouse`: where it listens, its bus, what stands on the stream. `talk` runs a function
with a connected `smtplib` client in a thread, so that nothing of the client shares the server's loop.
"""

import smtplib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import trio

from bench.peers.certificate import Authority
from engine.config.tables import Config, KeysTable, NodeTable
from engine.config.units import HostPort
from engine.model.content import DkimAlgorithm
from engine.model.single import SubmitSingle, decode_single
from services.submission.accounts import Account, hash_password, write_accounts
from services.submission.answers import Desk
from services.submission.config import DkimRule, DomainRule, SubmissionTable
from services.submission.worker import serve
from tests.fakes.memory_bus import MemoryBus

PASSWORD = "correct horse"
DOMAIN = "shop.test"
NODE = "node"
STREAM = f"chunks.{NODE}.single"
RULE = DomainRule(
    name=DOMAIN,
    return_path=f"bounce.{DOMAIN}",
    dkim=(DkimRule(key="test", selector="s1", algorithm=DkimAlgorithm.ED25519_SHA256),),
)
Said = TypeVar("Said")


@cache
def password_hash() -> str:
    return hash_password(PASSWORD)


def an_account(**changes: Any) -> Account:
    facts: dict[str, Any] = {"name": "ann", "password": password_hash(), "domains": (DOMAIN,)}
    return Account(**(facts | {"workspace": "shop"} | changes))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def furnish(folder: Path, **changes: Any) -> SubmissionTable:
    """Certificate, accounts and the table that names them."""
    authority = Authority("Submission Test Authority")
    authority.write_root(folder / "root.pem")
    certificate, key = authority.issue("localhost", "127.0.0.1").write(folder)
    write_accounts(folder / "accounts.json", {"ann": an_account()})
    facts: dict[str, Any] = {
        "listen": (HostPort.parse(f"127.0.0.1:{free_port()}"),),
        "listen_tls": (HostPort.parse(f"127.0.0.1:{free_port()}"),),
        "hostname": "mail.shop.test",
        "tls_cert": str(certificate),
        "tls_key": str(key),
        "accounts": str(folder / "accounts.json"),
        "domain": (RULE,),
    }
    return SubmissionTable(**(facts | changes))


class SubmissionHouse:
    """One running worker."""

    def __init__(self, folder: Path, table: SubmissionTable, bus: MemoryBus, desk: Desk, stop: trio.Event):
        self.folder = folder
        self.table = table
        self.bus = bus
        self.desk = desk
        self.stop = stop
        self.context = ssl.create_default_context(cafile=str(folder / "root.pem"))

    def __repr__(self) -> str:
        return f"<SubmissionHouse {self.desk!r}>"

    @property
    def place(self) -> HostPort:
        return self.table.listen[0]

    def singles(self) -> list[SubmitSingle]:
        found = [decode_single(payload) for payload in self.bus.streams.get(STREAM, [])]
        return [each for each in found if isinstance(each, SubmitSingle)]

    async def talk(
        self, say: Callable[[smtplib.SMTP], Said], *, log_in: bool = True, implicit: bool = False
    ) -> Said:
        """What `say` returns, run in a thread with a connected client."""

        def run() -> Said:
            if implicit:
                place = self.table.listen_tls[0]
                client: smtplib.SMTP = smtplib.SMTP_SSL(
                    place.host, place.port, timeout=20, context=self.context
                )
            else:
                client = smtplib.SMTP(self.place.host, self.place.port, timeout=20)
                client.starttls(context=self.context)
            try:
                if log_in:
                    client.login("ann", PASSWORD)
                return say(client)
            finally:
                client.close()

        return await trio.to_thread.run_sync(run)


@asynccontextmanager
async def running_worker(folder: Path, **changes: Any) -> AsyncIterator[SubmissionHouse]:
    table = furnish(folder, **changes)
    bus, stop = MemoryBus(f"{NODE}.submission-1"), trio.Event()
    config = Config(node=NodeTable(name=NODE), keys=KeysTable(folder=str(folder)))
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[Desk]) -> None:
            await serve(config, table, 1, stop, bus=bus, task_status=task_status)

        desk = await nursery.start(run)
        try:
            yield SubmissionHouse(folder, table, bus, desk, stop)
        finally:
            stop.set()
