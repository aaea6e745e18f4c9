"""The hub's nats-server: its configuration, written from the registry; its program; its reload.

The server stores under `data/nats`, shows the bus's certificate, and lets in only the keys that the registry
knows, each with the permissions of its role. The file is written anew, in one rename, whenever the registry
changes, under the registry's lock: what an older one said never comes last. SIGHUP makes a running server
read it: who is still known stays connected, who is not is thrown out. Touches: `data/nats/`, a signal to the
server whose pid file lies there. Raises NatsServerError with the cure.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from control.cluster.authority import CERTIFICATE_FILE, KEY_FILE
from control.cluster.registry import Registry, RegistryError, User, users
from control.cluster.registry_file import changing
from control.cluster.roles import Subjects, grant_of, subjects_of
from engine.config import Config
from engine.keyring import replace_file

FOLDER = "nats"  # in the data folder
CONFIG_FILE = "nats.conf"
PID_FILE = "nats.pid"
PAYLOAD_OCTETS_MAX = 8 * 1024 * 1024  # the most that nats-server advises; an entry of 1 MB needs 2
STORE_MAX = (
    "16TB"  # streams reserve their caps in it, 4 GB each: room for some 1,000 nodes; it is no disk space
)
BINARY_VARIABLE = "EMASS_NATS_SERVER"
CACHE_VARIABLE = "EMASS_PEERS"
CACHED = "nats/root/usr/sbin/nats-server"  # where `python -m bench.peers install` unpacks it
OUTSIDE_PATH = (
    "/usr/sbin",
    "/usr/local/sbin",
)  # where packages put it, and a plain user's PATH does not look


class NatsServerError(Exception):
    """The nats-server cannot be run; the message says why and what would help."""


def nats_argv(config: Config, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The command line of this hub's server, whose configuration is written. Raises NatsServerError."""
    binary = find_binary(os.environ if environ is None else environ)
    data = Path(config.node.data)
    try:
        changing(
            data,
            lambda registry: registry,
            then=lambda registry: write_nats_config(config, registry, time.time()),
        )
    except RegistryError as error:
        raise NatsServerError(f'[node] runs names "bus", but {error}') from None
    return (str(binary), "--config", str(data / FOLDER / CONFIG_FILE))


def find_binary(environ: Mapping[str, str]) -> Path:
    """Where nats-server is. Raises NatsServerError."""
    named = environ.get(BINARY_VARIABLE)
    if named:
        if not os.access(named, os.X_OK):
            raise NatsServerError(f"{BINARY_VARIABLE}: {named} is no program")
        return Path(named)
    search = os.pathsep.join((environ.get("PATH", ""), *OUTSIDE_PATH))
    found = shutil.which("nats-server", path=search)
    if found is not None:
        return Path(found)
    cache = Path(environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "emass" / "peers") / CACHED
    if os.access(cache, os.X_OK):
        return cache
    raise NatsServerError(
        "nats-server is not on this machine: apt install nats-server (2.9 or newer), "
        f"or name its program in {BINARY_VARIABLE}"
    )


def write_nats_config(config: Config, registry: Registry, now: float | None = None) -> Path:
    """Write the server's configuration, if it says something else than that which is there; its path.

    Call it where the registry's lock is held (`changing`). `now` is asked for codes that are long over.
    """
    folder = Path(config.node.data) / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / CONFIG_FILE
    newest = max((code.made_at for code in registry.codes.values()), default=0.0)
    known = users(registry, newest if now is None else now)
    text = render_nats_config(config, known).encode()
    if not path.exists() or path.read_bytes() != text:
        replace_file(path, text)
    return path


def render_nats_config(config: Config, known: Sequence[User]) -> str:
    """The configuration's text."""
    data = Path(config.node.data) / FOLDER
    keys = Path(config.keys.folder)
    lines = [
        "# Written by e-MASS from who belongs to the cluster: changes here are lost.",
        f"server_name: {_quoted(config.node.name)}",
        f"listen: {_quoted(str(config.bus.listen))}",
        f"pid_file: {_quoted(str(data / PID_FILE))}",
        f"max_payload: {PAYLOAD_OCTETS_MAX}",
        f"jetstream {{ store_dir: {_quoted(str(data / 'store'))}, max_file_store: {STORE_MAX} }}",
        "tls {",
        f"  cert_file: {_quoted(str(keys / CERTIFICATE_FILE))}",
        f"  key_file: {_quoted(str(keys / KEY_FILE))}",
        "  timeout: 5",
        "}",
    ]
    return "\n".join(lines) + "\n" + render_users(known)


def render_users(known: Sequence[User]) -> str:
    """The part of the configuration that says who may do what."""
    users_lines = "\n".join(
        user_line(each.member, each.public, each.role.value, subjects_of(grant_of(each.role, each.node)))
        for each in known
    )
    return f"authorization {{\n  timeout: 5\n  users = [\n{users_lines}\n  ]\n}}\n"


def reload_nats(data: Path) -> bool:
    """Have a running server read its configuration; whether there is one."""
    path = data / FOLDER / PID_FILE
    try:
        pid = int(path.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return False
    if str(data / FOLDER / CONFIG_FILE).encode() not in command.split(b"\0"):
        return False  # the number is another process's by now
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError:
        return False
    return True


def user_line(member: str, public: str, role: str, subjects: Subjects) -> str:
    publish = ", ".join(map(_quoted, subjects.publish))
    subscribe = ", ".join(map(_quoted, subjects.subscribe))
    return (
        f"    # {member}: {role}\n"
        f"    {{ nkey: {public}, permissions: {{ publish: {{ allow: [{publish}] }}, "
        f"subscribe: {{ allow: [{subscribe}] }}, allow_responses: true }} }}"
    )


def _quoted(text: str) -> str:
    return json.dumps(text)
