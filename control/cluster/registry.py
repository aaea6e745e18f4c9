"""Who belongs to the cluster: nodes, their public keys, and join codes that are out, as the hub knows them.

The registry is the one truth (`registry_file` keeps it); the nats-server's users are written from it, and the
table `nodes` on the bus is its copy for everybody else. It holds no secret: of a node and of a code only the
public half. What may happen to it is decided here, by functions from one value to the next. A refusal is a
RegistryError of one line. `now` is the hub's clock: no node's own decides whether a code still holds.
"""

import secrets
from collections.abc import Mapping
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from control.cluster.roles import Role
from engine.bus.api import check_name
from engine.bus.nkeys import check_public

VERSION = 1
NODES_MAX = 500  # each is three users of the nats-server, which reads them all at a reload
CODES_MAX = 100
CODE_SECONDS_MAX = 7 * 86_400.0  # a code is for today's work
CODE_KEPT_SECONDS = 7 * 86_400.0  # behind its end, so that whoever comes late is told why
KEYS_PER_PROCESS_MAX = 2  # the one in use, and the one that takes over
CLUSTER_OCTETS = 8
BOX_HEX_LENGTH = 64


class RegistryError(Exception):
    """It cannot be; the line says why and what would help."""


class KeyNotTaken(RegistryError):
    """A new key that is not known, and will not be: another one has to be finished with before."""


class NodeRole(Enum):
    """What a machine is."""

    HUB = "hub"  # runs the bus, makes the codes, gives the keys
    BROADCASTER = "broadcaster"  # sends


# What each process of a node may do on the bus. The hub's root process is its desk as well.
PROCESSES: dict[NodeRole, dict[str, Role]] = {
    NodeRole.HUB: {
        "engine": Role.BROADCASTER,
        "agent": Role.OPERATOR,
        "submission": Role.SUBMISSION,
        "operator": Role.OPERATOR,
    },
    NodeRole.BROADCASTER: {
        "engine": Role.BROADCASTER,
        "agent": Role.AGENT,
        "submission": Role.SUBMISSION,
    },
}


class NodeRecord(Struct, frozen=True):
    """One machine. `keys`: each process's public nkeys, the newest last."""

    name: str
    role: NodeRole
    keys: dict[str, tuple[str, ...]]
    signer_public: str  # hex; what its DKIM keys are sealed to, for its signer processes
    box_public: str  # hex; what its token keys are sealed to, for the node itself
    joined_at: float
    retired_at: float | None = None

    @property
    def active(self) -> bool:
        return self.retired_at is None


class CodeRecord(Struct, frozen=True):
    """One join code that is out. `used_keys` are those of the machine that used it."""

    node: str
    role: NodeRole
    public: str
    made_at: float
    expires_at: float
    used_at: float | None = None
    used_keys: dict[str, str] = {}


class Registry(Struct, frozen=True):
    """Everything that the hub knows of who belongs to it."""

    cluster: str  # random, made with the hub
    hub: str
    nodes: dict[str, NodeRecord]
    codes: dict[str, CodeRecord]  # by public key
    version: int = VERSION

    def __repr__(self) -> str:
        active = sum(node.active for node in self.nodes.values())
        return f"<Registry of {self.hub}: {active} nodes, {len(self.codes)} codes>"


class Applicant(Struct, frozen=True):
    """What a machine that wants to join shows: who it is to be, and its public keys."""

    node: str
    keys: dict[str, str]
    signer_public: str
    box_public: str


class User(Struct, frozen=True):
    """Somebody whom the nats-server knows."""

    public: str
    node: str
    process: str
    role: Role

    @property
    def member(self) -> str:
        """The name that it has on the bus."""
        return member_name(self.node, self.process)


def member_name(node: str, process: str) -> str:
    """A process's name on the bus: an engine has its node's."""
    if process == "operator":
        return "operator"
    return node if process == "engine" else f"{node}.{process}"


# --- decisions ---------------------------------------------------------------------------------------------


def new_registry(hub: Applicant, now: float) -> Registry:
    """A cluster of one. Raises RegistryError."""
    record = _record(Registry("", "", {}, {}), NodeRole.HUB, hub, now)
    return Registry(secrets.token_hex(CLUSTER_OCTETS), hub.node, {hub.node: record}, {})


