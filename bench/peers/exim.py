"""Exim, privately: a receiver that takes mail for every domain and delivers it into a maildir.

One daemon, a configuration of a screen's length: accept every recipient, one router, one appendfile
transport that writes who sent it and for whom. It never gains rights (`deliver_drop_privilege`), so
everything it writes belongs to its own account. CHUNKING and PIPELINING are offered as Debian
builds them. TLS is GnuTLS's, where the other servers have OpenSSL, and its sessions may be resumed.
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

# The name that Debian compiles in.
ACCOUNT = "Debian-exim"

_CONFIG = """\
exim_user = {account}
exim_group = {account}
exim_path = {programs}/usr/sbin/exim4
keep_environment = LD_LIBRARY_PATH
add_environment = PATH=/usr/bin:/bin
primary_hostname = exim.test
spool_directory = {inside}/spool
log_file_path = {inside}/logs/%slog
pid_file_path = {inside}/spool/exim.pid
local_interfaces = <; {host}
daemon_smtp_ports = {port}
deliver_drop_privilege = true
never_users =
host_lookup =
rfc1413_query_timeout = 0s
smtp_accept_max = 0
smtp_accept_queue_per_connection = 0
smtp_accept_max_per_connection = 0
smtp_accept_queue = 0
message_size_limit = 50M
chunking_advertise_hosts = *
pipelining_connect_advertise_hosts =
smtputf8_advertise_hosts = *
check_spool_space = 0
check_spool_inodes = 0
queue_run_max = 1
acl_smtp_rcpt = take_all
acl_smtp_data = accept
{tls}

begin acl
take_all:
  {refusal}accept

begin routers
everything:
  driver = accept
  transport = keep

begin transports
keep:
  driver = appendfile
  directory = {inside}/mails
  maildir_format
  envelope_to_add
  return_path_add

begin retry
* * F,1h,1m
"""

_TLS = """\
tls_advertise_hosts = *
tls_certificate = {inside}/certificate.pem
tls_privatekey = {inside}/key.pem
tls_resumption_hosts = *
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
    """An Exim that takes mail for every domain and delivers it into `folder/mails/new`.

    `folder` is its own and made if need be. Port None means a free one. `tls` offers STARTTLS, with a
    certificate of its own signature or the given one. Recipients whose local part begins with `refuse`
    get 550.
    """
    port = port or free_port(host)
    namespace = Namespace(home("exim"), accounts=(ACCOUNT,))
    owner = namespace.account_id(ACCOUNT)
    for name in ("mails", "spool", "logs"):
        (folder / name).mkdir(parents=True)
        os.chown(folder / name, owner, owner)
    tls_lines = "tls_advertise_hosts ="
    if tls:
        furnish(folder, host, tls, owner=(owner, owner))
        tls_lines = _TLS.format(inside=FOLDER_INSIDE)
    refusal = f"deny local_parts = ^{refuse}\n       message = no such mailbox here\n  " if refuse else ""
    config = folder / "exim.conf"
    config.write_text(
        _CONFIG.format(
            account=ACCOUNT,
            programs=PROGRAMS_INSIDE,
            inside=FOLDER_INSIDE,
            host=host,
            port=port,
            tls=tls_lines,
            refusal=refusal,
        )
    )
    command = [str(PROGRAMS_INSIDE / "usr/sbin/exim4"), "-C", str(FOLDER_INSIDE / config.name), "-bdf"]
    environment = {"LD_LIBRARY_PATH": library_path(namespace.programs, seen_as=PROGRAMS_INSIDE)}
    with running(
        command, address=(host, port), log=folder / "log", environment=environment, namespace=namespace
    ):
        yield Receiver("exim", host, port, folder / "mails", folder / "log")
