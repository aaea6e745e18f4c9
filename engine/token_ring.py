"""The keys of tokens that one node holds, and how a new one comes into force while mail flows.

A *ring* is what a node has: MAC keys by key id and kind, the key of suppressed addresses' hashes, and from
when each id signs. A new id is handed to every node first (it verifies, it does not sign), then given a
start. What was accepted before that start keeps the id that it had, so that an envelope's token and
Message-ID are the same at every attempt, and on every node. Old ids verify for ever: at most 16 of them.

A node with a master key derives its ring by a *plan*: which ids there are and when each starts, in a file
without secrets. A node that joined has the ring itself, in a file of mode 0600. A role gets only the kinds
that it needs. `serial` grows with every change, so that an older ring never replaces a newer one.
Raises KeyringError.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.keyring import (
    TOKEN_KINDS,
    KeyringError,
    derive_suppression_key,
    derive_token_key,
    load_master_key,
    read_secret,
    write_secret,
)

KEY_IDS_MAX = 16  # four bits of a token name its key
YEAR_SECONDS = 365 * 86_400.0  # 16 ids and one a year: links of 16 years verify
RING_FORM = 1
PLAN_FILE = "token-ids.json"  # in the keys folder, beside the master key
# Architecture 8: who gets which kinds. Composing needs all of them, since it makes them.
KINDS_BY_ROLE: Mapping[str, str] = {
    "hub": TOKEN_KINDS,
    "broadcaster": TOKEN_KINDS,
    "landing": "ucs",
    "bounce": "burf",
}


class TokenId(Struct, frozen=True):
    """One key id: when it was made, and from when it signs (wall seconds; None = it only verifies yet)."""

    made_at: float
    starts_at: float | None = None


class TokenPlan(Struct, frozen=True):
    """Which key ids there are."""

    serial: int
    ids: Mapping[int, TokenId]

    @property
    def waiting(self) -> int | None:
        """The id that was handed out and does not sign yet."""
        return next((number for number, each in self.ids.items() if each.starts_at is None), None)


class TokenRing(Struct, frozen=True):
    """What one node holds. Its `repr` shows no key."""

    serial: int
    starts: Mapping[int, float]  # key id -> wall seconds from which what is accepted is signed with it
    keys: Mapping[int, Mapping[str, bytes]]  # key id -> kind -> key
    suppression: bytes

    def __repr__(self) -> str:
        return f"<TokenRing {self.serial}: ids {sorted(self.keys)}, current {self.current}>"

    @property
    def current(self) -> int:
        """The id that starts last, be that in a moment."""
        return max(self.starts, key=lambda number: (self.starts[number], number))

    def signing_id(self, accepted_at: float) -> int:
        """The id for what was accepted at that wall time."""
        begun = [number for number, start in self.starts.items() if start <= accepted_at]
        return max(begun or self.starts, key=lambda number: (self.starts[number], number))


FIRST_PLAN = TokenPlan(1, {0: TokenId(0.0, 0.0)})


def ring_for(master: bytes, kinds: str = TOKEN_KINDS, plan: TokenPlan = FIRST_PLAN) -> TokenRing:
    """The ring of a role that needs `kinds`."""
    return TokenRing(
        serial=plan.serial,
        starts={number: each.starts_at for number, each in plan.ids.items() if each.starts_at is not None},
        keys={
            number: {kind: derive_token_key(master, number, kind) for kind in kinds} for number in plan.ids
        },
        suppression=derive_suppression_key(master),
    )


# --- rotation --------------------------------------------------------------------------------------------


def with_new_id(plan: TokenPlan, now: float, *, early: bool = False) -> TokenPlan:
    """The plan with one more id, which verifies only. Raises KeyringError when that must not be.

    `early`: although the last one is younger than a year.
    """
    if plan.waiting is not None:
        raise KeyringError(
            f"key id {plan.waiting} was handed out and does not sign yet: start that one first"
        )
    if len(plan.ids) >= KEY_IDS_MAX:
        raise KeyringError(
            f"all {KEY_IDS_MAX} key ids are in use, and mail that is out depends on each: there is no more"
        )
    youngest = max(each.made_at for each in plan.ids.values())
    if not early and now - youngest < YEAR_SECONDS:
        days = int((now - youngest) // 86_400)
        raise KeyringError(
            f"the last key id is {days} days old; there are {KEY_IDS_MAX} in all, so one a year: "
            "--force takes one all the same"
        )
    fresh = max(plan.ids) + 1
    return TokenPlan(plan.serial + 1, {**plan.ids, fresh: TokenId(now)})


def with_start(plan: TokenPlan, starts_at: float) -> TokenPlan:
    """The plan in which the id that waits signs what is accepted from then on.

    From the next whole second, that is: the spool keeps acceptance in whole seconds, and one id holds for a
    message from its first attempt to its last.
    """
    waiting = plan.waiting
    assert waiting is not None
    started = replace(plan.ids[waiting], starts_at=float(math.ceil(starts_at)))
    return TokenPlan(plan.serial + 1, {**plan.ids, waiting: started})


# --- files and the wire ----------------------------------------------------------------------------


def encode_ring(ring: TokenRing) -> bytes:
    """One JSON object, keys in hex: the form of the file and of what is sealed."""
    return json.dumps(
        {
            "form": RING_FORM,
            "serial": ring.serial,
            "starts": {str(number): start for number, start in sorted(ring.starts.items())},
            "keys": {
                str(number): {kind: key.hex() for kind, key in by_kind.items()}
                for number, by_kind in sorted(ring.keys.items())
            },
            "suppression": ring.suppression.hex(),
        }
    ).encode()


def decode_ring(data: bytes, name: str) -> TokenRing:
    """Raises KeyringError; `name` says in it where the ring came from."""
    try:
        told = json.loads(data)
        if told["form"] != RING_FORM:
            raise KeyringError(
                f"{name}: a ring of keys in form {told['form']}, which this version does not know"
            )
        ring = TokenRing(
            serial=int(told["serial"]),
            starts={int(number): float(start) for number, start in told["starts"].items()},
            keys={
                int(number): {str(kind): bytes.fromhex(key) for kind, key in by_kind.items()}
                for number, by_kind in told["keys"].items()
            },
            suppression=bytes.fromhex(told["suppression"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise KeyringError(f"{name}: not a ring of keys") from error
    if problem := _ring_problem(ring):
        raise KeyringError(f"{name}: not a ring of keys that can be used: {problem}")
    return ring


def save_ring(path: Path, ring: TokenRing) -> None:
    """Write it durably, mode 0600, in place of what was there. Raises KeyringError."""
    write_secret(path, encode_ring(ring) + b"\n", replace=True)


def load_ring(folder: Path, master: str = "master.key", ring: str = "ring.json") -> TokenRing:
    """What the node with this keys folder holds: derived where there is a master key, else its ring file.

    Raises KeyringError.
    """
    if (folder / master).exists():
        return ring_for(load_master_key(folder / master), TOKEN_KINDS, load_plan(folder))
    if not (folder / ring).exists():
        raise KeyringError(f"{folder}: has neither {master} nor {ring}: put back the keys of this node")
    return decode_ring(read_secret(folder / ring), str(folder / ring))


def load_plan(folder: Path) -> TokenPlan:
    """The plan beside a master key; the first one where nothing was rotated yet. Raises KeyringError."""
    path = folder / PLAN_FILE
    if not path.exists():
        return FIRST_PLAN
    try:
        told: dict[str, Any] = json.loads(read_secret(path))
        ids = {int(number): TokenId(**times) for number, times in told["ids"].items()}
        plan = TokenPlan(int(told["serial"]), ids)
        usable = _are_ids(ids) and any(each.starts_at is not None for each in ids.values())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise KeyringError(f"{path}: does not say which token keys there are: put it back") from error
    if not usable:
        raise KeyringError(f"{path}: names no key id that signs, or ids that are not 0 to {KEY_IDS_MAX - 1}")
    return plan


def save_plan(folder: Path, plan: TokenPlan) -> None:
    """Write it durably. Raises KeyringError."""
    ids = {
        str(number): {"made_at": each.made_at, "starts_at": each.starts_at}
        for number, each in plan.ids.items()
    }
    data = json.dumps({"serial": plan.serial, "ids": ids}).encode() + b"\n"
    write_secret(folder / PLAN_FILE, data, replace=True)


def _ring_problem(ring: TokenRing) -> str:
    if not ring.keys or not _are_ids(ring.keys):
        return f"its key ids are not from 0 to {KEY_IDS_MAX - 1}"
    if not ring.starts or not set(ring.starts) <= set(ring.keys):
        return "it does not say which key signs"
    for by_kind in ring.keys.values():
        if not by_kind or not set(by_kind) <= set(TOKEN_KINDS):
            return "it has kinds of tokens that there are not"
        if any(len(key) != 32 for key in by_kind.values()):
            return "a key has not 32 octets"
    return "" if len(ring.suppression) == 32 else "the key of suppressions has not 32 octets"


def _are_ids(numbers: Iterable[int]) -> bool:
    return all(0 <= number < KEY_IDS_MAX for number in numbers)
