"""Haraka, privately: a receiver that takes mail for every domain and keeps it in a folder.

A server of the Node.js world that announces PIPELINING and yet answers 503 to commands that come
behind a final dot in the same write: the peer for learning that. One small plugin accepts every
recipient and writes each message beside the folder before renaming it into place. It runs as the
caller, root or not. Failing to start raises `PeerFailed` with the end of its log.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.peers.certificate import Certificate, furnish
from bench.peers.place import home
from bench.peers.process import free_port, running
from bench.peers.receiver import Receiver

# The public group ffdhe2048 of RFC 7919: without one Haraka computes its own for half a minute.
_DH_PARAMETERS = """\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""

_KEEP = """\
const fs = require('node:fs')
const path = require('node:path')

// A receiver on loopback asks no name server who its client is.
exports.hook_lookup_rdns = (next) => next(OK, 'client.test')

exports.hook_rcpt = (next, connection, params) => {
  const refused = process.env.REFUSE && params[0].user.startsWith(process.env.REFUSE)
  return refused ? next(DENY, 'no such mailbox here') : next(OK)
}

exports.hook_queue = (next, connection) => {
  const txn = connection.transaction
  const name = `${txn.uuid}.eml`
  const written = path.join(process.env.MAILS, 'tmp', name)
  const file = fs.createWriteStream(written)
  const to = txn.rcpt_to.map((one) => `X-Original-To: ${one}\\r\\n`).join('')
  file.write(`Return-Path: ${txn.mail_from}\\r\\n${to}`)
  file.once('error', (error) => next(DENYSOFT, error.message))
  file.once('close', () => {
    fs.renameSync(written, path.join(process.env.MAILS, 'new', name))
    next(OK)
  })
  txn.message_stream.pipe(file, { line_endings: '\\r\\n' })
}
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
    """A Haraka that takes mail for every domain and keeps it in `folder/mails/new`.

    `folder` is its own and made if need be. Port None means a free one. `tls` offers STARTTLS, with a
    certificate of its own signature or the given one. Recipients whose local part begins with `refuse`
    get 550.
    """
    port = port or free_port(host)
    programs = home("haraka")
    node = shutil.which("node")
    assert node is not None, "place.missing has looked"
    for name in ("config", "plugins", "queue", "mails/tmp", "mails/new"):
        (folder / name).mkdir(parents=True)
    config = folder / "config"
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    (config / "smtp.ini").write_text(f"listen={address}\nnodes=0\n")
    # Haraka does not start without this one, though every line has a default.
    shutil.copy(programs / "node_modules/haraka/config/connection.ini", config)
    (config / "log.ini").write_text("[main]\nlevel=warn\n")
    (config / "me").write_text("haraka.test\n")
    (config / "plugins").write_text(("tls\n" if tls else "") + "keep\n")
    (folder / "plugins/keep.js").write_text(_KEEP)
    if tls:
        certificate, key = furnish(folder, host, tls)
        certificate.rename(config / "tls_cert.pem")
        key.rename(config / "tls_key.pem")
        (config / "tls.ini").write_text("dhparam=dhparams.pem\n")
        (config / "dhparams.pem").write_text(_DH_PARAMETERS)
    program = programs / "node_modules/haraka/bin/haraka"
    environment = {"MAILS": str(folder / "mails"), "HOME": str(folder), "REFUSE": refuse or ""}
    with running(
        [node, str(program), "-c", str(folder)],
        address=(host, port),
        log=folder / "log",
        environment=environment,
    ):
        yield Receiver("haraka", host, port, folder / "mails", folder / "log")
