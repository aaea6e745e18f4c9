"""Rounds of the key office: its life on a hub, and a new token key brought into force over all nodes.

`key_rounds` is the actor of the hub's root process: a pass whenever a node tells something new of its keys or
the hub's own have changed, and over all of them now and then. `bring_token_id` is one command's work in two
steps: the new id goes to every node that lives, then it gets a start that lies a little ahead. A node that
is away gets it when it returns, and signs by the older id until then, which verifies for ever; one that
lives and does not take it stops the command, and a repetition goes on from there: also when the id has its
start already and somebody lacks it, for an hour. There are too few ids to take another.

Touches: the bus, the plan of token ids in the hub's keys folder. On crash: a pass begins anew.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
import trio

from control.cluster.key_office import KeyOffice, NodeKeys, read_nodes
from engine.bus.api import Bus, BusFull
from engine.config import Config
from engine.keyring import KeyringError
from engine.storage import StorageError
from engine.token_ring import PLAN_FILE, TokenPlan, load_plan, save_plan, with_new_id, with_start

ROUND_SECONDS = 2.0
ALL_SECONDS = 60.0  # a pass over everybody, whatever they tell
START_AHEAD_SECONDS = 30.0  # a new id signs from then on; every node has had it before
TAKE_SECONDS = 30.0  # for all nodes to take a ring
REPEATED_SECONDS = 3_600.0  # a command given again so long after a start is a repetition
AWAY_SECONDS = 10.0  # an engine whose beat does not change for so long is away: five of its intervals

log = structlog.get_logger("keys")


async def key_rounds(config: Config, bus: Bus) -> None:
    """The office's life."""
    office = KeyOffice(config, bus)
    seen: dict[str, NodeKeys] = {}
    own: object = None
    everybody_at = -ALL_SECONDS
    told: list[str] = []
    while True:
        try:
            nodes = await read_nodes(bus)
            looks = _looks(config)
            now = trio.current_time()
            everybody = looks != own or now >= everybody_at + ALL_SECONDS
            due = [node for node in nodes.values() if everybody or _told(seen.get(node.node)) != _told(node)]
            if due:
                problems = await office.work(due)
                for problem in problems:
                    if problem not in told:
                        log.error("keys could not be sealed", why=problem)
                told = problems
            seen, own = nodes, looks
            if everybody:
                everybody_at = now
        except (KeyringError, BusFull, StorageError) as error:
            if told != [str(error)]:
                log.error("keys could not be sealed", why=str(error))
            told = [str(error)]
        await trio.sleep(ROUND_SECONDS)


async def bring_token_id(
    config: Config, bus: Bus, wall: Callable[[], float], say: Callable[[str], None], *, early: bool = False
) -> TokenPlan:
    """Bring a new token key id into force on all nodes.

    Raises KeyringError; a repetition goes on from there.
    """
    folder = Path(config.keys.folder)
    plan = load_plan(folder)
    if plan.waiting is None and await _interrupted(bus, plan, wall()):
        say(f"key id {max(plan.ids)} has its start, and not every node has it yet: waiting for them")
        await until_taken(config, bus, plan.serial, say)
        return plan
    if plan.waiting is None:
        plan = with_new_id(plan, wall(), early=early)
        save_plan(folder, plan)
    say(f"key id {plan.waiting} is handed out")
    await until_taken(config, bus, plan.serial, say)
    plan = with_start(plan, wall() + START_AHEAD_SECONDS)
    save_plan(folder, plan)
    say(f"it signs what is accepted from {START_AHEAD_SECONDS:.0f} s from now on")
    await until_taken(config, bus, plan.serial, say)
    return plan


async def _interrupted(bus: Bus, plan: TokenPlan, now: float) -> bool:
    """Whether the last rotation has given its id a start of late and was not taken by all."""
    starts_at = plan.ids[max(plan.ids)].starts_at
    if starts_at is None or now - starts_at >= REPEATED_SECONDS:
        return False
    return any(node.serial < plan.serial for node in (await read_nodes(bus)).values())


async def until_taken(config: Config, bus: Bus, serial: int, say: Callable[[str], None]) -> None:
    """Seal rings until every node that lives has one of this serial. Raises KeyringError."""
    office = KeyOffice(config, bus)
    begun = trio.current_time()
    beats: dict[str, tuple[int, float]] = {}  # node -> beat of its engine, and since when
    while True:
        nodes = await read_nodes(bus)
        problems = await office.work(nodes.values())
        now = trio.current_time()
        for name, node in nodes.items():
            if name not in beats or beats[name][0] != node.beat:
                beats[name] = (node.beat, now)
        lacking = [name for name, node in nodes.items() if node.serial < serial]
        away = [name for name in lacking if now >= beats[name][1] + AWAY_SECONDS]
        if lacking == away:
            for name in away:
                say(f"{name} is away: it takes the new keys when it is back")
            return
        if now >= begun + TAKE_SECONDS:
            names = ", ".join(sorted(set(lacking) - set(away)))
            why = f" ({'; '.join(problems)})" if problems else ""
            raise KeyringError(
                f"{names} did not take the new token keys within {TAKE_SECONDS:.0f} s{why}: "
                "look into the log there, then give this command again"
            )
        await trio.sleep(ROUND_SECONDS / 4)


def _told(node: NodeKeys | None) -> object:
    """What of a node's word may make work."""
    if node is None:
        return None
    return (node.signer_public, node.box_public, node.serial, node.dkim, node.files, node.trouble)


def _looks(config: Config) -> object:
    """What the hub's key files look like from outside."""
    folder = Path(config.keys.folder)
    looks: list[Any] = []
    for path in (folder / PLAN_FILE, *(folder / key.file for key in config.keys.dkim)):
        try:
            facts = path.stat()
        except OSError:
            looks.append(None)
        else:
            looks.append((facts.st_ino, facts.st_mtime_ns, facts.st_size))
    return looks