def with_code(
    registry: Registry, node: str, role: NodeRole, public: str, now: float, seconds: float
) -> Registry:
    """Let a machine come as `node` within `seconds`. Raises RegistryError."""
    try:
        check_node_name(node)
    except ValueError as error:
        raise RegistryError(str(error)) from None
    if role is NodeRole.HUB:
        raise RegistryError("a cluster has one hub, and `emass init --cluster` made it")
    known = registry.nodes.get(node)
    if known is not None:
        since = "has been retired; its name stays with its mail" if known.retired_at else "is in the cluster"
        raise RegistryError(f"{node} {since}: choose another name")
    for code in registry.codes.values():
        if code.node == node and code.used_at is None and now < code.expires_at:
            raise RegistryError(
                f"a code for {node} is out already: use it, or take it back with `emass node retire {node}`"
            )
    if not 0 < seconds <= CODE_SECONDS_MAX:
        raise RegistryError("a join code lasts from 1 s to 7 d")
    kept = _without_old_codes(registry, now)
    if len(kept.codes) >= CODES_MAX:
        raise RegistryError(f"{CODES_MAX} join codes are out: wait until some have expired")
    if sum(record.active for record in registry.nodes.values()) >= NODES_MAX:
        raise RegistryError(f"a cluster has {NODES_MAX} nodes at most")
    return replace(kept, codes={**kept.codes, public: CodeRecord(node, role, public, now, now + seconds)})


def joined(registry: Registry, public: str, applicant: Applicant, now: float) -> Registry:
    """Take a machine in by the code of that public key. Raises RegistryError.

    The same machine (the same keys) may ask again as long as the code lasts: its answer may have been lost.
    """
    code = registry.codes.get(public)
    if code is None:
        raise RegistryError("this hub knows no such join code: make one with `emass node add`")
    if code.used_at is not None and code.used_keys != applicant.keys:
        raise RegistryError(
            f"this join code has been used already, by another folder or machine, as {code.node}: "
            "make a new one with `emass node add` and another name"
        )
    if now >= code.expires_at:
        raise RegistryError(
            f"this join code expired {_ago(now - code.expires_at)} ago by the hub's clock: "
            "make a new one with `emass node add`"
        )
    if applicant.node != code.node:
        raise RegistryError(f"this join code is for {code.node}, not for {applicant.node[:40]}")
    if code.used_at is not None:
        return registry
    if code.node in registry.nodes:
        raise RegistryError(f"{code.node} is in the cluster already: make a code with another name")
    record = _record(registry, code.role, applicant, now)
    return replace(
        registry,
        nodes={**registry.nodes, code.node: record},
        codes={**registry.codes, public: replace(code, used_at=now, used_keys=applicant.keys)},
    )


def retired(registry: Registry, node: str, now: float) -> Registry:
    """Shut a node out for good, and take back codes for its name. Raises RegistryError."""
    codes = {public: code for public, code in registry.codes.items() if code.node != node}
    record = registry.nodes.get(node)
    if record is None:
        if len(codes) == len(registry.codes):
            raise RegistryError(_unknown(registry, node))
        return replace(registry, codes=codes)
    if record.role is NodeRole.HUB:
        raise RegistryError(f"{node} is the hub: without it there is no cluster")
    if record.retired_at is not None:
        return registry
    return replace(registry, nodes={**registry.nodes, node: replace(record, retired_at=now)}, codes=codes)


def with_key(registry: Registry, node: str, process: str, public: str) -> Registry:
    """Let a process of a node come with a new key as well as with its old one. Raises RegistryError."""
    record = known_node(registry, node)
    keys = record.keys.get(process)
    if keys is None:
        raise RegistryError(f"{node} has no process {process[:40]}")
    if public in keys:
        return registry
    if len(keys) >= KEYS_PER_PROCESS_MAX:  # a process that runs shows one of the two
        raise KeyNotTaken(
            f"{process} of {node} has two keys already: start the node anew, then give"
            " `emass keys rotate-node --finish` there, before keys are replaced again"
        )
    _check_new_key(registry, public)
    return _with_record(registry, replace(record, keys={**record.keys, process: (*keys, public)}))


