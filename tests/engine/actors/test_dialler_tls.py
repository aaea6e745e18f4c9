"""What the recipients' side demands of TLS, met and missed, over real sockets."""

import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from bench.world import receiver
from bench.world.manners import Manners, Starttls
from engine.actors import dialler as dialler_module
from engine.actors.dialler import Crowded, Dialler, Reached, requiretls_problem
from engine.actors.tls_results import utc_day
from engine.config.shaping import TlsPolicy
from engine.model.reply import FailureKind, Reply, TransportFailure
from engine.model.tls import HostDemand, HostTls, PolicyKind, TlsDemand
from engine.model.tls_result import PolicyResults, TlsResult
from engine.mta.net.tls import TlsContexts
from engine.mta.proto.smtp_capabilities import Capabilities
from tests.fakes.certificates import DAY, Identity, make
from tests.fakes.engine_house import letter
from tests.fakes.smtp_line import Line, open_line

pytestmark = pytest.mark.slow  # real sockets, processes or password hashes: a second in all

HOST = "mx.plain.test"
# OpenSSL goes by the real clock, DANE by the engine's, which stands in 2023 here.
START = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
END = datetime.datetime.now(datetime.UTC) + DAY
ROOT = make("root", ca=True, starts=START, ends=END)
GOOD = make("leaf", ROOT, names=(HOST,), starts=START, ends=END)
OLD = make("old", ROOT, names=(HOST,), starts=START, ends=START + DAY)
OTHER = make("other", ROOT, names=("other.test",), starts=START, ends=END)
STRANGER = make("stranger", names=(HOST,), starts=START, ends=END)

VERIFIED = HostDemand(HostTls.VERIFIED, (HOST,))
ENCRYPTED = HostDemand(HostTls.ENCRYPTED)
REFUSED = HostDemand(HostTls.REFUSED, why="not in the policy")
_numbers = count()

Outcome = Reached | Reply | TransportFailure | Crowded | None


@asynccontextmanager
async def line_to(
    identity: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starttls: Starttls = Starttls.OFFERED
) -> AsyncIterator[Line]:
    """A receiver with this certificate, in the eyes of an engine that trusts ROOT."""
    context = identity.server_context()
    monkeypatch.setattr(receiver, "self_signed_context", lambda: context)
    async with open_line(Manners(starttls=starttls)) as line:
        line.parts.tls_contexts = TlsContexts(ROOT.pem_file(tmp_path))
        yield line


def demanding(line: Line, host: HostDemand | None, kind: PolicyKind, *, enforced: bool = True) -> None:
    hosts = {} if host is None else {HOST: host}
    demand = TlsDemand("lane", kind, enforced, hosts, ("version: STSv1",))
    line.route = replace(line.route, demand=demand)


async def connect(line: Line) -> tuple[Outcome, PolicyResults | None]:
    """What comes of a dial, and what is counted of it for one domain."""
    dialler = Dialler(line.parts, line.memory, line.source, trio.Event())
    with trio.fail_after(10):
        reached = await dialler.connect(line.route)
    if isinstance(reached, Reached):
        reached.close()
    domain = f"d{next(_numbers)}.test"
    dialler.tally.counted(domain)
    policies = line.parts.tls_results.of(utc_day(line.parts.clock.now()), domain).policies
    return reached, policies[0] if policies else None


