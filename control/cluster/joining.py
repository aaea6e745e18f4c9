"""A machine joins: makes its own keys, asks the hub with a code, and writes the folder it will run from.

Keys are made first and kept, so a join that failed half-way is repeated with the same command and the hub
sees the same machine. Private keys never leave the folder. `emass.toml` is written last: where it is, the
join was done. The server is known by the certificate whose SHA-256 the code carries, before anything is said
to it.

Touches: the folder; two connections to the bus. Raises JoinError, one line with the cure; what the hub
refuses is said in its words.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import trio
from msgspec import Struct

from control.cluster.authority import CERTIFICATE_FILE, fingerprint_of
from control.cluster.join_code import JoinCode
from control.cluster.join_words import (
    SKEW_WARN_SECONDS,
    JoinAnswer,
    JoinRequest,
    decode_answer,
    encode_request,
    skew_words,
)
from control.cluster.knock import Answer, knock
from control.cluster.node_file import filled_default, toml_value, with_settings
from control.cluster.node_keys import make_keys, read_applicant
from control.cluster.registry import Applicant, NodeRole, member_name
from control.cluster.roles import JOIN_SUBJECT
from engine.bus.api import NoAnswer
from engine.bus.nats import NatsBus
from engine.config import ConfigError, KeysTable, NodeTable
from engine.keyring import KeyringError, replace_file
from engine.observe.version import own_version
from engine.sealing import NODE_BOX, load_boxes, tokens_bound
from engine.token_ring import decode_ring, save_ring

CONFIG_FILE = "emass.toml"
LATE_SECONDS = 3.0  # a server reads of a new code a moment after it was made
LATE_PAUSE_SECONDS = 0.2
ANSWER_SECONDS = 20.0  # the hub writes, reloads its server and seals keys before it answers


class JoinError(Exception):
    """The machine has not joined; the message says why and what would help."""


class Joined(Struct, frozen=True):
    """What came of it."""

    config: Path
    answer: JoinAnswer
    skew_seconds: float  # of this machine's clock, from the hub's


class Plan(Struct, frozen=True):
    """What the node's own file is to say."""

    sources: tuple[str, ...] = ()  # addresses that mail leaves from
    ehlo_name: str = ""
    settings: tuple[tuple[str, str, str], ...] = ()  # table, key, value as TOML


def join(folder: Path, code: JoinCode, plan: Plan, wall: Callable[[], float]) -> Joined:
    """Join the cluster that the code is of; `folder` holds the node afterwards. Raises JoinError."""
    config = folder / CONFIG_FILE
    if config.exists():
        raise JoinError(f"{config}: exists already; nothing was done (join with another folder)")
    try:
        node_text(code.node, (str(code.server),), 1, plan)  # a mistake in it is found before the code is used
        keys = make_keys(folder, NodeRole.BROADCASTER)
        certificate = _meet(code)
        replace_file(keys / CERTIFICATE_FILE, certificate)
        applicant = read_applicant(keys, code.node)
        answer, skew = trio.run(_ask, code, keys / CERTIFICATE_FILE, applicant, wall)
        if answer.error:
            raise JoinError(answer.error)
        _keep(keys, answer)
        text = node_text(code.node, answer.servers or (str(code.server),), answer.replicas, plan)
        (folder / NodeTable().data).mkdir(mode=0o700, exist_ok=True)
        replace_file(config, text.encode())
    except (ConfigError, KeyringError) as error:
        raise JoinError(str(error)) from error
    except OSError as error:
        raise JoinError(f"{error.filename or folder}: cannot be written: {error.strerror}") from error
    return Joined(config, answer, skew)


def _keep(keys: Path, answer: JoinAnswer) -> None:
    """Keep what the hub gave. Raises KeyringError."""
    fingerprint_of(answer.certificate, "the hub's answer")
    opened = load_boxes(keys / NODE_BOX).open(answer.ring, tokens_bound(answer.node))
    save_ring(keys / KeysTable().ring, decode_ring(opened, "the hub's answer"))
    replace_file(keys / CERTIFICATE_FILE, answer.certificate)


