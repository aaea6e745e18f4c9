"""A cluster begins: the hub's own keys, its server's certificate, a registry with one node, and its settings.

Touches the keys and data folders of a hub that is being made. Raises KeyringError, RegistryError; nothing
that exists is overwritten.
"""

import datetime
import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path

from control.cluster.authority import create_server_certificate
from control.cluster.node_file import toml_value
from control.cluster.node_keys import make_keys, read_applicant
from control.cluster.registry import NodeRole, Registry, RegistryError, new_registry
from control.cluster.registry_file import is_hub, save_registry
from engine.config import HostPort, NodeTable

HERE = ("127.0.0.1", "localhost")  # what the hub's own processes may call it


def found_cluster(folder: Path, hub: str, names: Sequence[str], now: float) -> Registry:
    """Make a folder the hub of a new cluster, whose server is reached by these names."""
    data = folder / NodeTable().data
    if is_hub(data):
        raise RegistryError(f"{data}: is the hub of a cluster already")
    keys = make_keys(folder, NodeRole.HUB)
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    create_server_certificate(keys, [*names, *HERE], moment)
    registry = new_registry(read_applicant(keys, hub), now)
    save_registry(data, registry)
    return registry


def hub_names(listen: HostPort, addresses: Sequence[str]) -> list[str]:
    """The names that a hub's server is reached by. Raises RegistryError when nobody can tell."""
    if addresses:
        return list(addresses)
    try:
        anywhere = ipaddress.ip_address(listen.host).is_unspecified
    except ValueError:
        anywhere = False
    if anywhere:
        raise RegistryError(
            f"{listen} is every address of this machine: say with --address how other machines reach it"
        )
    return [listen.host]


def hub_values(hub: str, listen: HostPort, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    """What the hub's `emass.toml` says beside the defaults: the first name is what everybody is told."""
    servers = tuple(f"[{name}]:{listen.port}" if ":" in name else f"{name}:{listen.port}" for name in names)
    return {
        "node": {"name": toml_value(hub), "runs": toml_value(("bus", "engine"))},
        "bus": {
            "kind": toml_value("nats"),
            "servers": toml_value(servers[:1]),
            "listen": toml_value(str(listen)),
        },
    }
