"""DKIM signatures judged by OpenDKIM: a verifier in C that shares no code with ours or dkimpy's.

OpenDKIM's test mode reads messages from files and public keys from a file in place of DNS, so this
works offline and without root. It prints an Authentication-Results field (RFC 8601) per message, in
order, which names the verdict on every signature; rsa-sha256 and ed25519-sha256 are both known to it.
A run that ends badly or prints fewer verdicts than messages raises `PeerFailed`.
"""

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct

from bench.peers.place import home, library_path
from bench.peers.process import PeerFailed

# Files named on one command line; keeps it far below the kernel's limit.
BATCH_MESSAGES_MAX = 500

RUN_SECONDS_MAX = 120

_CONFIG = """\
Mode v
Syslog no
AuthservID verifier.test
AlwaysAddARHeader yes
TestPublicKeys {keys}
"""

_FIELD = re.compile(
    r"### INSHEADER: idx=\d+ hname='Authentication-Results' hvalue='(.*?)'$", re.DOTALL | re.MULTILINE
)
_RESULT = re.compile(r"dkim=(\w+)([^;]*)")


class Signature(Struct, frozen=True):
    """The verdict on one signature."""

    result: str
    """`pass`, `fail`, ... of RFC 8601 2.7.1."""
    domain: str
    selector: str
    algorithm: str


def verify_with_opendkim(message: bytes, keys: Mapping[str, str]) -> bool:
    """Whether `message` (CRLF lines) has signatures and every one of them verifies.

    `keys` maps `selector._domainkey.domain` to the text of its TXT record.
    """
    (signatures,) = judge([message], keys)
    return bool(signatures) and all(signature.result == "pass" for signature in signatures)


def judge(messages: Sequence[bytes], keys: Mapping[str, str]) -> list[tuple[Signature, ...]]:
    """The verdicts on every signature of every message, in order; an unsigned message has none."""
    root = home("opendkim")
    verdicts: list[tuple[Signature, ...]] = []
    with TemporaryDirectory(prefix="emass-opendkim-") as scratch:
        folder = Path(scratch)
        (folder / "keys").write_text("".join(f"{name} {record}\n" for name, record in keys.items()))
        (folder / "conf").write_text(_CONFIG.format(keys=folder / "keys"))
        for first in range(0, len(messages), BATCH_MESSAGES_MAX):
            batch = messages[first : first + BATCH_MESSAGES_MAX]
            for number, message in enumerate(batch):
                (folder / str(number)).write_bytes(message)
            verdicts += _run(root, folder, len(batch))
    return verdicts


def _run(root: Path, folder: Path, count: int) -> list[tuple[Signature, ...]]:
    names = ",".join(str(number) for number in range(count))
    done = subprocess.run(
        [root / "usr/sbin/opendkim", "-x", folder / "conf", "-vv", "-t", names],
        cwd=folder,
        env={"LD_LIBRARY_PATH": library_path(root), "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=RUN_SECONDS_MAX,
        check=False,
    )
    fields = _FIELD.findall(done.stdout.decode("utf-8", "replace"))
    if len(fields) != count:
        raise PeerFailed(
            f"opendkim judged {len(fields)} of {count}: {done.stderr.decode(errors='replace')[-500:]}"
        )
    return [_signatures(field) for field in fields]


def _signatures(field: str) -> tuple[Signature, ...]:
    found = []
    for result, facts in _RESULT.findall(field):
        named = dict(re.findall(r"header\.(\w)=(\S+)", facts))
        if "d" in named:
            found.append(Signature(result, named["d"], named.get("s", ""), named.get("a", "")))
    return tuple(found)