def with_newest_keys(registry: Registry, node: str, newest: Mapping[str, str]) -> Registry:
    """Shut out the keys that newer ones have taken over from.

    `newest` is what the node holds, by process: if that is not the newest that is known, it would shut itself
    out. Raises RegistryError.
    """
    record = known_node(registry, node)
    if newest != {process: keys[-1] for process, keys in record.keys.items()}:
        raise RegistryError(
            f"the keys there are not the newest of {node} that the hub knows: put back the newest copy of"
            " that folder, or retire the node and join under another name"
        )
    return _with_record(
        registry, replace(record, keys={process: keys[-1:] for process, keys in record.keys.items()})
    )


def with_boxes(registry: Registry, node: str, *, signer_public: str = "", box_public: str = "") -> Registry:
    """Note what the node's keys are sealed to from now on. Raises RegistryError."""
    record = known_node(registry, node)
    signer_public, box_public = signer_public or record.signer_public, box_public or record.box_public
    _check_box(signer_public)
    _check_box(box_public)
    return _with_record(registry, replace(record, signer_public=signer_public, box_public=box_public))


def known_node(registry: Registry, node: str) -> NodeRecord:
    """A node that is neither unknown nor retired. Raises RegistryError."""
    record = registry.nodes.get(node)
    if record is None or not record.active:
        raise RegistryError(_unknown(registry, node) if record is None else f"{node} has been retired")
    return record


def users(registry: Registry, now: float) -> list[User]:
    """Everybody whom the nats-server lets in. Codes that are over may still ask, to be told so."""
    found = [
        User(key, record.name, process, PROCESSES[record.role][process])
        for record in registry.nodes.values()
        if record.active
        for process, keys in record.keys.items()
        for key in keys
    ]
    kept = _without_old_codes(registry, now)
    return found + [User(public, code.node, "joiner", Role.JOINER) for public, code in kept.codes.items()]


def check_node_name(name: str) -> str:
    """A node's name, if it is one that streams can bear. Raises ValueError."""
    check_name(name)
    if "." in name or len(name) > 63:
        raise ValueError(f"{name[:40]!r} is no node's name: up to 63 letters, digits, '_', '-'")
    if name == "operator" or name.startswith("operator-"):
        raise ValueError(f"{name[:40]!r} is the name of operators on the bus: choose another")
    return name


def _record(registry: Registry, role: NodeRole, applicant: Applicant, now: float) -> NodeRecord:
    """What is kept of a machine. Raises RegistryError when it does not show what it should."""
    _check_keys(registry, applicant, PROCESSES[role])
    _check_box(applicant.signer_public)
    _check_box(applicant.box_public)
    keys: dict[str, tuple[str, ...]] = {process: (key,) for process, key in applicant.keys.items()}
    return NodeRecord(applicant.node, role, keys, applicant.signer_public, applicant.box_public, now)


def _check_keys(registry: Registry, applicant: Applicant, processes: Mapping[str, Role]) -> None:
    if set(applicant.keys) != set(processes):
        raise RegistryError(f"the machine shows keys of {', '.join(sorted(applicant.keys))[:80] or 'nobody'}")
    if len(set(applicant.keys.values())) != len(applicant.keys):
        raise RegistryError("the machine shows one key for two processes")
    for public in applicant.keys.values():
        _check_new_key(registry, public)


def _check_new_key(registry: Registry, public: str) -> None:
    try:
        check_public(public)
    except ValueError as error:
        raise RegistryError(f"the machine shows a key that is none: {error}") from None
    for record in registry.nodes.values():
        if any(public in keys for keys in record.keys.values()):
            raise RegistryError(
                f"this is the key of {record.name}: has its folder been copied? join from an empty folder"
            )
    if public in registry.codes:
        raise RegistryError("the machine shows the key of a join code")


def _check_box(public: str) -> None:
    try:
        fine = len(public) == BOX_HEX_LENGTH == 2 * len(bytes.fromhex(public))
    except ValueError:
        fine = False
    if not fine:
        raise RegistryError("the machine shows no public half of a box key")


def _with_record(registry: Registry, record: NodeRecord) -> Registry:
    return replace(registry, nodes={**registry.nodes, record.name: record})


def _without_old_codes(registry: Registry, now: float) -> Registry:
    kept = {
        public: code for public, code in registry.codes.items() if now < code.expires_at + CODE_KEPT_SECONDS
    }
    return replace(registry, codes=kept)


def _unknown(registry: Registry, node: str) -> str:
    names = ", ".join(sorted(name for name, record in registry.nodes.items() if record.active))
    return f"no node is called {node[:40]}; there are: {names}"


def _ago(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes else f"{int(seconds)} s"