# --- the hub -----------------------------------------------------------------------------------------------


def _meet(code: JoinCode) -> bytes:
    """The certificate of the right server, in PEM. Raises JoinError."""
    end = time.monotonic() + LATE_SECONDS
    came = knock(code.server.host, code.server.port, code.seed, code.fingerprint)
    while came.answer is Answer.REFUSED and time.monotonic() < end:
        time.sleep(LATE_PAUSE_SECONDS)
        came = knock(code.server.host, code.server.port, code.seed, code.fingerprint)
    match came.answer:
        case Answer.LET_IN:
            return came.certificate
        case Answer.UNREACHABLE:
            raise JoinError(
                f"the bus at {code.server} cannot be reached ({came.detail}): is the hub up (`emass up`),"
                " and does a firewall let this machine reach that port?"
            )
        case Answer.NO_BUS:
            raise JoinError(f"{code.server} is not the bus of a cluster: {came.detail}")
        case Answer.OTHER_CERTIFICATE:
            raise JoinError(
                f"the bus at {code.server} shows another certificate than this code was made for: it is"
                " another cluster, or somebody is in between; make a new code with `emass node add` on the"
                " right hub"
            )
        case Answer.REFUSED:
            raise JoinError(
                f"the bus at {code.server} does not know this join code: it was taken back, or is long over;"
                " make a new one with `emass node add`"
            )


async def _ask(
    code: JoinCode, ca_file: Path, applicant: Applicant, wall: Callable[[], float]
) -> tuple[JoinAnswer, float]:
    """The desk's answer, and how far this clock is from the hub's. Raises JoinError."""
    bus = NatsBus(
        [(code.server.host, code.server.port)],
        member_name(code.node, "joiner"),
        seed=code.seed,
        ca_file=ca_file,
    )
    question = encode_request(JoinRequest(applicant, wall(), own_version()), code.seed)
    answer = None
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        begun = wall()
        with contextlib.suppress(NoAnswer):
            answer = await bus.ask(JOIN_SUBJECT, question, ANSWER_SECONDS)
        ended = wall()
        bus.close()
    if answer is None:
        raise JoinError(
            f"the bus at {code.server} is there, but the hub's desk does not answer: is `emass up` running on"
            " the hub? Join again then, with the same code"
        )
    try:
        told = decode_answer(answer)
    except ValueError as error:
        raise JoinError(str(error)) from None
    return told, (begun + ended) / 2 - told.at


# --- the node's file ---------------------------------------------------------------------------------------


def node_text(node: str, servers: Sequence[str], replicas: int, plan: Plan) -> str:
    """The `emass.toml` of a broadcaster that has joined. Raises ConfigError."""
    values = {
        "node": {"name": toml_value(node), "runs": '["engine"]'},
        "bus": {
            "kind": toml_value("nats"),
            "servers": toml_value(tuple(servers)),
            "replicas": toml_value(replicas),
        },
    }
    return filled_default(with_settings(values, plan.settings), sources_text(node, plan))


def sources_text(node: str, plan: Plan) -> str:
    """The tables of the addresses that mail leaves from."""
    return "".join(
        f"\n[[engine.source]]\nname = {toml_value(f'{node}-{number}')}\naddress = {toml_value(address)}\n"
        + (f"ehlo_name = {toml_value(plan.ehlo_name)}\n" if plan.ehlo_name else "")
        for number, address in enumerate(plan.sources, 1)
    )


def skew_warning(skew_seconds: float) -> str:
    """What a person should know of this machine's clock; nothing when it is fine."""
    if abs(skew_seconds) <= SKEW_WARN_SECONDS:
        return ""
    return f"this machine's clock is {skew_words(skew_seconds)} the hub's: set it (NTP)"
