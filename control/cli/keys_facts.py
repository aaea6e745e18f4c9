"""What `emass keys show` tells: which keys a node has, as facts and as lines. Names and times, never a key.

Reads the keys folder; of secret files only that they are there, of the plan and the ring which ids there are.
What cannot be read is a line as well: this is the command for finding out. What other nodes tell of
themselves is foreign text and is shown without anything that a terminal would heed.
"""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from control.cli.visible import short
from control.cluster.key_office import NodeKeys
from engine.config import Config
from engine.keyring import KeyringError
from engine.sealing import NODE_BOX, former_of, key_id
from engine.token_ring import load_ring


def node_facts(config: Config) -> dict[str, Any]:
    """Of this node, from its files."""
    table, folder = config.keys, Path(config.keys.folder)
    facts: dict[str, Any] = {
        "node": config.node.name,
        "folder": str(folder),
        "master": (folder / table.master).exists(),
        "dkim": {key.name: str(folder / key.file) for key in table.dkim},
        "boxes": {
            name: "being replaced" if former_of(folder / name).exists() else "in use"
            for name in (NODE_BOX, table.signer_box)
            if (folder / name).exists()
        },
    }
    try:
        ring = load_ring(folder, table.master, table.ring)
    except KeyringError as error:
        facts["tokens"] = {"error": str(error)}
    else:
        facts["tokens"] = {
            "serial": ring.serial,
            "current": ring.current,
            "ids": {str(number): ring.starts.get(number) for number in sorted(ring.keys)},
        }
    return facts


def node_lines(facts: Mapping[str, Any]) -> list[str]:
    """The facts, for a person."""
    where = "here: keep a copy in a safe place" if facts["master"] else "not here (a cluster's hub has it)"
    lines = [f"{facts['node']}: keys in {facts['folder']}", f"  master key    {where}"]
    tokens = facts["tokens"]
    if "error" in tokens:
        lines.append(f"  token keys    {tokens['error']}")
    for number, start in tokens.get("ids", {}).items():
        current = ", the current one" if int(number) == tokens["current"] else ""
        lines.append(f"  token key {number:<3} {_since(start)}{current}")
    for name, path in facts["dkim"].items():
        lines.append(f"  DKIM key      {name}: {path}")
    for name, state in facts["boxes"].items():
        lines.append(f"  box key       {name}: {state}")
    return lines


def cluster_lines(nodes: Mapping[str, NodeKeys]) -> list[str]:
    """What every node of a hub has told."""
    lines = []
    for node in nodes.values():
        box = key_id(node.signer_public).hex() if node.signer_public else "none told"
        ids = ", ".join(map(str, node.ids)) or "none told"
        lines.append(
            f"{node.node} ({short(node.role)}): token keys {ids} (serial {node.serial}), signers' box {box}"
        )
        lines += [f"  DKIM key      {short(name)}: a file of its own" for name in node.files]
        lines += [
            f"  DKIM key      {short(name)}: "
            + ("opened" if opener == box else "opened, sealed to a former box")
            for name, opener in node.dkim.items()
        ]
        lines += [f"  trouble       {short(what)}: {short(why, 500)}" for what, why in node.trouble.items()]
    return lines


def _since(start: float | None) -> str:
    if start is None:
        return "verifies, does not sign yet"
    if not start:
        return "signs from the beginning"
    day = datetime.datetime.fromtimestamp(start, datetime.UTC)
    return f"signs what is accepted from {day:%Y-%m-%d %H:%M:%S} UTC on"