@pytest.mark.parametrize("shaping", list(TlsPolicy))
@pytest.mark.parametrize(
    ("demand", "kind", "told"),
    [
        (VERIFIED, PolicyKind.STS, "verified sts"),
        (HostDemand(HostTls.DANE, (HOST,), (GOOD.tlsa(3),)), PolicyKind.DANE, "verified dane"),
        (HostDemand(HostTls.DANE, (HOST,), (ROOT.tlsa(2),)), PolicyKind.DANE, "verified dane"),
    ],
)
async def test_a_demand_that_is_met(
    demand: HostDemand,
    kind: PolicyKind,
    told: str,
    shaping: TlsPolicy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with line_to(GOOD, tmp_path, monkeypatch) as line:
        line.memory.shaping = replace(line.memory.shaping, tls=shaping)
        demanding(line, demand, kind)
        reached, counted = await connect(line)
        assert isinstance(reached, Reached)
        assert reached.client.tls.endswith(told)
        assert reached.authenticated
        assert counted is not None
        assert (counted.successful, counted.failed) == (1, 0)
        assert line.parts.remote_addresses.count(reached.address) == 1, "the line's own connection"


async def test_dane_by_name_is_no_matter_to_an_end_entity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with line_to(OLD, tmp_path, monkeypatch) as line:
        demanding(line, HostDemand(HostTls.DANE, (HOST,), (OLD.tlsa(3),)), PolicyKind.DANE)
        reached, _ = await connect(line)
        assert isinstance(reached, Reached)


async def test_encrypted_means_whoever_answers_in_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with line_to(STRANGER, tmp_path, monkeypatch) as line:
        demanding(line, ENCRYPTED, PolicyKind.DANE)
        reached, counted = await connect(line)
        assert isinstance(reached, Reached)
        assert reached.client.tls
        assert not reached.authenticated
        assert counted is not None
        assert counted.failures[0].result is TlsResult.TLSA_INVALID


MISSED = [
    (OLD, Starttls.OFFERED, VERIFIED, PolicyKind.STS, TlsResult.EXPIRED),
    (OTHER, Starttls.OFFERED, VERIFIED, PolicyKind.STS, TlsResult.HOST_MISMATCH),
    (STRANGER, Starttls.OFFERED, VERIFIED, PolicyKind.STS, TlsResult.NOT_TRUSTED),
    (GOOD, Starttls.ABSENT, VERIFIED, PolicyKind.STS, TlsResult.STARTTLS_NOT_SUPPORTED),
    (GOOD, Starttls.UNAVAILABLE, VERIFIED, PolicyKind.STS, TlsResult.STARTTLS_NOT_SUPPORTED),
    (GOOD, Starttls.GARBLED, VERIFIED, PolicyKind.STS, TlsResult.VALIDATION_FAILURE),
    (GOOD, Starttls.ABSENT, ENCRYPTED, PolicyKind.DANE, TlsResult.STARTTLS_NOT_SUPPORTED),
    (GOOD, Starttls.OFFERED, REFUSED, PolicyKind.STS, TlsResult.VALIDATION_FAILURE),
    (GOOD, Starttls.OFFERED, REFUSED, PolicyKind.DANE, TlsResult.DNSSEC_INVALID),
    (GOOD, Starttls.OFFERED, None, PolicyKind.STS, TlsResult.VALIDATION_FAILURE),
    (
        GOOD,
        Starttls.OFFERED,
        HostDemand(HostTls.DANE, (HOST,), (OLD.tlsa(3),)),
        PolicyKind.DANE,
        TlsResult.VALIDATION_FAILURE,
    ),
    (
        OTHER,
        Starttls.OFFERED,
        HostDemand(HostTls.DANE, (HOST,), (ROOT.tlsa(2),)),
        PolicyKind.DANE,
        TlsResult.HOST_MISMATCH,
    ),
    (
        OLD,
        Starttls.OFFERED,
        HostDemand(HostTls.DANE, (HOST,), (ROOT.tlsa(2),)),
        PolicyKind.DANE,
        TlsResult.EXPIRED,
    ),
]


@pytest.mark.parametrize(("identity", "starttls", "demand", "kind", "result"), MISSED)
async def test_a_demand_that_is_missed_never_falls_back(
    identity: Identity,
    starttls: Starttls,
    demand: HostDemand | None,
    kind: PolicyKind,
    result: TlsResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with line_to(identity, tmp_path, monkeypatch, starttls) as line:
        demanding(line, demand, kind)
        line.memory.tls_broken_until[HOST] = trio.current_time() + 3_600
        reached, counted = await connect(line)
        assert isinstance(reached, TransportFailure)
        assert (reached.kind, reached.tls) == (FailureKind.TLS, result)
        assert HOST in reached.detail
        assert counted is not None
        assert (counted.successful, counted.failed) == (0, 1)
        assert [each.result for each in counted.failures] == [result]
        (address,) = line.route.hosts[-1].addresses
        assert line.parts.remote_addresses.count(address) <= 1


@pytest.mark.parametrize(("identity", "starttls", "demand", "kind", "result"), MISSED)
async def test_in_testing_a_demand_that_is_missed_is_counted_and_the_mail_goes(
    identity: Identity,
    starttls: Starttls,
    demand: HostDemand | None,
    kind: PolicyKind,
    result: TlsResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with line_to(identity, tmp_path, monkeypatch, starttls) as line:
        demanding(line, demand, kind, enforced=False)
        reached, counted = await connect(line)
        assert isinstance(reached, Reached)
        assert bool(reached.client.tls) == (starttls is Starttls.OFFERED)
        assert not reached.authenticated
        assert counted is not None
        assert (counted.successful, counted.failed) == (0, 1)
        assert [each.result for each in counted.failures] == [result]


async def test_a_host_that_is_refused_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with line_to(GOOD, tmp_path, monkeypatch) as line:
        (host,) = line.route.hosts
        first = replace(host, name="first.plain.test", preference=0)
        demand = TlsDemand("lane", PolicyKind.STS, True, {first.name: REFUSED, HOST: VERIFIED})
        line.route = replace(line.route, hosts=(first, host), demand=demand)
        reached, counted = await connect(line)
        assert isinstance(reached, Reached)
        assert reached.host.name == HOST
        assert counted is not None
        assert (counted.successful, counted.failed) == (1, 1)


async def test_the_second_session_resumes_and_another_demand_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with line_to(GOOD, tmp_path, monkeypatch) as line:
        for demand, kind in (
            (VERIFIED, PolicyKind.STS),
            (HostDemand(HostTls.DANE, (HOST,), (GOOD.tlsa(3),)), PolicyKind.DANE),
        ):
            demanding(line, demand, kind)
            told = []
            for _ in range(2):
                reached, _ = await connect(line)
                assert isinstance(reached, Reached)
                told.append(reached.client.tls.split()[-1])
            assert told == [told[0], "resumed"] != ["resumed", "resumed"]
        assert line.parts.tls_sessions.resumed == 2
        assert line.parts.tls_kinds["verified"] >= 4  # the line makes one of its own


async def test_a_session_that_is_not_wanted_again_is_forgotten_and_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with line_to(GOOD, tmp_path, monkeypatch) as line:
        demanding(line, VERIFIED, PolicyKind.STS)
        await connect(line)
        monkeypatch.setattr(receiver, "self_signed_context", STRANGER.server_context)
        reached, counted = await connect(line)
        assert isinstance(reached, TransportFailure), "its certificate is another now, and is looked at"
        assert counted is not None
        assert counted.failed == 1


async def test_a_stop_in_the_handshake_leaves_no_place_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with line_to(GOOD, tmp_path, monkeypatch) as line:
        (address,) = line.route.hosts[0].addresses
        await line.send(["a@plain.test"])
        await line.settled(1)
        before = line.parts.remote_addresses.count(address)

        async def stuck(*arguments: object) -> None:
            await trio.sleep_forever()

        monkeypatch.setattr(Dialler, "_shake_hands", stuck)
        with trio.move_on_after(0.1):
            await Dialler(line.parts, line.memory, line.source, trio.Event()).connect(line.route)
        assert line.parts.remote_addresses.count(address) == before


async def test_an_address_with_as_many_as_it_may_have_is_passed_over() -> None:
    async with open_line(engine={"connections_per_address": 1}) as line:
        (host,) = line.route.hosts
        await line.send(["a@plain.test"])
        await line.settled(1)  # the line's own connection stands
        dialler = Dialler(line.parts, line.memory, line.source, trio.Event())
        crowded = await dialler.connect(line.route)
        assert crowded == Crowded(1, 1)
        assert str(crowded) == "all 1 addresses of the site have 1 connections of ours"
        line.memory.hasty = True
        reached = await dialler.connect(line.route)
        assert isinstance(reached, Reached)
        assert line.parts.remote_addresses.count(host.addresses[0]) == 2
        reached.close()
        reached.close()
        assert line.parts.remote_addresses.count(host.addresses[0]) == 1


async def test_tls_required_on_the_whole_way_needs_tls_a_proof_and_a_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = replace(letter(), require_tls=True)
    async with line_to(GOOD, tmp_path, monkeypatch) as line:
        reached, _ = await connect(line)
        assert isinstance(reached, Reached)
        assert requiretls_problem(letter(), reached) == ""
        assert "is not proven" in requiretls_problem(content, reached)
        demanding(line, VERIFIED, PolicyKind.STS)
        reached, _ = await connect(line)
        assert isinstance(reached, Reached)
        assert requiretls_problem(content, reached) == (
            f"550 5.7.30 the message requires TLS on its whole way, and {HOST} does not offer REQUIRETLS"
        )
        reached.client._handshake.capabilities = Capabilities(require_tls=True)
        assert requiretls_problem(content, reached) == ""
        reached.client.tls = ""
        assert "speaks no TLS" in requiretls_problem(content, reached)


async def test_a_broken_ticket_is_tried_without_before_anybody_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with line_to(GOOD, tmp_path, monkeypatch) as line:
        await connect(line)
        shake_hands = dialler_module.Dialler._shake_hands
        tries = []

        async def choosy(self: Dialler, session, client, terms, name):  # type: ignore[no-untyped-def]
            tries.append(terms.session is not None)
            if terms.session is not None:
                terms = replace(terms, context=None)  # what a bad session does to some peers: it fails
                failure = TransportFailure(FailureKind.TLS, dialler_module.Verb.TLS, "bad ticket")
                return dialler_module._Trouble(failure, dialler_module.Verb.TLS)
            return await shake_hands(self, session, client, terms, name)

        monkeypatch.setattr(Dialler, "_shake_hands", choosy)
        reached, _ = await connect(line)
        assert isinstance(reached, Reached)
        assert tries == [True, False]
        assert not line.memory.tls_broken_until
