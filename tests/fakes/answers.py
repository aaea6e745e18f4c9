"""A resolver for tests of policies: answers from a table, no socket. What is not in it is securely not there.

Stands where `engine.mta.net.resolver.Resolver` does, for those who ask for records and host addresses.
`asked` keeps the questions; a `hold` lets answers wait until the test sets it.
"""

import trio
from dns.rdatatype import RdataType

from engine.model.tls import TlsaRecord
from engine.mta.net.dns_message import Answer, AnswerKind, failed
from engine.mta.net.mx import Addresses
from engine.mta.net.resolver import ResolverConfig

TTL_SECONDS = 3_600.0
NOTHING = Answer(AnswerKind.NXDOMAIN, TTL_SECONDS, secure=True)


class FakeAnswers:
    def __init__(self) -> None:
        self.config = ResolverConfig(servers=(("127.0.0.1", 53),))
        self.answers: dict[tuple[str, RdataType], Answer] = {}
        self.hosts: dict[str, Addresses] = {}
        self.asked: list[tuple[str, str]] = []
        self.known: set[tuple[str, RdataType]] = set()
        self.hold: trio.Event | None = None

    async def ask(self, name: str, rdtype: RdataType) -> tuple[Answer, float]:
        self.asked.append((name, rdtype.name))
        self.known.add((name, rdtype))
        await trio.lowlevel.checkpoint()
        if self.hold is not None:
            await self.hold.wait()
        answer = self.answers.get((name, rdtype), NOTHING)
        return answer, answer.ttl_seconds

    def knows(self, name: str, rdtype: RdataType) -> bool:
        return (name, rdtype) in self.known

    async def host_addresses(self, name: str) -> Addresses:
        await trio.lowlevel.checkpoint()
        return self.hosts.get(name, Addresses(("192.0.2.1",), TTL_SECONDS, secure=True))

    def text(self, name: str, *texts: bytes, ttl_seconds: float = TTL_SECONDS) -> None:
        answer = Answer(AnswerKind.FOUND, ttl_seconds, texts=texts) if texts else NOTHING
        self.answers[name, RdataType.TXT] = answer

    def tlsa(
        self, name: str, *records: TlsaRecord, ttl_seconds: float = TTL_SECONDS, secure: bool = True
    ) -> None:
        self.answers[name, RdataType.TLSA] = Answer(
            AnswerKind.FOUND, ttl_seconds, tlsa=records, secure=secure
        )

    def fail(self, name: str, rdtype: RdataType) -> None:
        self.answers[name, rdtype] = failed("server answered SERVFAIL")
