"""OpenSMTPD, privately: a receiver that takes mail for every domain and keeps it in a folder.

Its paths are compiled in, so in its namespace folders of ours cover `/run`, `/var/spool`,
`/var/lib` and `/usr/libexec`. A one-line delivery command writes each message beside the folder and
renames it into place, so a reader never sees half of one. It offers neither PIPELINING nor CHUNKING:
it is the peer for plain, one-command-at-a-time SMTP. Its STARTTLS is announced and then fails in the
handshake, whatever the key and the version of TLS: the 6.8.0p2 of Debian 12 keeps the private key in
another process and has OpenSSL ask there through replaced RSA and ECDSA methods, which OpenSSL 3 passes
over (by all that was seen; OpenSMTPD issue 1171); an Ed25519 key it refuses at the start. No setting mends
that, which makes it the peer for falling back to plain text. Later versions (7.6) do speak TLS.
It completes From and To without a domain.
Failing to start raises `PeerFailed` with the end of its log.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.peers.certificate import Certificate, furnish
from bench.peers.place import home, library_path
from bench.peers.process import FOLDER_INSIDE, PROGRAMS_INSIDE, Namespace, free_port, running
from bench.peers.receiver import Receiver

# The names that Debian compiles in, and the account that delivers.
ACCOUNTS = ("opensmtpd", "opensmtpq", "mailbox")

_CONFIG = """\
{pki}
queue ttl 1h
smtp max-message-size "50M"
table everyone {{ "@" = mailbox }}
listen on {host} port {port} hostname opensmtpd.test {tls}
action "keep" mda "{inside}/keep" virtual <everyone>
{refusal}match from any for any action "keep"
"""

_PKI = """\
pki here cert "{inside}/certificate.pem"
pki here key "{inside}/key.pem"
"""

_KEEP = """\
#!/bin/sh
set -e
name=$(mktemp "{inside}/mails/tmp/XXXXXXXXXXXX")
cat > "$name"
mv "$name" "{inside}/mails/new/"
"""


@contextmanager
def receiving(
    folder: Path,
    host: str = "127.0.0.1",
    port: int | None = None,
    *,
    tls: bool | Certificate = False,
    refuse: str | None = None,
) -> Iterator[Receiver]:
    """An OpenSMTPD that takes mail for every domain and keeps it in `folder/mails/new`.

    `folder` is its own and made if need be. Port None means a free one. `tls` announces STARTTLS.
    Recipients whose local part begins with `refuse` get 550.
    """
    port = port or free_port(host)
    run, spool, state = folder / "run", folder / "spool", folder / "state"
    programs = home("opensmtpd")
    covered = (
        (run, "/run"),
        (spool, "/var/spool"),
        (state, "/var/lib"),
        (programs / "usr/libexec", "/usr/libexec"),
    )
    namespace = Namespace(programs, accounts=ACCOUNTS, mounts=covered)
    _furnish(folder, namespace)
    config = folder / "smtpd.conf"
    if tls:
        furnish(folder, host, tls)
    config.write_text(
        _CONFIG.format(
            inside=FOLDER_INSIDE,
            host=host,
            port=port,
            pki=_PKI.format(inside=FOLDER_INSIDE) if tls else "",
            tls="tls pki here" if tls else "",
            refusal=f'match from any for any rcpt-to regex "^<?{refuse}" reject\n' if refuse else "",
        )
    )
    config.chmod(0o644)
    command = [str(PROGRAMS_INSIDE / "usr/sbin/smtpd"), "-d", "-f", str(FOLDER_INSIDE / config.name)]
    environment = {"LD_LIBRARY_PATH": library_path(namespace.programs, seen_as=PROGRAMS_INSIDE)}
    with running(
        command, address=(host, port), log=folder / "log", environment=environment, namespace=namespace
    ):
        yield Receiver("opensmtpd", host, port, folder / "mails", folder / "log")


def _furnish(folder: Path, namespace: Namespace) -> None:
    """The folders of the package, with the owners that smtpd insists on, and the delivery command."""
    queue_owner, mailbox = namespace.account_id("opensmtpq"), namespace.account_id("mailbox")
    for name in ("run", "state/opensmtpd/empty", "spool/smtpd"):
        (folder / name).mkdir(parents=True)
    (folder / "spool/smtpd").chmod(0o711)
    for name, mode in (("offline", 0o770), ("purge", 0o700), ("queue", 0o700)):
        path = folder / "spool/smtpd" / name
        path.mkdir()
        os.chown(path, *((0, queue_owner) if name == "offline" else (queue_owner, 0)))
        path.chmod(mode)
    for name in ("mails", "mails/tmp", "mails/new"):
        (folder / name).mkdir()
        os.chown(folder / name, mailbox, mailbox)
    keep = folder / "keep"
    keep.write_text(_KEEP.format(inside=FOLDER_INSIDE))
    keep.chmod(0o755)
