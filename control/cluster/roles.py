"""What each process of the cluster may do on the bus, and that as permissions of a nats-server.

A *grant* says it in the bus's own words: streams it writes and reads, rows of tables, questions.
`subjects_of` turns a grant into subjects, which the server enforces whatever the process has become: a
broken-into broadcaster publishes no other's events, reads no other's keys and pauses no campaign. Pure.

What a server cannot tell apart is said plainly: whoever may write rows of a table may overwrite them (a claim
of another), and whoever may read a table or stream may read all of it; so what one node alone may see is a
table of its own (`dkim.a`). Only operators make streams (a stream may copy another); and only they read what
they also write, since a reader may have the server send what it reads to any subject.
"""

from enum import Enum

from msgspec import Struct

from engine.bus import nats_names as names
from engine.sealing import dkim_table, tokens_table

SUBMISSION_WORKERS_MAX = (
    64  # members that share a seed; each has an inbox and a part of the stream of its own
)
JOIN_SUBJECT = "join"  # the desk's questions: from who wants to come in
DESK_SUBJECT = "desk"  # and from who is in

ANYTHING = "emass.>"
API = "$JS.API."


class Role(Enum):
    """What a process is to the others."""

    OPERATOR = "operator"  # the hub's root process, the command line, coordinators of jobs
    BROADCASTER = "broadcaster"  # an engine
    AGENT = "agent"  # the root process of a node
    SUBMISSION = "submission"  # takes single messages of applications for its node's engine
    JOINER = "joiner"  # holds a join code: it may ask to come in


class Grant(Struct, frozen=True, kw_only=True):
    """What a member may do, in the bus's names. A row is (table, key); `*` stands for one part of a key."""

    members: tuple[str, ...]  # the names that it may have
    writes: tuple[str, ...] = ()  # streams
    reads: tuple[tuple[str, str], ...] = ()  # (stream, consumer)
    trims: tuple[str, ...] = ()  # streams that it takes acknowledged entries from
    rows: tuple[tuple[str, str], ...] = ()  # that it writes
    watches: tuple[str, ...] = ()  # tables that it reads whole and follows
    reads_blobs: bool = False
    keeps_blobs: bool = False
    drops_blobs: bool = False
    asks: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()
    everything: bool = False


class Subjects(Struct, frozen=True):
    """What a nats-server lets a user do. Answers to questions are allowed by the question."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def grant_of(role: Role, node: str) -> Grant:
    """What a role may do on a node."""
    match role:
        case Role.OPERATOR:
            return Grant(members=("operator", f"{node}.agent"), everything=True)
        case Role.BROADCASTER:
            work = (f"chunks.{node}", f"chunks.{node}.single")
            return Grant(
                members=(node,),
                writes=(f"events.{node}",),
                reads=(*((stream, "intake") for stream in work), ("suppressions", f"suppressor.{node}")),
                trims=(*work, f"events.{node}"),
                rows=(("status", f"{node}/engine"), ("status", f"{node}/keys"), ("claims", "*")),
                watches=("campaigns", "retired", dkim_table(node), tokens_table(node)),
                reads_blobs=True,
                drops_blobs=True,
                serves=(f"engine.{node}",),
            )
        case Role.AGENT:
            return Grant(
                members=(f"{node}.agent",),
                rows=(("status", f"{node}/agent"),),
                asks=(DESK_SUBJECT, f"node.{node}"),  # the second: whether another node has its name
                serves=(f"node.{node}",),
            )
        case Role.SUBMISSION:
            workers = tuple(f"{node}.submission-{number}" for number in range(1, SUBMISSION_WORKERS_MAX + 1))
            return Grant(
                members=(f"{node}.submission", *workers),
                writes=(f"chunks.{node}.single",),
                reads_blobs=True,
                keeps_blobs=True,
            )
        case Role.JOINER:
            return Grant(members=(f"{node}.joiner",), asks=(JOIN_SUBJECT,))


def subjects_of(grant: Grant) -> Subjects:
    """The subjects of a grant."""
    if grant.everything:
        return Subjects((ANYTHING, f"{API}>"), (ANYTHING,))
    publish = [
        *(names.stream_subject(stream, each) for stream in grant.writes for each in grant.members),
        *(_row_subject(table, key) for table, key in grant.rows),
        *(_row_subject("cursors", f"{consumer}/{stream}/") for stream, consumer in grant.reads),
        *(names.ask_subject(subject) for subject in grant.asks),
    ]
    looked_at = [names.stream_name(stream) for stream in grant.writes]
    looked_at += [names.table_name(table) for table, _ in grant.rows]
    if grant.reads or grant.writes or grant.watches:  # how far consumers are, and which bus this is
        looked_at += [names.table_name("cursors"), names.table_name("config")]
    followed = [names.stream_name(stream) for stream, _ in grant.reads]
    followed += [names.table_name(table) for table in grant.watches]
    if grant.reads_blobs:
        looked_at.append(names.BLOBS)
    if grant.keeps_blobs:
        publish.append("emass.b.*.*")
    for stream in (*looked_at, *followed):
        publish += (f"{API}STREAM.INFO.{stream}", f"{API}STREAM.MSG.GET.{stream}")
    for stream in followed:
        publish += (
            f"{API}CONSUMER.CREATE.{stream}",
            f"{API}CONSUMER.MSG.NEXT.{stream}.*",
            f"{API}CONSUMER.DELETE.{stream}.*",
        )
    dropped = [names.stream_name(stream) for stream in grant.trims]
    dropped += [names.BLOBS] if grant.drops_blobs else []
    publish += (f"{API}STREAM.PURGE.{stream}" for stream in dropped)
    subscribe = [
        *(f"{names.inbox_prefix(member)}.>" for member in grant.members),
        *(names.ask_subject(subject) for subject in grant.serves),
    ]
    return Subjects(tuple(dict.fromkeys(publish)), tuple(dict.fromkeys(subscribe)))


def streams_of(node: str) -> tuple[str, ...]:
    """The streams that a node's processes use and may not make."""
    return (f"chunks.{node}", f"chunks.{node}.single", f"events.{node}", "suppressions")


def tables_of(node: str) -> tuple[str, ...]:
    """The tables, likewise."""
    return ("status", "claims", "campaigns", "retired", "nodes", dkim_table(node), tokens_table(node))


def _row_subject(table: str, key: str) -> str:
    parts = (part if part == "*" else names.enc(part) for part in key.split("/"))
    return f"emass.t.{names.enc(table)}.{'.'.join(parts)}"
