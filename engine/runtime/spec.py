"""Supervision trees as data: what a child is, how it comes back, what it is told.

A tree is a `SupervisorSpec` whose children are `ChildSpec`s and further `SupervisorSpec`s, started left to
right, stopped right to left. Names are unique in the whole tree. A child's `start` is one async function
for life: it says `task_status.started()` when it is ready, reads `context.mailbox`, and returns soon after
`context.stop` is set. Leaving normally, it ends (transient, temporary) or comes back (permanent); leaving
by an exception is a crash. Nothing here acts; `restart` decides and `supervisor` acts.
"""

import math
from collections.abc import Callable
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar, Union

import trio
from msgspec import Struct

from engine.runtime.mailbox import CAPACITY_DEFAULT, Mailbox
from engine.runtime.ref import Ref

T = TypeVar("T")

SHUTDOWN_SECONDS_DEFAULT = 5.0  # OTP's default for workers
START_SECONDS_DEFAULT = 60.0  # an LMDB spool of 10 million records is read in about half of that
RESTARTS_MAX_DEFAULT = 5  # architecture: 5 restarts in 60 s
PERIOD_SECONDS_DEFAULT = 60.0


class Restart(Enum):
    PERMANENT = "permanent"  # comes back however it ended
    TRANSIENT = "transient"  # comes back after a crash
    TEMPORARY = "temporary"  # never comes back


class Strategy(Enum):
    ONE_FOR_ONE = "one_for_one"  # the crashed child alone
    REST_FOR_ONE = "rest_for_one"  # the crashed child and everything right of it
    ONE_FOR_ALL = "one_for_all"  # all of them


class Kind(Enum):
    WORKER = "worker"
    SUPERVISOR = "supervisor"


class PoliteStop(Enum):
    """What the polite half of a stop does, besides setting `context.stop`."""

    CLOSE_MAILBOX = "close_mailbox"  # the receive loop ends by itself: the usual case
    SIGNAL_ONLY = "signal_only"  # the actor needs its mailbox to finish, and watches `context.stop`


class Context(Generic[T]):
    """What one incarnation of a child is given."""

    __slots__ = ("crash_count", "incarnation", "mailbox", "name", "peer", "ref", "stop")

    def __init__(
        self,
        name: str,
        mailbox: Mailbox[T],
        *,
        stop: trio.Event,
        incarnation: int = 1,
        crash_count: int = 0,
        peer: Callable[[str], Ref[Any]] | None = None,
    ) -> None:
        self.name = name
        self.mailbox = mailbox
        self.ref: Ref[T] = Ref(mailbox)
        self.stop = stop  # set: finish what is in hand and return
        self.incarnation = incarnation  # 1 at first, one more after each restart
        self.crash_count = crash_count  # crashes of earlier incarnations
        self.peer = peer or no_peer  # the Ref of another static child of the tree, by name

    def __repr__(self) -> str:
        return f"<Context {self.name}, incarnation {self.incarnation}>"


def no_peer(name: str) -> Ref[Any]:
    """The `peer` of a child outside a static tree: there is nobody to find."""
    raise LookupError(f"no actor named {name} here")


class Start(Protocol):
    """A child's function for life. A crash before `task_status.started()` is a failed start."""

    async def __call__(self, context: Context[Any], task_status: trio.TaskStatus[None]) -> None: ...


class ChildSpec(Struct, frozen=True):
    """One worker (or dynamic supervisor) of a tree."""

    name: str
    start: Start
    restart: Restart = Restart.PERMANENT
    shutdown_seconds: float = SHUTDOWN_SECONDS_DEFAULT  # from the polite word to the firm cancel
    start_seconds: float = START_SECONDS_DEFAULT  # to `started()`
    mailbox_capacity: int = CAPACITY_DEFAULT  # messages; 0 = takes none
    kind: Kind = Kind.WORKER
    polite: PoliteStop = PoliteStop.CLOSE_MAILBOX


class SupervisorSpec(Struct, frozen=True):
    """A supervisor and its children. More than `restarts_max` within `period_seconds` is too much.

    `shutdown_seconds` is unlimited by default, since its children's limits bound it already.
    """

    name: str
    children: tuple[Union[ChildSpec, "SupervisorSpec"], ...]
    strategy: Strategy = Strategy.ONE_FOR_ONE
    restarts_max: int = RESTARTS_MAX_DEFAULT
    period_seconds: float = PERIOD_SECONDS_DEFAULT
    shutdown_seconds: float = math.inf
    restart: Restart = Restart.PERMANENT
